/** Tiles of 16-bit weights that stay in 16 bits give what those in 32 bits do, to the bit. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type {
  Backend,
  Dispatch,
  Floats,
  Kernel,
  Tensor,
} from "../../kernels/backend.ts";
import { conv, conv3x3 } from "../../kernels/conv.ts";
import { gemm } from "../../kernels/gemm.ts";
import { toHalves } from "../../kernels/half.ts";
import { Plan } from "../../kernels/plan.ts";
import { Tape } from "../../kernels/tape.ts";
import {
  describeTiles,
  prefersHalfTiles,
  tileTimes,
} from "../../kernels/tile_times.ts";
import { WebGpu } from "../../kernels/webgpu.ts";
import { BACKEND, DEVICE, KERNELS, testBackend } from "../backend.ts";
import { rand } from "../compare.ts";

function upload(
  backend: Backend,
  seed: number,
  shape: readonly number[],
  type: "f32" | "f16" = "f32",
): Tensor {
  const tensor = backend.alloc(shape, type);
  const data = rand(seed, tensor.size);
  if (type === "f16") backend.writeHalf(tensor, toHalves(data));
  else backend.write(tensor, data);
  return tensor;
}

/** A product with A in 16 bits, `pad` numbers between lines. */
function product(
  backend: Backend,
  [M, N, K]: readonly [number, number, number],
  a: "row" | "column" = "row",
  pad = 0,
): Tensor {
  const [lines, length] = a === "row" ? [M, K] : [K, M];
  const stride = length + pad;
  using A = upload(backend, 1, [2, lines, stride], "f16");
  using B = upload(backend, 2, [2, K, N]);
  const C = upload(backend, 3, [2, M, N]);
  gemm(
    [M, N, K],
    { tensor: A, stride, batchStride: lines * stride },
    { tensor: B, stride: N, batchStride: K * N },
    { tensor: C, stride: N, batchStride: M * N },
    { batch: 2, a },
  );
  return C;
}

/** A convolution and the gradient on its image. */
function convolved(
  backend: Backend,
  [channels, out, side, stride]: readonly [number, number, number, number],
): Tensor[] {
  using x = upload(backend, 1, [2, channels, side, side]);
  using weight = upload(backend, 2, [out, channels, 3, 3], "f16");
  using tape = new Tape(backend, [x]);
  const y = tape.run(() =>
    stride === 1
      ? conv3x3(x, weight, {})
      : conv(x, weight, { kernel: 3, stride, padding: [1, 1, 1, 1] })
  );
  using seed = upload(backend, 3, y.shape);
  const [grad] = tape.backward([[y, seed]]);
  return [y, grad!];
}

/** Every way that the kernels read A: fours along k, along m, single numbers; every tile; sums in parts. */
const WORK: Readonly<Record<string, (backend: Backend) => Tensor[]>> = {
  "32x128, lines": (b) => [product(b, [70, 132, 36])],
  "32x128, no lines": (b) => [product(b, [61, 130, 35])],
  "32x128, quads of m": (b) => [product(b, [68, 132, 37], "column")],
  "32x128, no quads": (b) => [product(b, [67, 132, 37], "column")],
  "32x32": (b) => [product(b, [37, 36, 136])],
  "128x8": (b) => [product(b, [131, 4, 40])],
  "lines apart": (b) => [product(b, [35, 68, 20], "row", 4)],
  "numbers apart": (b) => [product(b, [36, 68, 20], "column", 3)],
  "in parts": (b) => [product(b, [36, 64, 1024])],
  "convolution, lines": (b) => convolved(b, [8, 36, 6, 1]),
  "convolution, no lines": (b) => convolved(b, [7, 5, 9, 1]),
  "convolution, step of 2": (b) => convolved(b, [4, 33, 9, 2]),
};

test("halfTiles changes the kernels of 16-bit weights, and of the gpu family only", () => {
  const kernels = (family: "software" | "gpu", halfTiles: boolean) => {
    using plan = new Plan(Infinity, family);
    plan.halfTiles = halfTiles;
    for (const work of Object.values(WORK)) {
      for (const x of work(plan)) x.dispose();
    }
    using A = plan.alloc([32, 32]);
    using C = plan.alloc([32, 32]);
    const whole = { tensor: A, stride: 32 };
    gemm([32, 32, 32], whole, whole, { tensor: C, stride: 32 });
    return plan.kernels.map(({ kernel: { name } }) => name);
  };
  const names = kernels("gpu", true);
  const halves = new Set(names.filter((name) => name.endsWith("_half")));
  assert.deepEqual(
    [...halves].sort(),
    ["128x8", "32x128", "32x32"].map((tile) => `gemm_tiled_${tile}_half`)
      .concat(`conv_tiled_32x128_half`, `conv_tiled_32x32_half`).sort(),
  );
  assert.ok(names.includes("gemm_tiled_32x32")); // A in 32 bits
  for (const [family, half] of [["gpu", false], ["software", true]] as const) {
    const other = kernels(family, half).join(" ");
    assert.doesNotMatch(other, /tiled_\w+_half/, family);
  }
});

if (BACKEND === "webgpu" && KERNELS === "gpu") {
  test("WebGpu.tuneFor() times tiles for 16-bit weights, on GPUs alone", async () => {
    const timed = async (
      weights: "f32" | "f16",
      isFallbackAdapter: boolean,
      kernels: "gpu" | "software" = "gpu",
    ): Promise<number> => {
      using backend = await WebGpu.open({ device: DEVICE, kernels });
      const { adapter } = backend;
      const info = { ...adapter.info, isFallbackAdapter };
      Object.defineProperty(backend, "adapter", {
        value: { ...adapter, info },
      });
      let times = 0;
      backend.chooseTiles = () => Promise.resolve(void times++);
      await backend.tuneFor(weights);
      return times;
    };
    assert.equal(await timed("f16", false), 1);
    assert.equal(await timed("f32", false), 0);
    assert.equal(await timed("f16", true), 0);
    assert.equal(await timed("f16", false, "software"), 0);
  });

  test("WebGpu.chooseTiles() takes what it measured, once", async () => {
    using first = await WebGpu.open({ device: DEVICE, kernels: "gpu" });
    assert.equal(first.tileTimes, undefined); // not by being opened
    await first.chooseTiles([32, 128, 32]);
    const times = first.tileTimes!; // llvmpipe has shader-f16, as GPUs have
    assert.ok(times.f32 > 0 && times.f16 > 0);
    assert.equal(first.halfTiles, prefersHalfTiles(times));
    using second = await WebGpu.open({ device: DEVICE, kernels: "gpu" });
    await second.chooseTiles([32, 128, 32]);
    assert.equal(second.tileTimes, times);
  });

  test("tiles in 16 bits give the bits of those in 32", async () => {
    const backend = await testBackend();
    const before = backend.halfTiles;
    const run = async (
      work: (backend: Backend) => Tensor[],
      halfTiles: boolean,
    ): Promise<Floats[]> => {
      backend.halfTiles = halfTiles;
      try {
        const results = work(backend);
        const values = await backend.read(results);
        for (const x of results) x.dispose();
        return values;
      } finally {
        backend.halfTiles = before;
      }
    };
    for (const [name, work] of Object.entries(WORK)) {
      const expected = await run(work, false);
      assert.ok(expected.every((x) => x.some((n) => n !== 0)), name);
      assert.deepEqual(await run(work, true), expected, name);
    }
  });
}

test("prefersHalfTiles() leaves what is within noise as it is", () => {
  assert.equal(prefersHalfTiles({ f32: 1, f16: 0.94 }), true);
  assert.equal(prefersHalfTiles({ f32: 1, f16: 0.96 }), false);
  assert.equal(prefersHalfTiles({ f32: 1, f16: 1.1 }), false);
  assert.equal(
    describeTiles({ f32: 0.00125, f16: 0.001 }),
    "tiles of 16-bit weights: f16 (f32 1.25, f16 1.00 ms)",
  );
});

test("tileTimes() runs both kernels as often and leaves nothing", async () => {
  const runs = new Map<string, number>();
  class Counting extends Plan {
    override dispatch(kernel: Kernel, what: Dispatch): void {
      runs.set(kernel.name, (runs.get(kernel.name) ?? 0) + 1);
      super.dispatch(kernel, what);
    }
  }
  using plan = new Counting(Infinity, "gpu");
  const { f32, f16 } = await tileTimes(plan, [64, 128, 32]);
  assert.ok(f32 > 0 && f16 > 0);
  assert.equal(runs.size, 2);
  const half = runs.get("gemm_tiled_32x128_half")!;
  const inSample = (half - 1) / 5;
  assert.ok(Number.isInteger(Math.log2(inSample)), `${half}`);
  // How many a sample takes was found with these: 1, 2, 4 and so on, some of them by the last power.
  const found = runs.get("gemm_tiled_32x128")! - half;
  assert.ok(found >= inSample - 1 && found <= 2 * inSample - 1, `${found}`);
  assert.equal(plan.halfTiles, false);
  assert.equal(plan.memory.liveBytes, 0);
});
