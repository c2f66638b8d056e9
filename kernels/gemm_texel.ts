/**
 * Matrix products on adapters that are processors, through the kind of load that is cheap there: both
 * matrices are copied to textures (see the kernel). The copies cost little beside a product of some
 * size; what is large goes in pieces, so that they stay small.
 */
import wgsl from "./gemm_texel.wgsl" with { type: "text" };
import {
  type Kernel,
  type Params,
  STAGE_SIZE,
  type Tensor,
} from "./backend.ts";
import { gemmRef } from "./gemm_ref.ts";
import { threadsAcross } from "./tiles.ts";

const KERNEL: Kernel = {
  name: "gemm_texel",
  wgsl,
  bindings: "abrrw",
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
    "alpha:f",
    "across",
    "flags",
    "block",
  ],
  ref: gemmRef,
  flops: ({ M, N, K, Z }) => 2 * M! * N! * K! * Z!,
};
/** The same with A in f16. */
const KERNEL_HALF: Kernel = {
  ...KERNEL,
  name: "gemm_texel_half",
  bindings: "hbrrw",
};

/** Threads of a workgroup, and what each holds, as in the kernel. */
const THREADS = 8;
const ROWS = 8;
const COLUMNS = 16;
/** Threads that may lie along n; the first is taken where others leave as much without work. */
const ACROSS = [4, 8, 2, 1];
/** Longest sum that is added up without blocks, and the blocks of longer ones, in fours. */
const LONG_SUM = 128;
const BLOCK = 16;
/** Flag of the kernel: add to what C holds. */
const ACCUMULATE = 4;
/** Multiplications below which the copies cost more than they save. */
const LEAST_WORK = 2 ** 19;

/** A product as `gemm` describes it to its kernels. */
export interface TexelProduct {
  /** A, B, bias, residual and C, as `gemm.wgsl` binds them. */
  readonly bind: readonly [Tensor, Tensor, Tensor, Tensor, Tensor];
  /** Params of `gemm.wgsl`; `Z` is the batch. */
  readonly params: Params;
}

/** Whether the kernel can run a product, whose lines of A, B and C and whose N come in fours. */
export function texelFits({ params }: TexelProduct): boolean {
  const { M = 0, K = 0, ak = 1 } = params;
  const { ms, ks } = pieceSizes(params);
  // What lies across the pieces must come in fours, too.
  return K % 4 === 0 && (ak === 1 || M % 4 === 0) && ms > 0 && ks > 0;
}

/** Whether the kernel is the faster one for so many multiplications. */
export function texelPays(work: number): boolean {
  return work >= LEAST_WORK;
}

/** Runs a product that fits. */
export function gemmTexel({ bind, params }: TexelProduct): void {
  const { M = 0, N = 0, K = 0, Z = 1, alpha = 1, flags = 0 } = params;
  const { am = 1, ak = 1, bn = 1, bk = 1, ldc = 0 } = params;
  const { sa = 0, sb = 0, sc = 0, oa = 0, ob = 0, oc = 0 } = params;
  const [a, b, , , c] = bind;
  const { backend } = c;
  const most = pieceSizes(params);
  for (let k = 0; k < K; k += most.ks) {
    const ks = Math.min(most.ks, K - k);
    for (let m = 0; m < M; m += most.ms) {
      const ms = Math.min(most.ms, M - m);
      for (let z = 0; z < Z; z += most.zs) {
        const zs = Math.min(most.zs, Z - z);
        const aFirst = oa + z * sa + m * am + k * ak;
        const bFirst = ob + z * sb + k * bk;
        backend.stage(
          "a",
          a,
          aFirst,
          (zs - 1) * sa + span([ms, am], [ks, ak]),
        );
        backend.stage("b", b, bFirst, (zs - 1) * sb + span([N, bn], [ks, bk]));
        const across = threadsAcross([ms, N], THREADS, [ROWS, COLUMNS], ACROSS);
        backend.dispatch(a.type === "f16" ? KERNEL_HALF : KERNEL, {
          bind,
          params: {
            ...params,
            Z: zs,
            M: ms,
            K: ks,
            oa: aFirst,
            ob: bFirst,
            oc: oc + z * sc + m * ldc,
            first: m,
            alpha,
            across,
            flags: k ? ACCUMULATE : flags,
            block: ks > LONG_SUM ? BLOCK : ks / 4,
          },
          groups: [
            Math.ceil(ms / (ROWS * THREADS / across)),
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

/** Most rows, products and terms of the sum whose matrices fit the stages; 0 where none do. */
function pieceSizes(
  params: Params,
): { readonly ms: number; readonly zs: number; readonly ks: number } {
  const { M = 0, N = 0, K = 0, Z = 1, am = 1, ak = 1, bn = 1, bk = 1 } = params;
  const { sa = 0, sb = 0 } = params;
  // Lines of a matrix whose lines have `length` numbers.
  const lines = (length: number, stride: number, by: number): number =>
    Math.floor(((STAGE_SIZE - length) / stride + 1) / by) * by;
  let ks = K;
  if (ak !== 1) ks = Math.min(ks, lines(M, ak, 4));
  if (bn === 1) ks = Math.min(ks, lines(N, bk, 4));
  else if (span([N, bn], [ks, 1]) > STAGE_SIZE) ks = 0;
  const ms = ak === 1 ? Math.min(M, lines(ks, am, ROWS)) : M;
  const products = (stride: number, size: number): number =>
    stride ? Math.floor((STAGE_SIZE - size) / stride) + 1 : Z;
  const zs = Math.min(
    Z,
    products(sa, span([ms, am], [ks, ak])),
    products(sb, span([N, bn], [ks, bk])),
  );
  return { ms, zs, ks };
}
