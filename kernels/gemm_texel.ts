/**
 * Matrix products on adapters that are processors, through the kind of load that is cheap there: both
 * matrices are copied to textures (see the kernel). The copies cost little beside a product of some
 * size; what is large goes in pieces, so that they stay small.
 */
import erfWgsl from "./erf.wgsl" with { type: "text" };
import foursWgsl from "./fours.wgsl" with { type: "text" };
import narrowWgsl from "./gemm_narrow.wgsl" with { type: "text" };
import wgsl from "./gemm_texel.wgsl" with { type: "text" };
import loadWgsl from "./gemm_texel_load.wgsl" with { type: "text" };
import texelWgsl from "./texel.wgsl" with { type: "text" };
import {
  type Kernel,
  type Params,
  STAGE_SIZE,
  type StorageType,
  type Tensor,
} from "./backend.ts";
import { gemmTexelRef } from "./gemm_ref.ts";
import { threadsAcross } from "./tiles.ts";

const KERNEL: Kernel = {
  name: "gemm_texel",
  wgsl: foursWgsl + erfWgsl + texelWgsl + loadWgsl + wgsl,
  bindings: "abrrrw",
  params: [
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
    "oc",
    "first",
    "shiftFirst",
    "shiftStride",
    "gate",
    "alpha:f",
    "across",
    "block",
  ],
  ref: gemmTexelRef,
  flops: ({ M, N, K, Z, gate = 0 }) => 2 * (M! + gate) * N! * K! * Z!,
};
/** For at most four columns. */
const NARROW: Kernel = {
  ...KERNEL,
  name: "gemm_narrow",
  wgsl: texelWgsl + loadWgsl + narrowWgsl,
  params: KERNEL.params.filter((name) => !["across", "gate"].includes(name)),
};
const KERNEL_HALF = half(KERNEL);
const NARROW_HALF = half(NARROW);

/** Threads of a workgroup, and what each holds, as in the kernel. */
const THREADS = 8;
const ROWS = 8;
const COLUMNS = 16;
const NARROW_COLUMNS = 4;
/** Rows of a thread for few columns, where so many leave work for two processors. */
const TALL_ROWS = 16;
/** Threads that may lie along n; the first is taken where others leave as much without work. */
const ACROSS = [4, 8, 2, 1];
/** Longest sum that is added up without blocks, and the blocks of longer ones, in fours. */
const LONG_SUM = 128;
const BLOCK = 16;
/** Bits of the flags of `gemm`. */
const FLAGS = { bias: 1, residual: 2, accumulate: 4, shift: 8 } as const;
/** Multiplications below which the copies cost more than they save; for few columns other kernels are slow. */
const LEAST_WORK = 2 ** 19;
const LEAST_WORK_NARROW = 2 ** 17;

/** A product as `gemm` describes it to its kernels. */
export interface TexelProduct {
  /** A, B, bias, residual, shift and C, as `gemm.wgsl` binds them. */
  readonly bind: readonly [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];
  /**
   * Params of `gemm.wgsl`; `Z` is the batch. With a `gate`, the number of rows M, A has so many more: C is M rows of
   * what `geglu` makes of them.
   */
  readonly params: Params;
}

/** Whether the kernels can run a product whose A is stored so. */
export function texelFits(a: StorageType, params: Params): boolean {
  const { M = 0, N = 0, K = 0, am = 1, ak = 1, bk = 1, ldc = 0 } = params;
  const { sa = 0, sb = 0, sc = 0, oa = 0, ob = 0, oc = 0 } = params;
  const { ms, ks } = pieceSizes(params, STAGE_SIZE[a]);
  const bn = stepOfColumns(params);
  const inFours = (...numbers: number[]): boolean =>
    numbers.every((number) => number % 4 === 0);
  // What lies across the pieces must come in fours, too.
  return ms > 0 && ks > 0 &&
    inFours(K, ak === 1 ? am : ak, ak === 1 ? 0 : M, sa, oa) &&
    inFours(bn === 1 ? bk : bn, sb, ob) &&
    (N <= NARROW_COLUMNS || inFours(N, ldc, sc, oc));
}

/** Whether the kernels can run a product with gates: A is one piece, as a row's gate must be beside it. */
export function texelFitsGated(a: StorageType, params: Params): boolean {
  const { M = 0, K = 0, N = 0, gate = 0 } = params;
  const { ms, ks } = pieceSizes({ ...params, M: M + gate }, STAGE_SIZE[a]);
  return gate % 4 === 0 && N > NARROW_COLUMNS && ms === M + gate && ks === K &&
    texelFits(a, params);
}

/** Distance between columns of B; as if they had their numbers side by side where there is only one. */
function stepOfColumns({ N = 0, bn = 1, bk = 1 }: Params): number {
  return N === 1 && bk === 1 ? 4 : bn;
}

/** Whether the kernel is the faster one for so many multiplications and columns. */
export function texelPays(work: number, columns = Infinity): boolean {
  const least = columns <= NARROW_COLUMNS ? LEAST_WORK_NARROW : LEAST_WORK;
  return work >= least;
}

/** Runs a product that fits. */
export function gemmTexel({ bind, params }: TexelProduct): void {
  const { M = 0, N = 0, K = 0, Z = 1, alpha = 1, flags = 0, gate = 0 } = params;
  const { am = 1, ak = 1, bk = 1, ldc = 0, shiftFirst = 0, shiftStride = 0 } =
    params;
  const { sa = 0, sb = 0, sc = 0, oa = 0, ob = 0, oc = 0 } = params;
  const bn = stepOfColumns(params);
  const [a, b, , , , c] = bind;
  const { backend } = c;
  const narrow = N <= NARROW_COLUMNS;
  const kernels = narrow ? [NARROW, NARROW_HALF] : [KERNEL, KERNEL_HALF];
  const kernel = kernels[Number(a.type === "f16")]!;
  const most = pieceSizes({ ...params, M: M + gate }, STAGE_SIZE[a.type]);
  for (let k = 0; k < K; k += most.ks) {
    const ks = Math.min(most.ks, K - k);
    const now = k ? FLAGS.accumulate : flags;
    for (let m = 0; m < M; m += most.ms) {
      const ms = Math.min(most.ms, M - m);
      const tall = narrow && ms >= 2 * THREADS * TALL_ROWS;
      const rows = tall ? TALL_ROWS : gate ? ROWS / 2 : ROWS;
      for (let z = 0; z < Z; z += most.zs) {
        const zs = Math.min(most.zs, Z - z);
        const aFirst = oa + z * sa + m * am + k * ak;
        const bFirst = ob + z * sb + k * bk;
        backend.stage(
          "a",
          a,
          aFirst,
          (zs - 1) * sa + span([ms + gate, am], [ks, ak]),
        );
        backend.stage("b", b, bFirst, (zs - 1) * sb + span([N, bn], [ks, bk]));
        const across = narrow
          ? 1
          : threadsAcross([ms, N], THREADS, [rows, COLUMNS], ACROSS);
        backend.dispatch(kernel, {
          bind,
          params: {
            ...params,
            Z: zs,
            M: ms,
            K: ks,
            oa: aFirst,
            ob: bFirst,
            oc: oc + z * sc + m * ldc,
            bn,
            first: m,
            shiftFirst: shiftFirst + z * shiftStride,
            gate,
            alpha,
            across,
            flags: now,
            block: ks > LONG_SUM ? BLOCK : ks / 4,
          },
          constants: {
            BY_K: Number(ak === 1),
            BY_N: Number(bn === 1),
            BIAS: now & FLAGS.bias && 1,
            RESIDUAL: now & FLAGS.residual && 1,
            ACCUMULATE: now & FLAGS.accumulate && 1,
            SHIFT: now & FLAGS.shift && 1,
            ...narrow ? { TALL: Number(tall) } : { GATED: Number(gate > 0) },
          },
          groups: [
            Math.ceil(ms / (rows * THREADS / across)),
            Math.ceil(N / (COLUMNS * across)),
            zs,
          ],
        });
      }
    }
  }
}

/** Numbers from the first to the last of a matrix. */
function span(
  ...axes: readonly (readonly [size: number, stride: number])[]
): number {
  return axes.reduce((sum, [size, stride]) => sum + (size - 1) * stride, 1);
}

/**
 * Most rows, products and terms of the sum whose matrices fit the stages; 0 where none do. Where columns
 * are few and all threads lie along the rows, the rows of a piece busy both of two processors alike.
 */
function pieceSizes(
  params: Params,
  mostOfA: number,
): { readonly ms: number; readonly zs: number; readonly ks: number } {
  const { M = 0, N = 0, K = 0, Z = 1, am = 1, ak = 1, bk = 1 } = params;
  const { sa = 0, sb = 0 } = params;
  const bn = stepOfColumns(params);
  const mostOfB = STAGE_SIZE.f32;
  // Lines of `length` numbers.
  const lines = (
    most: number,
    length: number,
    stride: number,
    by: number,
  ): number => Math.floor(((most - length) / stride + 1) / by) * by;
  let ks = K;
  if (ak !== 1) ks = Math.min(ks, lines(mostOfA, M, ak, 4));
  if (bn === 1) ks = Math.min(ks, lines(mostOfB, N, bk, 4));
  else if (span([N, bn], [ks, 1]) > mostOfB) ks = 0;
  const rows = N <= NARROW_COLUMNS ? [TALL_ROWS, ROWS] : [ROWS];
  const even = N <= COLUMNS
    ? rows.map((n) => lines(mostOfA, ks, am, 2 * THREADS * n)).find(Boolean)
    : 0;
  const ms = ak === 1 ? Math.min(M, even || lines(mostOfA, ks, am, ROWS)) : M;
  const products = (most: number, stride: number, size: number): number =>
    stride ? Math.floor((most - size) / stride) + 1 : Z;
  const zs = Math.min(
    Z,
    products(mostOfA, sa, span([ms, am], [ks, ak])),
    products(mostOfB, sb, span([N, bn], [ks, bk])),
  );
  return { ms, zs, ks };
}

/** The same with A in f16, whose texels are of another format. */
function half(kernel: Kernel): Kernel {
  return {
    ...kernel,
    name: `${kernel.name}_half`,
    bindings: kernel.bindings.replace("a", "h"),
    wgsl: kernel.wgsl.replace(
      "a: texture_storage_2d<rgba32float",
      "a: texture_storage_2d<rgba16float",
    ),
  };
}
