import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { StorageType, Tensor } from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { linear } from "../../kernels/linear.ts";
import { Parameters } from "../../pipeline/parameters.ts";
import type { WeightSource } from "../../pipeline/weight_source.ts";
import { testBackend } from "../backend.ts";

/** Tensors of whole numbers, the first one counting from 1, the second from 101. */
function counting(
  shapes: Readonly<Record<string, readonly number[]>>,
): WeightSource {
  const tensors = new Map(
    Object.entries(shapes).map(([name, shape]) => [name, { shape }]),
  );
  return {
    name: "counting",
    tensors,
    read: (name) => {
      const at = [...tensors.keys()].indexOf(name);
      const { shape } = tensors.get(name)!;
      const size = shape.reduce((a, b) => a * b, 1);
      return Promise.resolve(
        Float32Array.from({ length: size }, (_, i) => 100 * at + i + 1),
      );
    },
  };
}

/** The numbers of a matrix of two columns on the configured backend, whatever its type. */
async function columns(weight: Tensor): Promise<number[][]> {
  const { backend } = weight;
  return await Promise.all([[1, 0], [0, 1]].map(async (unit) => {
    using x = backend.upload(unit, [1, 2, 1]);
    using y = linear(x, weight);
    const [values] = await backend.read([y]);
    return [...values!];
  }));
}

const LAYERS = [{ name: "a", out: 1 }, { name: "b", out: 3 }, {
  name: "c",
  out: 2,
}];

const SHAPES = {
  "a.weight": [1, 2],
  "b.weight": [3, 2],
  "c.weight": [2, 2],
  "a.bias": [1],
  "b.bias": [3],
  "c.bias": [2],
};

test("Parameters.stacked() lays the rows of layers below one another", async () => {
  const backend = await testBackend();
  for (const storage of ["f32", "f16"] satisfies StorageType[]) {
    using p = new Parameters(backend, counting(SHAPES), storage);
    const { weight, bias } = p.stacked(LAYERS, 2);
    let loaded = 0;
    await p.load({ onTensor: () => loaded++ });
    assert.equal(loaded, 6);
    assert.deepEqual([weight.shape, weight.type], [[6, 2], storage]);
    assert.deepEqual(await columns(weight), [
      [1, 101, 103, 105, 201, 203],
      [2, 102, 104, 106, 202, 204],
    ]);
    const [values] = await backend.read([bias!]);
    assert.deepEqual([...values!], [301, 401, 402, 403, 501, 502]);
  }
});

test("Parameters.stacked() takes turns with the rows of layers", async () => {
  const backend = await testBackend();
  const source = (): WeightSource =>
    counting({
      "a.weight": [4, 2],
      "b.weight": [2, 2],
      "a.bias": [4],
      "b.bias": [2],
    });
  const layers = [{ name: "a", out: 4 }, { name: "b", out: 2 }];
  for (const storage of ["f32", "f16"] satisfies StorageType[]) {
    using p = new Parameters(backend, source(), storage);
    const { weight, bias } = p.stacked(layers, 2, { turns: 2 });
    await p.load();
    assert.deepEqual([weight.shape, weight.type], [[6, 2], storage]);
    assert.deepEqual(await columns(weight), [
      [1, 3, 101, 5, 7, 103],
      [2, 4, 102, 6, 8, 104],
    ]);
    const [values] = await backend.read([bias!]);
    assert.deepEqual([...values!], [201, 202, 301, 203, 204, 302]);
  }
  using p = new Parameters(backend, source());
  assert.equal(p.stacked(layers, 2, { bias: false }).bias, undefined);
  await assert.rejects(() => p.load(), /extra 2: a\.bias, b\.bias/);
});

test("Parameters.stacked() keeps in f32 what could not be written in pairs of halves", async () => {
  using backend = new Cpu();
  const source = counting({
    "a.weight": [1, 3],
    "b.weight": [1, 3],
    "a.bias": [1],
    "b.bias": [1],
  });
  using p = new Parameters(backend, source, "f16");
  const layers = [{ name: "a", out: 1 }, { name: "b", out: 1 }];
  const { weight } = p.stacked(layers, 3);
  await p.load();
  assert.equal(weight.type, "f32");
  const [values] = await backend.read([weight]);
  assert.deepEqual([...values!], [1, 2, 3, 101, 102, 103]);
});

test("Parameters.stacked() knows every tensor of the checkpoint by its own name", async () => {
  using backend = new Cpu();
  const load = async (change: object, layers = LAYERS): Promise<void> => {
    const shapes = { ...SHAPES, ...change };
    using p = new Parameters(backend, counting(shapes));
    p.stacked(layers, 2);
    await p.load();
  };
  const refused = (run: Promise<void>, message: RegExp) =>
    assert.rejects(run, { name: "WeightsError", message });
  await load({});
  await refused(
    load({ "b.weight": [2, 2] }),
    /tensor b\.weight must be \[3,2\]: current shape is \[2,2\]/,
  );
  await refused(
    load({ "c.bias": [3] }),
    /tensor c\.bias must be \[2\]: current shape is \[3\]/,
  );
  await refused(
    load({}, [...LAYERS, { name: "d", out: 1 }]),
    /must hold tensor d\.weight \[1,2\]: current file has none/,
  );
  await refused(load({}, LAYERS.slice(0, 2)), /extra 2: c\.weight, c\.bias/);
  await refused(
    load({}, [...LAYERS, LAYERS[0]!]),
    /a\.weight is asked for twice/,
  );
  assert.equal(backend.memory.liveBytes, 0);
});
