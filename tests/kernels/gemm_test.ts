import { strict as assert } from "node:assert";
import { test } from "node:test";
import { gemm, type GemmOptions } from "../../kernels/gemm.ts";
import { Plan } from "../../kernels/plan.ts";
import { cutFor } from "../../kernels/tiles.ts";
import { KERNELS, testBackend } from "../backend.ts";
import { sumBound } from "../compare.ts";
import { checkOp, halfInput, type Input, input } from "./check_op.ts";

interface Case {
  readonly size: readonly [M: number, N: number, K: number];
  readonly batch?: number;
  readonly a?: "row" | "column";
  readonly b?: "row" | "column";
  readonly alpha?: number;
  /** Added to every stride, offset and batch stride. */
  readonly pad?: number;
  /** One B for the whole batch. */
  readonly shared?: boolean;
  readonly bias?: boolean;
  /** A number per row, of each product or of all. */
  readonly shift?: "batch" | "shared";
  readonly residual?: boolean;
  readonly accumulate?: boolean;
  readonly variant?: GemmOptions["variant"];
  /** A stored as f16. */
  readonly half?: boolean;
}

interface Place {
  readonly stride: number;
  readonly batchStride: number;
  readonly offset: number;
}

/** Lines of `length` numbers, `pad` apart, and a tensor that holds them and `pad` more on each side. */
function place(
  seed: number,
  { lines, length, batch, pad, shared }: {
    lines: number;
    length: number;
    batch: number;
    pad: number;
    shared: boolean;
  },
): [Input, Place] {
  const stride = length + pad;
  const batchStride = shared ? 0 : lines * stride + pad;
  const total = pad + (batch - 1) * batchStride + lines * stride + pad;
  return [input(seed, [total]), { stride, batchStride, offset: pad }];
}

async function checkGemm(c: Case): Promise<void> {
  const { size: [M, N, K], batch = 1, alpha = 1, pad = 0, shared = false } = c;
  const { a = "row", b = "row", variant = "auto" } = c;
  const common = { batch, pad, shared: false };
  const [f32A, pa] = place(1, {
    ...common,
    lines: a === "row" ? M : K,
    length: a === "row" ? K : M,
  });
  const inA = c.half ? halfInput(1, f32A.shape) : f32A;
  const [inB, pb] = place(2, {
    ...common,
    shared,
    lines: b === "row" ? K : N,
    length: b === "row" ? N : K,
  });
  const [inC, pc] = place(3, { ...common, lines: M, length: N });
  const bias = input(4, [M]);
  const residual = input(5, inC.shape);
  // Two numbers lie before the rows of the first product, three between those of two.
  const shift = {
    first: 2,
    stride: c.shift === "shared" ? 0 : M + 3,
    input: input(6, [2 + batch * (M + 3)]),
  };
  await checkOp(`gemm ${JSON.stringify(c)}`, {
    inputs: [inA, inB, inC, bias, residual, shift.input],
    forward: (A, B, C, biasTensor, residualTensor, shiftTensor) => {
      const options: GemmOptions = {
        batch,
        a,
        b,
        alpha,
        variant,
        accumulate: c.accumulate ?? false,
        bias: c.bias ? biasTensor : undefined,
        shift: c.shift &&
          { tensor: shiftTensor, first: shift.first, stride: shift.stride },
        residual: c.residual ? residualTensor : undefined,
      };
      gemm(
        [M, N, K],
        { tensor: A, ...pa },
        { tensor: B, ...pb },
        { tensor: C, ...pc },
        options,
      );
      // All of C is compared: what lies between the lines must stay as it was.
      return [C.retain()];
    },
  }, {
    values: sumBound(K),
    formula: () => {
      const out = Float64Array.from(inC.data);
      for (let z = 0; z < batch; z++) {
        for (let m = 0; m < M; m++) {
          for (let n = 0; n < N; n++) {
            let sum = 0;
            for (let k = 0; k < K; k++) {
              const i = pa.offset + z * pa.batchStride +
                (a === "row" ? m * pa.stride + k : k * pa.stride + m);
              const j = pb.offset + z * pb.batchStride +
                (b === "row" ? k * pb.stride + n : n * pb.stride + k);
              sum += inA.data[i]! * inB.data[j]!;
            }
            const at = pc.offset + z * pc.batchStride + m * pc.stride + n;
            out[at] = alpha * sum + (c.bias ? bias.data[m]! : 0) +
              (c.shift
                ? shift.input.data[shift.first + z * shift.stride + m]!
                : 0) +
              (c.residual ? residual.data[at]! : 0) +
              (c.accumulate ? out[at]! : 0);
          }
        }
      }
      return [out];
    },
  });
}

/** The kernels of the configured family. */
const VARIANTS = KERNELS === "gpu"
  ? ["tiled"] as const
  : ["any", "vec4"] as const;

// Sizes around what one workgroup covers: 16 or 64 columns, 32 or 128 rows; tiled 8, 32, 64 or 128
// columns and 32, 64 or 128 rows.
const SIZES = [
  [1, 1, 1],
  [1, 4, 1],
  [2, 3, 5],
  [7, 13, 11],
  [31, 15, 3],
  [32, 16, 8],
  [33, 17, 64],
  [127, 4, 6],
  [128, 16, 2],
  [129, 12, 5],
  [8, 63, 9],
  [9, 64, 7],
  [5, 65, 31],
  [30, 68, 13],
  [320, 256, 320], // an attention projection of SD 1.5 at 16 x 16
  [160, 77, 768], // keys of the text, 77 tokens
] as const;

test("gemm() matches its definition for sizes around the workgroup's", async () => {
  for (const size of SIZES) await checkGemm({ size });
});

test("gemm() matches its definition at sizes of the networks and past 65,535 rows", async () => {
  await checkGemm({ size: [320, 4096, 320] });
  await checkGemm({ size: [70_001, 5, 3] });
});

if (KERNELS === "gpu") {
  test("gemm() matches its definition with every tile", async () => {
    const sizes = [
      [[509, 1030, 35], { TX: 16, TY: 8, QUADS: 2 }],
      [[512, 128, 3], { TX: 16, TY: 8, QUADS: 2 }],
      [[64, 65, 136], { TX: 16, TY: 8, QUADS: 2 }],
      [[61, 64, 36], { TX: 8, TY: 8, QUADS: 1 }],
      [[509, 9, 35], { TX: 8, TY: 8, QUADS: 1 }],
      [[509, 8, 35], { TX: 2, TY: 32, QUADS: 1 }],
      [[1280, 1, 321], { TX: 2, TY: 32, QUADS: 1 }],
    ] as const;
    for (const [size, tile] of sizes) {
      const [M, N, K] = size;
      assert.deepEqual(cutFor(M, N, K), { tile, parts: 1, each: K });
      await checkGemm({ size });
    }
  });

  test("gemm() cuts long sums along k where tiles are few", async () => {
    const bias = true, residual = true, accumulate = true;
    const cases: readonly [Case, parts: number, each: number][] = [
      [{ size: [509, 126, 2050], half: true }, 8, 288], // the last part is short
      [{ size: [36, 64, 1024], a: "column", b: "column" }, 4, 256],
      [{ size: [35, 33, 513], pad: 3, batch: 2, bias, alpha: 2.5 }, 2, 288],
      [{ size: [130, 1, 512], pad: 4, batch: 3, residual, accumulate }, 2, 256],
      [{ size: [33, 40, 511] }, 1, 511], // too short
    ];
    for (const [c, parts, each] of cases) {
      const cut = cutFor(...c.size);
      assert.deepEqual([cut.parts, cut.each], [parts, each]);
      await checkGemm(c);
    }
  });

  test("cutFor() leaves nothing of k out", () => {
    for (let K = 1; K < 12_000; K = Math.ceil(K * 1.1)) {
      for (const [M, N] of [[1280, 64], [1280, 256], [320, 4096], [4, 4]]) {
        const { parts, each } = cutFor(M!, N!, K);
        assert.ok(parts * each >= K && (parts - 1) * each < K);
        assert.ok(parts === 1 || each % 32 === 0 && each >= 256);
      }
    }
  });
}

for (const variant of VARIANTS) {
  test(`gemm() matches its definition for every layout: ${variant}`, async () => {
    const layouts = ["row", "column"] as const;
    for (const a of layouts) {
      for (const b of variant !== "vec4" ? layouts : ["row"] as const) {
        for (const N of [12, 36]) {
          await checkGemm({ size: [37, N, 19], a, b, variant });
        }
        if (variant !== "tiled") continue;
        // Quads of both, of one, of none; sums over more than one block.
        await checkGemm({ size: [36, 36, 99], a, b, variant });
        await checkGemm({ size: [37, 35, 65], a, b, variant });
      }
    }
  });

  test(`gemm() keeps to strides, offsets and batch strides: ${variant}`, async () => {
    const pads = { any: [3], vec4: [4], tiled: [3, 4] }[variant];
    for (const pad of pads) {
      for (const N of [12, 72]) {
        const size = [35, N, 9] as const;
        await checkGemm({ size, batch: 3, pad, variant });
        await checkGemm({ size, batch: 2, pad, variant, shared: true });
      }
      for (const M of variant === "tiled" ? [35, 36] : [35]) {
        await checkGemm({
          size: [M, 72, 9],
          batch: 3,
          pad,
          variant,
          a: "column",
          b: variant !== "vec4" ? "column" : "row",
        });
      }
    }
  });

  test(`gemm() adds bias, residual and C, and scales only the product: ${variant}`, async () => {
    const base = { size: [35, 40, 9], batch: 2, pad: 4, variant } as const;
    // Every pipeline costs a software GPU a second, so not every combination.
    const bias = true, residual = true, accumulate = true;
    await checkGemm({ ...base, alpha: -0.75 });
    await checkGemm({ ...base, bias, alpha: 2.5 });
    await checkGemm({ ...base, residual, alpha: 2.5 });
    await checkGemm({ ...base, bias, residual, accumulate, alpha: 0.125 });
    if (variant === "tiled") return; // it has none
    await checkGemm({ ...base, bias, residual, shift: "batch", alpha: 0.125 });
    await checkGemm({ ...base, shift: "shared" });
  });
}

if (KERNELS !== "gpu") {
  const variant = "texel";

  test("gemm() matches its definition around workgroups, blocks and pieces: texel", async () => {
    for (
      const size of [
        [1, 4, 4],
        [7, 16, 8],
        [8, 20, 128],
        [9, 36, 132], // added up in blocks
        [17, 68, 68],
        [33, 132, 100],
        [65, 260, 64],
        [130, 12, 20],
        [18, 8, 2052],
      ] as const
    ) await checkGemm({ size, variant });
    // One matrix of B fills half of its stage; one of A more than all of its.
    await checkGemm({ size: [5, 1024, 1024], batch: 3, variant });
    await checkGemm({ size: [1042, 4, 2048], bias: true, variant });
    // Sums whose lines do not fit at once.
    await checkGemm({ size: [4, 2048, 1044], variant });
    await checkGemm({ size: [2048, 4, 1044], a: "column", variant });
  });

  test("gemm() keeps to strides, offsets and batches for every layout: texel", async () => {
    for (const a of ["row", "column"] as const) {
      for (const b of ["row", "column"] as const) {
        for (const pad of [0, 4, 20]) {
          const base = { size: [36, 72, 12], pad, a, b, variant } as const;
          await checkGemm({ ...base, batch: 3 });
          await checkGemm({ ...base, batch: 2, shared: true });
        }
        await checkGemm({ size: [12, 132, 1028], batch: 3, a, b, variant });
      }
    }
  });

  test("gemm() adds bias, residual and C, and scales only the product: texel", async () => {
    const bias = true, residual = true, accumulate = true;
    for (const size of [[35, 72, 12], [5, 2048, 1044]] as const) {
      const base = { size, batch: 2, pad: 4, variant } as const;
      await checkGemm({ ...base, alpha: -0.75 });
      await checkGemm({ ...base, bias, residual, accumulate, alpha: 0.125 });
      await checkGemm({ ...base, bias, residual, shift: "batch", alpha: 3 });
      await checkGemm({ ...base, shift: "shared" });
    }
    // Pieces of the rows, and of the batch.
    await checkGemm({
      size: [1042, 20, 2048],
      batch: 2,
      shift: "batch",
      bias,
      variant,
    });
    await checkGemm({
      size: [5, 1024, 1024],
      batch: 3,
      shift: "batch",
      variant,
    });
  });

  test("gemm() matches its definition for up to four columns: texel", async () => {
    for (const N of [1, 2, 3, 4]) {
      // From 256 on, threads have twice the rows.
      for (const M of [1, 7, 8, 9, 63, 65, 130, 255, 256, 263, 273]) {
        const size = [M, N, 36] as const;
        await checkGemm({ size, b: "column", variant });
        if (N === 4) await checkGemm({ size, variant });
      }
      for (const M of [20, 276]) { // added up in blocks
        await checkGemm({ size: [M, N, 644], b: "column", variant });
      }
    }
    // One vector is both a row and a column; its numbers lie side by side.
    await checkGemm({ size: [33, 1, 132], batch: 2, variant });
    await checkGemm({ size: [33, 1, 132], batch: 2, half: true, variant });
    const all = { bias: true, shift: "batch", residual: true } as const;
    for (const a of ["row", "column"] as const) {
      for (const b of ["row", "column"] as const) {
        for (const half of [false, true]) {
          for (const M of [36, 276]) {
            const size = [M, 4, 12] as const;
            const base = { size, pad: 4, a, b, half, variant } as const;
            await checkGemm({ ...base, ...all, batch: 3, alpha: 0.5 });
            const more = { accumulate: true, batch: 2, shared: true };
            await checkGemm({ ...base, ...more });
          }
        }
      }
    }
    // Pieces: of the rows, an even number of workgroups and the rest; of the sum.
    await checkGemm({ size: [1042, 4, 2048], ...all, batch: 2, variant });
    await checkGemm({ size: [260, 4, 11520], half: true, bias: true, variant });
    await checkGemm({ size: [2048, 4, 1044], a: "column", ...all, variant });
  });

  test("gemm() takes A in f16: texel", async () => {
    const base = { half: true, variant } as const;
    await checkGemm({ ...base, size: [37, 12, 20] });
    await checkGemm({ ...base, size: [35, 72, 12], batch: 3, pad: 4 });
    await checkGemm({ ...base, size: [70, 64, 644] });
    await checkGemm({ ...base, size: [36, 72, 12], a: "column", pad: 4 });
  });

  test("gemm() takes the texel kernel by itself where it pays, and refuses what it cannot run", async () => {
    const backend = await testBackend();
    assert.deepEqual(kernelsOf([16, 64, 64]), ["gemm_vec4"]);
    assert.deepEqual(kernelsOf([96, 256, 96]), ["gemm_texel"]);
    assert.deepEqual(kernelsOf([1280, 4, 1280]), ["gemm_narrow"]);
    assert.deepEqual(kernelsOf([1280, 1, 1280]), ["gemm_narrow"]);
    assert.deepEqual(kernelsOf([1280, 3, 1280]), ["gemm"]); // its rows are no fours
    using x = backend.alloc([64, 64]);
    using y = backend.alloc([64, 64]);
    assert.throws(
      () =>
        gemm(
          [4, 4, 3],
          { tensor: x, stride: 64 },
          { tensor: x, stride: 64 },
          { tensor: y, stride: 64 },
          { variant },
        ),
      /Cannot run gemm_texel/,
    );
  });
}

test("gemm() takes A in f16, by rows and by columns", async () => {
  for (const variant of VARIANTS) {
    for (const a of ["row", "column"] as const) {
      const base = { half: true, variant, a } as const;
      await checkGemm({ ...base, size: [37, 12, 19] });
      await checkGemm({ ...base, size: [35, 72, 9], batch: 3, pad: 4 });
    }
  }
  await checkGemm({ half: true, size: [320, 256, 320] });
});

test("gemm() takes a product per head of a batch", async () => {
  // Columns of 77: no fours, unlike the rows that they are turned into.
  await checkGemm({ size: [77, 256, 40], batch: 3, a: "column", alpha: 0.25 });
  await checkGemm({ size: [77, 64, 40], batch: 16, a: "column", shared: true });
  await checkGemm({ size: [77, 64, 40], batch: 16, a: "column", alpha: 0.25 });
});

test("gemm() refuses empty sizes and matrices that do not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using x = backend.upload(new Float32Array(12), [3, 4]);
    using y = backend.alloc([3, 3]);
    using bias = backend.alloc([2]);
    const a = { tensor: x, stride: 4 };
    const b = { tensor: x, stride: 4 };
    const c = { tensor: y, stride: 3 };
    const refused = (
      change: () => void,
      message: RegExp,
    ) => assert.throws(change, { name: "RangeError", message });
    refused(() => gemm([0, 3, 4], a, b, c, { b: "column" }), /positive/);
    refused(() => gemm([3, NaN, 4], a, b, c, { b: "column" }), /positive/);
    refused(() => gemm([3, 3, 4], a, b, c), /B must lie inside/);
    refused(
      () => gemm([3, 3, 4], { ...a, offset: 1 }, b, c, { b: "column" }),
      /A must lie inside/,
    );
    refused(
      () => gemm([3, 3, 4], { ...a, stride: 3 }, b, c, { b: "column" }),
      /A must lie inside/,
    );
    refused(
      () =>
        gemm([3, 3, 4], a, b, { ...c, batchStride: 1 }, {
          b: "column",
          batch: 2,
        }),
      /C must lie inside/,
    );
    refused(
      () => gemm([3, 3, 4], a, b, c, { b: "column", bias }),
      /bias must hold 3/,
    );
    refused(
      () => gemm([3, 3, 4], a, b, c, { b: "column", residual: bias }),
      /residual must have the size of C/,
    );
    refused(
      () => gemm([3, 3, 4], a, b, c, { b: "column", variant: "vec4" }),
      /multiples of 4/,
    );
    using half = backend.alloc([3, 4], "f16");
    assert.throws(
      () => gemm([3, 3, 4], a, { ...b, tensor: half }, c, { b: "column" }),
      { name: "TypeError", message: /only A may be stored as f16/ },
    );
    gemm([3, 3, 4], a, b, c, { b: "column" }); // the control
    const [zeros] = await backend.read([y]);
    assert.deepEqual([...zeros!], new Array(9).fill(0));
  }
  assert.equal(backend.memory.liveBytes, before);
});

test("gemm() takes few columns through texels earlier, but not where a batch has a say in how many", () => {
  assert.deepEqual(kernelsOf([1184, 1, 128]), ["gemm_narrow"]);
  assert.deepEqual(kernelsOf([1184, 1, 128], { work: 1184 * 128 }), ["gemm"]);
});

/** Names of the kernels that a product of two whole matrices takes. */
function kernelsOf(
  size: readonly [number, number, number],
  options: GemmOptions = {},
): string[] {
  const [M, N, K] = size;
  using plan = new Plan();
  using a = plan.alloc([M, K]);
  using b = plan.alloc([K, N]);
  using c = plan.alloc([M, N]);
  gemm(
    size,
    { tensor: a, stride: K },
    { tensor: b, stride: N },
    { tensor: c, stride: N },
    options,
  );
  return plan.kernels.map(({ kernel }) => kernel.name);
}
