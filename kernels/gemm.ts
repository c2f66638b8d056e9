/** Matrix products: one strided, batched kernel that linear layers, convolutions and attention share. */
import wgsl from "./gemm.wgsl" with { type: "text" };
import wgslTiled from "./gemm_tiled.wgsl" with { type: "text" };
import wgslVec4 from "./gemm_vec4.wgsl" with { type: "text" };
import type { Kernel, Tensor } from "./backend.ts";
import { gemmRef, gemmTiledRef } from "./gemm_ref.ts";
import {
  gemmTexel,
  texelFits,
  texelPays,
  type TexelProduct,
} from "./gemm_texel.ts";
import { halve } from "./halve.ts";
import { largest } from "./largest.ts";
import { matrixProduct } from "./matrix_product.ts";
import { transposeInto } from "./transpose.ts";
import { splitSum } from "./split_sum.ts";
import { isLong, tiledKernel } from "./tiled.ts";
import { cutOn, threadsAcross, tileGroups } from "./tiles.ts";

const PARAMS = [
  "M",
  "N",
  "K",
  "am",
  "ak",
  "bn",
  "bk",
  "ldc",
  "sa",
  "sb",
  "sc",
  "oa",
  "ob",
  "oc",
  "shiftFirst",
  "shiftStride",
  "alpha:f",
  "across",
  "flags",
  "block",
];
const TILED_PARAMS = [
  "M",
  "N",
  "K",
  "lda",
  "ldb",
  "ldc",
  "sa",
  "sb",
  "sc",
  "oa",
  "ob",
  "oc",
  "parts",
  "each",
  "alpha:f",
];
const GEMM: Kernel = {
  name: "gemm",
  wgsl,
  bindings: "rrrrrw",
  params: PARAMS,
  ref: gemmRef,
  flops: ({ M, N, K, Z }) => 2 * M! * N! * K! * Z!,
};
const GEMM_VEC4: Kernel = { ...GEMM, name: "gemm_vec4", wgsl: wgslVec4 };
const GEMM_TILED: Kernel = {
  ...GEMM,
  name: "gemm_tiled",
  wgsl: wgslTiled,
  bindings: "rrrrwr",
  params: TILED_PARAMS,
  ref: gemmTiledRef,
};

/** Threads of a workgroup, as in the kernels. */
const THREADS = 8;

/** Where a matrix lies in a tensor, in elements. Only A may be stored as f16. */
export interface Matrix {
  /** The tensor that holds it. */
  readonly tensor: Tensor;
  /** Distance between rows (or columns, see the flags of `gemm`). */
  readonly stride: number;
  /** Distance between the matrices of a batch; 0 shares one. */
  readonly batchStride?: number;
  /** Start of the first matrix. */
  readonly offset?: number;
}

/** Numbers for the rows of each product of a batch. */
export interface Shift {
  /** Holds them. */
  readonly tensor: Tensor;
  /** Where those of the first product begin. */
  readonly first: number;
  /** Distance between those of two products; 0 shares them. */
  readonly stride: number;
}

/** Options of `gemm`. */
export interface GemmOptions {
  /** Number of products. Default 1. */
  readonly batch?: number;
  /** `A` has contiguous k (`row`, the default) or contiguous m (`column`). */
  readonly a?: "row" | "column";
  /** `B` has contiguous n (`row`, the default) or contiguous k (`column`). */
  readonly b?: "row" | "column";
  /** Factor on the product. Default 1. */
  readonly alpha?: number;
  /** Added to each row, `[M]`. */
  readonly bias?: Tensor | undefined;
  /** Added to each row, M numbers for each product of the batch. Not in the gpu family. */
  readonly shift?: Shift | undefined;
  /** Added element by element; addressed like `C`, and not `C` itself. */
  readonly residual?: Tensor | undefined;
  /** Add to what `C` holds instead of overwriting it. */
  readonly accumulate?: boolean;
  /** B may be of any size, such as gradients: where products round it to 16 bits, it is scaled before. */
  readonly scaled?: boolean;
  /**
   * Multiplications that decide which kernel runs, default those of one product. Must not depend on how a
   * batch is cut: kernels add up in different orders, and cutting must not change the result.
   */
  readonly work?: number;
  /** Part of the product that is not with zeros which fill up lines, for those who count operations. Default 1. */
  readonly needed?: number;
  /**
   * Which kernel; `auto` takes `tiled` in the gpu family, else `texel` where it pays (with a kernel of its
   * own for up to four columns), else `vec4` where sizes allow, else `any`. For tests.
   */
  readonly variant?: "auto" | "any" | "vec4" | "texel" | "tiled";
}

/**
 * `C = alpha A B (+ bias) (+ shift) (+ residual) (+ C)` with A `[M, K]`, B `[K, N]`, C `[M, N]`, written into C.
 *
 * @throws {RangeError} If a size is 0 or a matrix reaches past its tensor.
 */
export function gemm(
  [M, N, K]: readonly [number, number, number],
  a: Matrix,
  b: Matrix,
  c: Matrix,
  options: GemmOptions = {},
): void {
  const {
    batch = 1,
    alpha = 1,
    bias,
    shift,
    residual,
    accumulate = false,
    variant = "auto",
  } = options;
  const aRow = (options.a ?? "row") === "row";
  const bRow = options.b === "column";
  if (!(M > 0 && N > 0 && K > 0 && batch > 0)) {
    throw new RangeError(
      `Cannot run gemm: M, N, K and batch must be positive: current ${M}, ${N}, ${K}, ${batch}`,
    );
  }
  check("A", a, aRow ? M : K, aRow ? K : M, batch);
  check("B", b, bRow ? N : K, bRow ? K : N, batch);
  check("C", c, M, N, batch);
  for (const x of [b.tensor, c.tensor, bias, shift?.tensor, residual]) {
    if (x && x.type !== "f32") {
      throw new TypeError(
        `Cannot run gemm: only A may be stored as f16: current tensor is [${x.shape}]`,
      );
    }
  }
  if (bias && bias.size !== M) {
    throw new RangeError(
      `Cannot run gemm: bias must hold ${M} numbers: current shape is [${bias.shape}]`,
    );
  }
  if (
    shift && shift.first + (batch - 1) * shift.stride + M > shift.tensor.size
  ) {
    throw new RangeError(
      `Cannot run gemm: shift must hold ${M} numbers for each of ${batch}, from ${shift.first} on, ${shift.stride} apart: current shape is [${shift.tensor.shape}]`,
    );
  }
  if (residual && residual.size !== c.tensor.size) {
    throw new RangeError(
      `Cannot run gemm: residual must have the size of C: current shape is [${residual.shape}]`,
    );
  }
  const inFours = N % 4 === 0 && four(b) && four(c);
  const fits = !bRow && inFours;
  if (variant === "vec4" && !fits) {
    throw new RangeError(
      "Cannot run gemm_vec4: N, strides and offsets must be multiples of 4",
    );
  }
  const { backend } = c.tensor;
  const params = {
    Z: batch,
    M,
    N,
    K,
    lda: a.stride,
    ldb: b.stride,
    am: aRow ? a.stride : 1,
    ak: aRow ? 1 : a.stride,
    bn: bRow ? b.stride : 1,
    bk: bRow ? 1 : b.stride,
    ldc: c.stride,
    sa: a.batchStride ?? 0,
    sb: b.batchStride ?? 0,
    sc: c.batchStride ?? 0,
    oa: a.offset ?? 0,
    ob: b.offset ?? 0,
    oc: c.offset ?? 0,
    shiftFirst: shift?.first ?? 0,
    shiftStride: shift?.stride ?? 0,
    alpha,
    needed: options.needed ?? 1,
    flags: (bias ? 1 : 0) | (residual ? 2 : 0) | (accumulate ? 4 : 0) |
      (shift ? 8 : 0),
  };
  const bind: TexelProduct["bind"] = [
    a.tensor,
    b.tensor,
    bias ?? a.tensor,
    residual ?? a.tensor,
    shift?.tensor ?? a.tensor,
    c.tensor,
  ];
  if (
    variant === "tiled" || variant === "auto" && backend.family === "gpu"
  ) {
    if (shift) throw new RangeError("Cannot run gemm_tiled: it adds no shift");
    const bQuads = !bRow && N % 4 === 0 && four(b);
    // A few columns would leave most of a tile without work.
    const units = backend.halfProducts && bQuads && four(c) && N > 32 &&
        [aRow ? K : M, a.stride, a.offset ?? 0, a.batchStride ?? 0].every((n) =>
          n % 8 === 0
        )
      ? backend.matrix
      : undefined;
    if (units) {
      using peaks = options.scaled ? largest(b.tensor) : undefined;
      using halves = halve(b, [batch, K, N], peaks);
      const right = { tensor: halves, peaks };
      matrixProduct(units, [M, N, K], a, right, c, options);
      return;
    }
    const { tile, parts, each } = cutOn(backend, M, N, K);
    using sums = parts > 1 ? backend.alloc([batch, parts, M, N]) : undefined;
    const [A, B, onRows, onAll, , C] = bind;
    const { kernel, constants } = tiledKernel(GEMM_TILED, tile, A);
    backend.dispatch(kernel, {
      bind: [A, B, onRows, onAll, sums ?? C, B],
      params: { ...params, parts, each },
      constants: {
        ...constants,
        LONG: isLong(K),
        A_ROW: Number(aRow),
        B_ROW: Number(bRow),
        BIAS: Number(!sums && bias !== undefined),
        RESIDUAL: Number(!sums && residual !== undefined),
        ACCUMULATE: Number(!sums && accumulate),
        A_LINES: Number(aRow && K % 4 === 0 && four(a)),
        A_QUAD: Number(!aRow && M % 4 === 0 && four(a)),
        B_QUAD: Number(bQuads),
        SPLIT: Number(sums !== undefined),
      },
      groups: [...tileGroups(tile, M, N), batch * parts],
    });
    if (sums) {
      const { ldc, sc, oc } = params;
      splitSum(sums, {
        c: C,
        ldc,
        sc,
        oc,
        alpha,
        bias,
        residual,
        accumulate,
      });
    }
    return;
  }
  const product = { bind, params };
  const texel = texelFits(a.tensor.type, params);
  if (variant === "texel" && !texel) {
    throw new RangeError(
      `Cannot run gemm_texel: K, N, strides and offsets must be multiples of 4, and lines fit the stage: current M, N, K are ${M}, ${N}, ${K}`,
    );
  }
  const pays = variant === "auto" && backend.kind !== "cpu" &&
    (options.work === undefined
      ? texelPays(M * N * K, N)
      : texelPays(options.work)); // columns may be those of a batch
  if (variant === "texel" || pays && texel) {
    gemmTexel(product);
    return;
  }
  // Columns that are no fours, such as the keys of 77 tokens, may have rows that are.
  const matrices = params.sa === 0 ? 1 : batch;
  if (
    pays && inFours && !aRow && K % 4 === 0 && a.tensor.type === "f32" &&
    a.stride === M && a.tensor.size === matrices * M * K
  ) {
    using rows = backend.alloc([matrices, M, K]);
    transposeInto(
      { tensor: a.tensor, batchStride: M * K },
      { tensor: rows, batchStride: M * K },
      [matrices, K, M],
    );
    const turned = { tensor: rows, stride: K, batchStride: params.sa };
    gemm([M, N, K], turned, b, c, { ...options, a: "row" });
    return;
  }
  const vec4 = fits && variant !== "any";
  const rows = vec4 ? 8 : 4; // that a thread holds; both kernels hold 8 columns
  const across = threadsAcross([M, N], THREADS, [rows, 8], [4, 2, 1]);
  backend.dispatch(vec4 ? GEMM_VEC4 : GEMM, {
    bind,
    params: { ...params, across, block: K > 64 ? 32 : K },
    constants: { A_HALF: Number(a.tensor.type === "f16") },
    groups: [
      Math.ceil(N / (across * 8)),
      Math.ceil(M / (THREADS / across * rows)),
      batch,
    ],
  });
}

/** Whether every line starts at a multiple of 4. */
function four(x: Matrix): boolean {
  return x.stride % 4 === 0 && (x.offset ?? 0) % 4 === 0 &&
    (x.batchStride ?? 0) % 4 === 0;
}

function check(
  name: string,
  x: Matrix,
  lines: number,
  length: number,
  batch: number,
): void {
  const end = (x.offset ?? 0) + (batch - 1) * (x.batchStride ?? 0) +
    (lines - 1) * x.stride + length;
  if (x.stride < length || end > x.tensor.size) {
    throw new RangeError(
      `Cannot run gemm: ${name} must lie inside its tensor [${x.tensor.shape}]: ${batch} x ${lines} lines of ${length}, stride ${x.stride}, end at ${end}`,
    );
  }
}
