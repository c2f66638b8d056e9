import { strict as assert } from "node:assert";
import { test } from "node:test";
import { Cpu } from "../../kernels/cpu.ts";
import { geglu, linearGeglu } from "../../kernels/geglu.ts";
import { linear } from "../../kernels/linear.ts";
import { Plan } from "../../kernels/plan.ts";
import { toHalves } from "../../kernels/half.ts";
import { testBackend } from "../backend.ts";
import { assertClose, sumBound, U } from "../compare.ts";
import { checkOp, halfInput, input } from "./check_op.ts";
import { gelu } from "./formulas.ts";

test("geglu() matches its definition", async () => {
  const shapes = [[1, 2, 1], [2, 6, 5], [1, 2, 63], [2, 2, 64], [3, 10, 13], [
    2,
    4,
    3,
    5,
  ]];
  for (const shape of shapes) {
    for (const scale of [1, 20]) {
      // One gate alone is positive: left of 0 gelu vanishes, and its error only beside the gate.
      const x = shape[1] === 2 && shape[2] === 1
        ? { data: Float32Array.of(0.3 * scale, 0.9 * scale), shape }
        : input(3, shape, scale);
      await checkOp(`geglu [${shape}] x ${scale}`, {
        inputs: [x],
        wrt: [0],
        forward: (x) => [geglu(x)],
      }, {
        // As gelu, 8 U, and two more products.
        values: 10 * U,
        grads: 10 * U,
        formula: () => {
          const [batch = 1] = shape;
          const plane = x.data.length / batch / 2;
          const y = new Float64Array(x.data.length / 2);
          for (let i = 0; i < y.length; i++) {
            const b = Math.floor(i / plane);
            const value = x.data[2 * b * plane + i % plane]!;
            const gate = x.data[(2 * b + 1) * plane + i % plane]!;
            y[i] = value * gelu(gate);
          }
          return [y];
        },
      });
    }
  }
});

test("geglu() matches its definition at a size of the networks", async () => {
  await checkOp("geglu [2, 2560, 64]", {
    inputs: [input(3, [2, 2560, 8, 8], 3)],
    wrt: [0],
    forward: (x) => [geglu(x)],
  }, { values: 10 * U, grads: 10 * U, numeric: false });
});

// [batch, in, inner, ...space]; from the third on as one kernel, the fifth with threads past the last row.
const LAYERS = [
  [1, 3, 5, 7],
  [2, 8, 4, 16],
  [2, 32, 128, 16, 16],
  [1, 96, 384, 256],
  [3, 36, 92, 100],
] as const;

test("linearGeglu() matches its definition", async () => {
  for (const [batch, channels, inner, ...space] of LAYERS) {
    const x = input(1, [batch, channels, ...space]);
    const weight = input(2, [2 * inner, channels]);
    const bias = input(3, [2 * inner]);
    await checkOp(`linearGeglu ${[batch, channels, inner, ...space]}`, {
      inputs: [x, weight, bias],
      wrt: [0],
      forward: (x, weight, bias) => [linearGeglu(x!, weight!, bias!)],
    }, {
      values: 2 * sumBound(channels) + 10 * U,
      grads: 2 * sumBound(channels) + sumBound(2 * inner) + 20 * U,
      numeric: channels < 10,
    });
  }
});

test("linearGeglu() gives the numbers of its parts", async () => {
  const real = await testBackend();
  using definition = new Cpu();
  // The references of the one kernel, which the cpu backend does not choose.
  Object.defineProperty(definition, "kind", { value: "webgpu" });
  for (const backend of [real, definition]) {
    for (const [batch, channels, inner, ...space] of LAYERS) {
      for (const half of [false, true]) {
        const x = input(1, [batch, channels, ...space]);
        const w = (half ? halfInput : input)(2, [2 * inner, channels], 1);
        using tx = backend.upload(x.data, x.shape);
        using weight = backend.alloc(w.shape, half ? "f16" : "f32");
        if (half) backend.writeHalf(weight, toHalves(w.data as Float32Array));
        else backend.write(weight, w.data);
        using bias = backend.upload(input(3, [2 * inner]).data, [2 * inner]);
        using one = linearGeglu(tx, weight, bias);
        using wide = linear(tx, weight, { bias });
        using parts = geglu(wide);
        assert.deepEqual(one.shape, parts.shape);
        const [found, expected] = await backend.read([one, parts]);
        if (backend === real) {
          const differs = found!.findIndex((y, i) => y !== expected![i]);
          assert.equal(differs, -1, "first number that differs");
        } else assertClose(found!, expected!, { relL2: 1e-13 }, "definition");
      }
    }
  }
});

test("linearGeglu() is one kernel in the software family, where its weights are one piece", () => {
  using plan = new Plan();
  const kernels = (channels: number, inner: number, cells: number) => {
    const before = plan.dispatches;
    using x = plan.alloc([1, channels, cells]);
    using weight = plan.alloc([2 * inner, channels], "f16");
    using bias = plan.alloc([2 * inner]);
    linearGeglu(x, weight, bias).dispose();
    return plan.dispatches - before;
  };
  assert.equal(kernels(320, 1280, 64), 1);
  assert.equal(kernels(320, 1278, 64), 2);
  assert.equal(kernels(320, 1280, 63), 2);
  assert.equal(kernels(320, 1280, 4), 2); // a kernel for narrow results
  assert.ok(kernels(1280, 5120, 64) > 2); // more than a stage holds
  assert.equal(kernels(8, 16, 64), 2); // little work
});

test("geglu() refuses an odd number of channels", async () => {
  const backend = await testBackend();
  using odd = backend.alloc([1, 3, 4]);
  using even = backend.alloc([1, 4, 4]);
  assert.throws(() => geglu(odd), { name: "RangeError", message: /even/ });
  geglu(even).dispose();
});
