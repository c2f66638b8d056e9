/**
 * What saves memory must not change numbers: f16 weights of an F16 checkpoint, raw convolution weights,
 * blocks that are run again; and a plan must foretell what a device then takes.
 */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Backend, Floats, StorageType } from "../../kernels/backend.ts";
import { Plan } from "../../kernels/plan.ts";
import { WebGpu } from "../../kernels/webgpu.ts";
import { LayoutEnergy } from "../../pipeline/energy.ts";
import { deviceEnergy } from "../../pipeline/guidance/device_energy.ts";
import { guidedSites } from "../../pipeline/guidance/sites.ts";
import type { RunMemory } from "../../pipeline/generate.ts";
import { estimateMemory } from "../../pipeline/memory.ts";
import { open } from "../../pipeline/model.ts";
import { loadUnet } from "../../pipeline/unet.ts";
import { attentionSites } from "../../pipeline/unet_config.ts";
import { energyGradient } from "../../pipeline/unet_grad.ts";
import { BACKEND, DEVICE, KERNELS, testBackend } from "../backend.ts";
import { compare, rand } from "../compare.ts";
import { tinyUnet } from "./tiny_unet.ts";

interface Run {
  readonly storage?: StorageType;
  readonly recompute?: boolean;
  /** Every cross-attention site instead of middle and first up block. */
  readonly all?: boolean;
}

/** Prediction and gradient of one guided pass of the tiny UNet, whose weights are exact in f16. */
async function guidedPass(
  backend: Backend,
  { storage = "f32", recompute = false, all = false }: Run,
): Promise<{ output: Floats; grad: Floats }> {
  const source = await tinyUnet();
  try {
    using unet = await loadUnet(backend, source, { storage });
    backend.trim(); // what loading needed
    const ids = all
      ? attentionSites(unet.config).filter((s) => s.kind === "cross")
        .map((s) => s.id)
      : guidedSites(unet.config, "middle_and_first_up");
    using z = backend.upload(rand(1, 4 * 8 * 10), [1, 4, 8, 10]);
    using text = backend.upload(rand(2, 40 * 11), [1, 40, 11]);
    using energy = deviceEnergy(
      new LayoutEnergy(
        backend,
        [
          { name: "a", tokens: [2], boxes: [[0.06, 0.19, 0.56, 0.81]] },
          { name: "b", tokens: [5, 6], boxes: [[0.5, 0.4, 0.95, 0.95]] },
        ],
        ids,
        [80, 64],
      ),
      { rho: () => 2 },
    );
    backend.resetPeak();
    const pass = await energyGradient(unet, z, 621, { states: text }, {
      energy,
      at: { step: 0, steps: 1, iteration: 0 },
      recompute,
    });
    const [output, grad] = await backend.read([pass.output, pass.grad]);
    for (const x of [pass.output, pass.grad, ...pass.terms]) x.dispose();
    return { output: output!, grad: grad! };
  } finally {
    await source.close();
  }
}

test("f16 storage gives the very numbers of f32 where the weights are f16", async () => {
  const backend = await testBackend();
  const full = await guidedPass(backend, {});
  const half = await guidedPass(backend, { storage: "f16" });
  assert.ok(full.output.some((x) => Math.abs(x) > 0.1));
  assert.ok(full.grad.some((x) => x !== 0));
  assert.deepEqual(half, full);
});

test("recompute gives the gradient of a tape that keeps everything", async () => {
  const backend = await testBackend();
  for (const all of [false, true]) {
    const kept = await guidedPass(backend, { all });
    const again = await guidedPass(backend, { all, recompute: true });
    assert.deepEqual(again.output, kept.output);
    // Gradients on one value may be added in another order.
    const { relL2 } = compare(again.grad, kept.grad);
    assert.ok(relL2 < (backend.kind === "cpu" ? 1e-14 : 1e-6), `${relL2}`);
  }
});

test("recompute and f16 need less memory, by the plan", async () => {
  const peak = async (run: Run): Promise<number> => {
    using plan = new Plan();
    await guidedPass(plan, run);
    return plan.memory.peakBytes;
  };
  const all = true;
  const full = await peak({ all });
  const again = await peak({ all, recompute: true });
  const half = await peak({ all, recompute: true, storage: "f16" });
  assert.ok(again < 0.9 * full, `${again} of ${full}`);
  assert.ok(half < 0.8 * again, `${half} of ${again}`);
});

if (BACKEND === "webgpu") {
  test("a plan of a guided pass takes the bytes of the pass", async () => {
    for (
      const run of [{}, { storage: "f16", recompute: true }] satisfies Run[]
    ) {
      using own = await WebGpu.open({ device: DEVICE, kernels: KERNELS });
      using plan = new Plan(own.maxTensorBytes, own.family);
      await guidedPass(own, run);
      await guidedPass(plan, run);
      assert.deepEqual(own.memory, plan.memory);
    }
  });
}

const REQUEST = {
  prompt: "a red car and a blue house on grass",
  regions: [
    { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
    { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
  ],
  width: 64,
  height: 64,
  steps: 2,
  guidance: { steps: 1, iterations: 1 },
} as const;

test("pictures are the same whatever is given up for memory, but for tiles", async () => {
  const backend = await testBackend();
  const paint = async (weights: StorageType, memory: RunMemory) => {
    using model = await open("tiny-scenes", { backend, weights });
    return (await model.generate(REQUEST, { memory })).rgb;
  };
  const plain = await paint("f32", {});
  assert.deepEqual(await paint("f16", {}), plain);
  assert.deepEqual(await paint("f32", { together: false }), plain);
  const thrifty = await paint("f16", { together: false, recompute: true });
  const most = thrifty.reduce(
    (m, v, i) => Math.max(m, Math.abs(v - plain[i]!)),
    0,
  );
  assert.ok(most <= 1, `${most} of 255`);
  {
    // The text encoders are loaded again for the second picture.
    using model = await open("tiny-scenes", { backend, weights: "f16" });
    const full = backend.memory.liveBytes;
    for (const _ of [1, 2]) {
      const { rgb } = await model.generate(REQUEST, {
        memory: { freeText: true },
      });
      assert.deepEqual(rgb, plain);
      assert.ok(backend.memory.liveBytes < full);
    }
  }
  // One tile that covers all is the whole.
  assert.deepEqual(await paint("f32", { tile: 16 }), plain);
});

if (BACKEND === "webgpu") {
  test("a plan of a picture takes the bytes of the picture", async () => {
    const thrifty = {
      freeText: true,
      together: false,
      recompute: true,
      tile: 12,
    };
    const runs: (readonly [RunMemory, object])[] = [
      [{}, {}],
      [thrifty, {}],
      [thrifty, { bestOf: 3 }],
    ];
    for (const [memory, more] of runs) {
      using backend = await WebGpu.open({
        device: DEVICE,
        kernels: KERNELS,
      });
      using model = await open("tiny-scenes", { backend, weights: "f16" });
      const { request } = model.check({ ...REQUEST, ...more });
      const { report } = await model.generate(request, { memory });
      const { choice: _, kernels, largestTensorBytes, peakBytes, ...phases } =
        await estimateMemory(
          model.facts,
          request,
          { weights: "f16", ...memory },
          backend,
        );
      assert.deepEqual(report.memory, phases);
      assert.equal(report.peakBytes, peakBytes);
      // So does the next one, also with previews.
      const again = await model.generate(request, {
        memory,
        onStep: async ({ preview }) => void await preview(),
      });
      const { sampling, ...rest } = again.report.memory;
      const { sampling: planned, ...others } = phases;
      // Buffers that stay may be of other sizes than in the first picture, by a little.
      const little = 1.005;
      for (const key of ["weights", "text", "decoding"] as const) {
        assert.ok(
          rest[key] <= little * others[key],
          `${key}: ${rest[key]} of ${others[key]}`,
        );
      }
      assert.ok(
        // A preview is decoded beside what the sampler holds: text, latents.
        sampling <= Math.max(little * planned, phases.decoding + 2 ** 21),
        `${sampling} of ${planned} and ${phases.decoding}`,
      );
      assert.ok(largestTensorBytes > 100_000 && kernels.length > 20);
    }
  });
}

test("a picture that is stopped leaves nothing on the device", async () => {
  const backend = await testBackend();
  using model = await open("tiny-scenes", { backend, weights: "f32" });
  const before = backend.memory.liveBytes;
  // In a guided pass, in a denoising one, and where the energy itself reads.
  for (
    const [pass, guidance] of [[1, {}], [2, {}], [1, { energyFloor: 0.5 }]]
  ) {
    const stop = new AbortController();
    let reads = 0;
    const { read } = backend;
    backend.read = (tensors, options) => {
      if (++reads === pass) stop.abort(new Error("enough"));
      return read.call(backend, tensors, options);
    };
    try {
      await assert.rejects(
        () =>
          model.generate({
            ...REQUEST,
            guidance: { ...REQUEST.guidance, ...guidance as object },
          }, {
            signal: stop.signal,
            memory: {},
            onAttention: () => {},
          }),
        /enough/,
      );
    } finally {
      backend.read = read;
    }
    assert.equal(backend.memory.liveBytes, before, `${pass}`);
  }
});
