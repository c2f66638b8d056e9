/**
 * Attention of the gpu family: one kernel that never stores the scores, and on the way back one for
 * each gradient, which compute them again.
 *
 * @see Dao et al. 2022, arXiv:2205.14135.
 */
import wgsl from "./flash_attention.wgsl" with { type: "text" };
import gradWgsl from "./flash_attention_grad.wgsl" with { type: "text" };
import { attentionRows } from "./attention_rows.ts";
import type { Kernel, Tensor } from "./backend.ts";
import { flashAttentionRef, flashGradRef } from "./flash_attention_ref.ts";
import { fitsMatrix, flashMatrix, flashMatrixGrad } from "./flash_matrix.ts";
import { headNames, headParams, type Heads, wholeHeads } from "./heads.ts";

const FORWARD: Kernel = {
  name: "flash_attention",
  wgsl,
  bindings: "rrrww",
  params: ["queries", "keys", "width", "scale:f", ...headNames("q", "k", "v")],
  ref: flashAttentionRef,
  flops: ({ heads, queries, keys, width }) =>
    4 * heads! * queries! * keys! * width!,
};

const GRAD: Kernel = {
  name: "flash_attention_grad",
  wgsl: gradWgsl,
  bindings: "rrrrrrrw",
  params: [
    "own",
    "others",
    "width",
    "tokens",
    "scale:f",
    ...headNames("a", "b", "ga", "gb", "out"),
  ],
  ref: flashGradRef,
  flops: ({ heads, own, others, width, products }) =>
    2 * products! * heads! * own! * others! * width!,
};

/** Dimensions of a head that the kernels hold at most. */
export const FLASH_WIDTH = 160;

/** Queries of a workgroup, or keys where it makes gradients on these. */
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
  /** Stay in 32 bits, whatever the backend may. */
  readonly exact: boolean;
}

/**
 * `out = softmax(q^T k / sqrt(width)) v`.
 *
 * @param q Lines of queries.
 * @param k Lines of keys.
 * @param v Like `k`.
 * @param stats Written: `[heads, 2, queries]`, the largest score and one over the sum.
 * @param out Written: `[heads, width, queries]`, in any shape.
 */
export function flashAttention(
  [q, k, v]: readonly [Heads, Heads, Heads],
  shape: FlashShape,
  { stats, out }: { readonly stats: Tensor; readonly out: Tensor },
): void {
  if (fitsMatrix(out, shape)) {
    flashMatrix([q, k, v], shape, { stats, out });
    return;
  }
  const { heads, queries, keys, width, causal } = shape;
  const scale = 1 / Math.sqrt(width);
  out.backend.dispatch(FORWARD, {
    bind: [q.tensor, k.tensor, v.tensor, stats, out],
    params: {
      heads,
      queries,
      keys,
      width,
      scale,
      ...headParams({ q, k, v }),
    },
    constants: { ...parts(width), CAUSAL: Number(causal) },
    groups: [Math.ceil(queries / COLUMNS), heads, 1],
  });
}

/** What the way back starts from. */
export interface FlashBack {
  /** Inputs and results of the way there. */
  readonly q: Heads;
  /** See `flashAttention`. */
  readonly k: Heads;
  /** See `flashAttention`. */
  readonly v: Heads;
  /** See `flashAttention`. */
  readonly out: Tensor;
  /** See `flashAttention`. */
  readonly stats: Tensor;
  /** Gradient on `out`. */
  readonly go: Tensor | undefined;
  /** Gradient on the log-probabilities of probed keys, `[heads, tokens, queries]`. */
  readonly h: Tensor | undefined;
  /** `[tokens]`, their numbers. */
  readonly probed: Tensor | undefined;
}

/**
 * Gradients on q, k and v.
 *
 * @param grads Written, those that are there; the one on v takes `go`.
 */
export function flashAttentionGrad(
  { q, k, v, out, stats, go, h, probed }: FlashBack,
  shape: FlashShape,
  [dq, dk, dv]: readonly (Heads | undefined)[],
): void {
  if (go && !h && fitsMatrix(out, shape)) {
    flashMatrixGrad({ q, k, v, out, stats, go }, shape, [dq, dk, dv]);
    return;
  }
  const { heads, queries, keys, width, causal } = shape;
  const { backend } = out;
  const tokens = probed?.size ?? 0;
  const flags = { OUTPUT: Number(!!go), PROBE: Number(!!h) };
  using rows = attentionRows({ out, stats, go, h }, heads, tokens);
  const scale = 1 / Math.sqrt(width);
  const run = (
    operands: {
      readonly a: Heads;
      readonly b: Heads;
      readonly ga: Heads;
      readonly gb: Heads;
      readonly out: Heads;
    },
    [own, others]: readonly [number, number],
    kind: { readonly BY_QUERY: number; readonly VALUES: number },
  ): void => {
    const { a, b, ga, gb, out: grad } = operands;
    const products = go && !kind.VALUES ? 3 : 2;
    backend.dispatch(GRAD, {
      bind: [
        a.tensor,
        b.tensor,
        ga.tensor,
        gb.tensor,
        rows,
        h ?? rows,
        probed ?? rows,
        grad.tensor,
      ],
      params: {
        heads,
        own,
        others,
        width,
        tokens,
        scale,
        products,
        ...headParams(operands),
      },
      constants: {
        ...parts(width),
        ...kind,
        ...kind.VALUES ? { OUTPUT: 1, PROBE: 0 } : flags, // values need neither
        CAUSAL: Number(causal),
      },
      groups: [Math.ceil(own / COLUMNS), heads, 1],
    });
  };
  const byQuery = [queries, keys] as const;
  const byKey = [keys, queries] as const;
  const g = go ? wholeHeads(go, width) : q;
  if (dq) {
    run({ a: q, b: k, ga: g, gb: v, out: dq }, byQuery, {
      BY_QUERY: 1,
      VALUES: 0,
    });
  }
  if (dk) {
    run({ a: k, b: q, ga: v, gb: g, out: dk }, byKey, {
      BY_QUERY: 0,
      VALUES: 0,
    });
  }
  if (dv) {
    run({ a: k, b: q, ga: v, gb: g, out: dv }, byKey, {
      BY_QUERY: 0,
      VALUES: 1,
    });
  }
}

/** Registers for a width, and how much of the values fits the kernels' workgroup memory then. */
function parts(width: number): { PARTS: number; QUADS: number } {
  const PARTS = Math.ceil(width / 16);
  return { PARTS, QUADS: PARTS <= 3 ? 8 : PARTS <= 6 ? 4 : 2 };
}
