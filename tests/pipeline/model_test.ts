/** A model in a program: calls side by side, callbacks that fail, options that are wrong, a model that is gone. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { PlannedKernel, StorageType } from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { generateInWorkers, type Model, open } from "../../mod.ts";

const REQUEST = { prompt: "a red car", width: 16, height: 16, steps: 2 };

async function withModel(use: (model: Model) => Promise<void>): Promise<void> {
  using backend = new Cpu();
  await using model = await open("tiny-scenes", { backend });
  await use(model);
}

test("pictures of one model are painted one after the other, each as if alone", () =>
  withModel(async (model) => {
    const seen: number[] = [];
    const paint = (seed: number, signal?: AbortSignal) =>
      model.generate({ ...REQUEST, seed }, {
        signal,
        onStep: () => void seen.push(seed),
      });
    const stop = new AbortController();
    const [first, second, third] = [
      paint(1),
      assert.rejects(paint(2, stop.signal), /enough/),
      paint(3),
    ];
    stop.abort(new Error("enough"));
    const both = [(await first).rgb, (await third).rgb];
    await second;
    assert.deepEqual(seen, [1, 1, 3, 3]);
    assert.deepEqual(both, [(await paint(1)).rgb, (await paint(3)).rgb]);
  }));

test("a picture that fails lets the next one in", () =>
  withModel(async (model) => {
    const onStep = (): void => {
      throw new Error("mine");
    };
    const failed = assert.rejects(model.generate(REQUEST, { onStep }), /mine/);
    assert.equal((await model.generate(REQUEST)).width, 16);
    await failed;
    await assert.rejects(
      model.generate({ ...REQUEST, steps: 0 }),
      /steps must be/,
    );
  }));

test("open() lets the device choose its tiles for the weights that it stores, before anything is compiled", async () => {
  const halves = (kernels: readonly PlannedKernel[]): boolean =>
    kernels.some(({ kernel: { name } }) => name.endsWith("_half"));
  class Choosing extends Cpu {
    readonly done: string[] = [];
    override tuneFor(weights: StorageType = "f32"): Promise<void> {
      this.done.push(`tune for ${weights}`);
      this.halfTiles = weights === "f16";
      return Promise.resolve();
    }
    override prepare(kernels: readonly PlannedKernel[] = []): Promise<void> {
      this.done.push(`compile ${halves(kernels) ? "halves" : "others"}`);
      return Promise.resolve();
    }
  }
  for (const weights of ["f32", "f16"] as const) {
    using backend = new Choosing("gpu");
    const options = { backend, weights, memoryBytes: 1e12 };
    await using model = await open("tiny-scenes", options);
    const half = weights === "f16";
    assert.deepEqual(backend.done, [
      `tune for ${weights}`,
      `compile ${half ? "halves" : "others"}`,
    ]);
    const { request } = model.check(REQUEST);
    assert.equal(halves((await model.plan(request)).kernels), half);
  }
});

test("a model that is disposed says so", async () => {
  const model = await open("tiny-scenes", { backend: "cpu" });
  model[Symbol.dispose]();
  await assert.rejects(model.generate(REQUEST), {
    name: "Error",
    message: /^Cannot paint with tiny-scenes: .* current one is disposed$/,
  });
});

test("open() refuses options that it would ignore or fail by later", async () => {
  const refused = (options: object, message: RegExp) =>
    assert.rejects(open("tiny-scenes", options), {
      name: "TypeError",
      message,
    });
  await refused(
    { backend: "gpu" },
    /backend must be auto, webgpu, cpu: .*"gpu"/,
  );
  await refused(
    { weights: "fp16" },
    /weights must be auto, f32, f16: .*"fp16"/,
  );
  await refused(
    { memoryByte: 1 },
    /"memoryByte"; did you mean "memoryBytes"\?/,
  );
});

test("generateInWorkers() rejects with what a callback throws", async () => {
  await assert.rejects(
    generateInWorkers("tiny-scenes", [REQUEST], {
      onStep: () => {
        throw new Error("mine");
      },
    }),
    /mine/,
  );
});

test("plans of phrases that end more often are their own", () =>
  withModel(async (model) => {
    const sampling = async (phrase: string, occurrence: 0 | "all") => {
      const { request } = model.check({
        prompt: "a red car and a blue car",
        regions: [{ phrase, occurrence, boxes: [[0, 0, 0.5, 0.5]] }],
        guidance: { tokens: "last" },
      });
      return (await model.plan(request)).sampling;
    };
    assert.ok(await sampling("red car", 0) < await sampling("car", "all"));
  }));
