/**
 * Products of the gpu family that are cut along k: where a result has too few tiles to keep a GPU busy,
 * several workgroups share the sum of each, and one more kernel adds up what they found.
 */
import wgsl from "./split_sum.wgsl" with { type: "text" };
import { elementGroups, type Kernel, type Tensor } from "./backend.ts";
import { splitSumRef } from "./split_sum_ref.ts";

const KERNEL: Kernel = {
  name: "split_sum",
  wgsl,
  bindings: "rrrrw",
  params: [
    "count",
    "M",
    "N",
    "parts",
    "ldc",
    "sc",
    "oc",
    "shiftStride",
    "shiftFirst",
    "alpha:f",
  ],
  ref: splitSumRef,
};

/** Where the sums go and what is added to them; everything but `bias` and `shift` is addressed like `c`. */
export interface SplitResult {
  /** Written. */
  readonly c: Tensor;
  /** Distance between rows. */
  readonly ldc: number;
  /** Distance between the matrices of a batch. */
  readonly sc: number;
  /** Start of the first matrix. */
  readonly oc: number;
  /** Factor on the sums. */
  readonly alpha: number;
  /** `[M]`. */
  readonly bias?: Tensor | undefined;
  /** Of each matrix M numbers, from `shiftFirst` on. */
  readonly shift?: Tensor | undefined;
  /** Distance between the shifts of a batch; 0 shares one. */
  readonly shiftStride?: number;
  /** Where the first one begins. */
  readonly shiftFirst?: number;
  /** Not `c` itself. */
  readonly residual?: Tensor | undefined;
  /** Add to what `c` holds. */
  readonly accumulate?: boolean;
}

/**
 * Adds up the parts.
 *
 * @param sums `[batch, parts, M, N]`.
 */
export function splitSum(sums: Tensor, result: SplitResult): void {
  const [batch = 0, parts = 0, M = 0, N = 0] = sums.shape;
  const { c, ldc, sc, oc, alpha, bias, shift, residual } = result;
  const count = batch * M * N;
  c.backend.dispatch(KERNEL, {
    bind: [sums, bias ?? sums, shift ?? sums, residual ?? sums, c],
    params: {
      count,
      M,
      N,
      parts,
      ldc,
      sc,
      oc,
      shiftStride: result.shiftStride ?? 0,
      shiftFirst: result.shiftFirst ?? 0,
      alpha,
    },
    constants: {
      BIAS: Number(bias !== undefined),
      SHIFT: Number(shift !== undefined),
      RESIDUAL: Number(residual !== undefined),
      ACCUMULATE: Number(result.accumulate ?? false),
    },
    groups: elementGroups(count),
  });
}
