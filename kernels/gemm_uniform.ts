/**
 * Matrix products on adapters that are processors, through the two kinds of loads that are cheap there:
 * `A` by windows of a uniform buffer, `B` by a texture (see the kernel). Both are copies, which cost
 * little beside a product of some size; what is large goes in pieces, so that the copies stay small.
 */
import wgsl from "./gemm_uniform.wgsl" with { type: "text" };
import {
  type Kernel,
  type Params,
  STAGE_SIZE,
  type Tensor,
  WINDOW_BYTES,
  WINDOW_STEP,
} from "./backend.ts";
import { gemmRef } from "./gemm_ref.ts";
import { transposeInto } from "./transpose.ts";

const KERNEL: Kernel = {
  name: "gemm_uniform",
  wgsl,
  bindings: "utrrw",
  params: [
    "M",
    "N",
    "K",
    "am",
    "bn",
    "bk",
    "ldc",
    "sa",
    "sb",
    "sc",
    "oa",
    "ob",
    "oc",
    "window",
    "origin",
    "first",
    "alpha:f",
    "flags",
  ],
  ref: gemmRef,
  flops: ({ M, N, K, Z }) => 2 * M! * N! * K! * Z!,
};

/** Rows of a workgroup, as in the kernel. */
const ROWS = 16;
/** Columns of a workgroup, as in the kernel. */
const COLUMNS = 64;
/** Most of k at once: then a window holds the rows of a workgroup. */
const MOST_K = WINDOW_BYTES / 4 / ROWS;
/** Numbers of A that are copied at once. */
const COPY_SIZE = 2 ** 20;
/** Multiplications that a run of its own must save time on. */
const RUN_COST = 1.5e6;
/** Longest sum that is added up without blocks. */
const LONG_SUM = 128;
/** Flag of the kernel: add to what C holds. */
const ACCUMULATE = 4;

/** A product as `gemm` describes it to its kernels: params of `gemm.wgsl`. */
export interface UniformProduct {
  /** A, B, bias, residual and C, as `gemm.wgsl` binds them. */
  readonly bind: readonly [Tensor, Tensor, Tensor, Tensor, Tensor];
  /** Sizes, strides, offsets, `alpha` and `flags`; `Z` is the batch. */
  readonly params: Params;
  /** Whether A has contiguous k. */
  readonly rowMajor: boolean;
}

/** Whether the kernel can run a product, whose N and lines of B and C come in fours. */
export function uniformFits(
  { bind: [a], params, rowMajor }: UniformProduct,
): boolean {
  const { M = 0, K = 0 } = params;
  const { am = 0, sa = 0, oa = 0 } = params;
  if (K % 4 || span(params, Math.min(K, MOST_K)) > STAGE_SIZE) return false;
  // Columns are transposed first, which takes whole matrices and float32.
  return rowMajor
    ? [am, sa, oa].every((x) => x % 4 === 0)
    : a.type === "f32" && am === 1 && params.ak === M && oa === 0 &&
      (sa === 0 || sa === M * K) && a.size === matrices(params) * M * K;
}

/**
 * Whether the kernel pays. A run on its own costs about as much as 1.5 million multiplications save, so
 * what would be one run of `gemm_vec4` must not fall into many small ones.
 */
export function uniformPays({ bind: [a], params }: UniformProduct): boolean {
  const { M = 0, N = 0, K = 0, Z = 1 } = params;
  if (N < COLUMNS / 2 || M < ROWS || K < ROWS) return false;
  const ks = Math.min(K, MOST_K);
  const most = windowRows(ks * (a.type === "f16" ? 2 : 4), M);
  const several = matrices(params) === 1
    ? Z
    : Math.max(1, Math.floor(most / M));
  const runs = Math.ceil(Z / several) * Math.ceil(M / most) * Math.ceil(K / ks);
  return M * N * K * Z >= RUN_COST * Math.max(0.5, runs - 1);
}

/** Runs a product that fits. */
export function gemmUniform(product: UniformProduct): void {
  const { bind: [a, b, bias, residual, c], params, rowMajor } = product;
  const { M = 0, N = 0, K = 0, sa = 0, sb = 0, sc = 0, ldc = 0 } = params;
  const { bn = 1, bk = 1, ob = 0, oc = 0, alpha = 1, flags = 0 } = params;
  const { backend } = c;
  const count = matrices(params);
  using rows = rowMajor ? a.retain() : backend.alloc([count, M, K]);
  if (!rowMajor) transposeInto(a, rows, count, K);
  const from = rowMajor
    ? { am: params.am!, sa, oa: params.oa! }
    : { am: K, sa, oa: 0 };
  const size = rows.type === "f16" ? 2 : 4; // bytes of a number of A
  for (const { m, ms, z, zs, k, ks } of pieces(params)) {
    const as = count === 1 ? 1 : zs; // matrices of A
    using copy = backend.alloc(
      [as * ms * ks + WINDOW_BYTES / size],
      rows.type,
    );
    const lines = ks === from.am ? ms : 1; // that lie in one piece
    for (let i = 0; i < as; i++) {
      for (let row = 0; row < ms; row += lines) {
        backend.copy(
          rows,
          from.oa + (z + i) * from.sa + (m + row) * from.am + k,
          copy,
          (i * ms + row) * ks,
          lines * ks,
        );
      }
    }
    const origin = ob + z * sb + k * bk;
    backend.stage(b, origin, (zs - 1) * sb + span(params, ks));
    // Rows of a window, or whole matrices if it holds several.
    const most = windowRows(ks * size, ms);
    const several = Math.max(1, Math.floor(most / ms));
    for (let i = 0; i < as; i += several) {
      const each = count === 1 ? zs : Math.min(several, as - i);
      for (let row = 0; row < ms; row += most) {
        const here = Math.min(most, ms - row);
        const oa = (i * ms + row) * ks;
        const window = Math.floor(oa * size / WINDOW_STEP) * WINDOW_STEP;
        backend.dispatch(KERNEL, {
          bind: [copy, b, bias, residual, c],
          window,
          params: {
            Z: each,
            M: here,
            N,
            K: ks,
            am: ks,
            ak: 1,
            bn,
            bk,
            ldc,
            sa: count === 1 ? 0 : ms * ks,
            sb,
            sc,
            oa,
            ob: origin + i * sb,
            oc: oc + (z + i) * sc + (m + row) * ldc,
            window: window / size,
            origin,
            first: m + row,
            alpha,
            flags: k ? ACCUMULATE : flags,
          },
          constants: {
            A_HALF: Number(rows.type === "f16"),
            B_COLUMN: Number(bk === 1),
            LONG: Number(ks > LONG_SUM),
          },
          groups: [Math.ceil(here / ROWS), Math.ceil(N / COLUMNS), each],
        });
      }
    }
  }
}

/** Rows that a window holds, of which `all` follow each other: wherever they start, unless all start well. */
function windowRows(bytes: number, all: number): number {
  const rows = (room: number): number => Math.floor(room / bytes / ROWS) * ROWS;
  const exact = rows(WINDOW_BYTES);
  const starts = [exact, all].every((x) => x * bytes % WINDOW_STEP === 0);
  return starts ? exact : rows(WINDOW_BYTES - WINDOW_STEP);
}

/** How many matrices A holds: one may serve a whole batch. */
function matrices({ Z = 1, sa }: Params): number {
  return sa === 0 ? 1 : Z;
}

/** Numbers from the first to the last of `ks` lines of one B. */
function span({ N = 0, bn = 1, bk = 1 }: Params, ks: number): number {
  return (N - 1) * bn + (ks - 1) * bk + 1;
}

/** Part of a product: rows, matrices of the batch, and part of the sum. */
interface Piece {
  readonly m: number;
  readonly ms: number;
  readonly z: number;
  readonly zs: number;
  readonly k: number;
  readonly ks: number;
}

/** Cuts a product so that the copies of A and B are not too large. */
function* pieces(params: Params): Generator<
  Piece
> {
  const { M = 0, K = 0, Z = 1, sb = 0 } = params;
  for (let k = 0; k < K; k += MOST_K) {
    const ks = Math.min(MOST_K, K - k);
    const most = Math.max(ROWS, Math.floor(COPY_SIZE / ks / ROWS) * ROWS);
    const fitA = M > most ? 1 : Math.floor(COPY_SIZE / (M * ks));
    const fitB = sb ? 1 + Math.floor((STAGE_SIZE - span(params, ks)) / sb) : Z;
    const zMost = Math.max(1, Math.min(Z, fitA, fitB));
    for (let z = 0; z < Z; z += zMost) {
      const zs = Math.min(zMost, Z - z);
      for (let m = 0; m < M; m += most) {
        yield { m, ms: Math.min(most, M - m), z, zs, k, ks };
      }
    }
  }
}
