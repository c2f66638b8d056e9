/**
 * Attention of the gpu family: one kernel that never stores the scores, and on the way back one for
 * each gradient, which compute them again.
 *
 * @see Dao et al. 2022, arXiv:2205.14135.
 */
import wgsl from "./flash_attention.wgsl" with { type: "text" };
import type { Kernel, Tensor } from "./backend.ts";
import { flashAttentionRef } from "./flash_attention_ref.ts";

const FORWARD: Kernel = {
  name: "flash_attention",
  wgsl,
  bindings: "rrrww",
  params: ["queries", "keys", "width", "scale:f"],
  ref: flashAttentionRef,
  flops: ({ heads, queries, keys, width }) =>
    4 * heads! * queries! * keys! * width!,
};

/** Dimensions of a head that the kernels hold at most. */
export const FLASH_WIDTH = 160;

/** Queries of a workgroup. */
const COLUMNS = 32;

/** Sizes of one attention. */
export interface FlashShape {
  /** Heads of the whole batch. */
  readonly heads: number;
  /** Queries of each. */
  readonly queries: number;
  /** Keys of each. */
  readonly keys: number;
  /** Dimensions of each, at most `FLASH_WIDTH`. */
  readonly width: number;
  /** Whether a query sees only keys up to its own position. */
  readonly causal: boolean;
}

/**
 * `out = softmax(q^T k / sqrt(width)) v`.
 *
 * @param q `[heads, width, queries]`, in any shape.
 * @param k `[heads, width, keys]`.
 * @param v Like `k`.
 * @param stats Written: `[heads, 2, queries]`, the largest score and one over the sum.
 * @param out Written, like `q`.
 */
export function flashAttention(
  [q, k, v]: readonly [Tensor, Tensor, Tensor],
  { heads, queries, keys, width, causal }: FlashShape,
  { stats, out }: { readonly stats: Tensor; readonly out: Tensor },
): void {
  const scale = 1 / Math.sqrt(width);
  q.backend.dispatch(FORWARD, {
    bind: [q, k, v, stats, out],
    params: { heads, queries, keys, width, scale },
    constants: { ...parts(width), CAUSAL: Number(causal) },
    groups: [Math.ceil(queries / COLUMNS), heads, 1],
  });
}

/** Registers for a width, and how much of the values fits the kernels' workgroup memory then. */
function parts(width: number): { PARTS: number; QUADS: number } {
  const PARTS = Math.ceil(width / 16);
  return { PARTS, QUADS: PARTS <= 3 ? 8 : PARTS <= 6 ? 4 : 2 };
}
