/** What the way back through attention needs of each query, in either family. */
import wgsl from "./attention_rows.wgsl" with { type: "text" };
import { attentionRowsRef } from "./attention_ref.ts";
import { elementGroups, type Kernel, type Tensor } from "./backend.ts";

const KERNEL: Kernel = {
  name: "attention_rows",
  wgsl,
  bindings: "rrrrw",
  params: ["count", "queries", "width", "tokens"],
  ref: attentionRowsRef,
};

/** Results of the way there and the gradients on them. */
export interface AttentionResults {
  /** `[heads, width, queries]`, in any shape. */
  readonly out: Tensor;
  /** `[heads, 2, queries]`, the largest score and one over the sum. */
  readonly stats: Tensor;
  /** Gradient on `out`. */
  readonly go: Tensor | undefined;
  /** Gradient on the log-probabilities of probed keys, `[heads, tokens, queries]`. */
  readonly h: Tensor | undefined;
}

/**
 * Both statistics of a query, and what the softmax Jacobian subtracts from each of its keys.
 *
 * @param heads Heads of the whole batch.
 * @param tokens Probed keys.
 * @returns `[heads, 3, queries]`; the caller disposes it.
 */
export function attentionRows(
  { out, stats, go, h }: AttentionResults,
  heads: number,
  tokens: number,
): Tensor {
  const { backend } = out;
  const [, , queries = 1] = stats.shape;
  const rows = backend.alloc([heads, 3, queries]);
  const count = heads * queries;
  backend.dispatch(KERNEL, {
    bind: [go ?? out, out, h ?? out, stats, rows],
    params: { count, queries, width: out.size / count, tokens },
    constants: { OUTPUT: Number(!!go), PROBE: Number(!!h) },
    groups: elementGroups(count),
  });
  return rows;
}
