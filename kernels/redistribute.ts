/** Attention moved to where things should be: CSG's change of the forward pass. */
import wgsl from "./redistribute.wgsl" with { type: "text" };
import {
  elementGroups,
  expectShape,
  type Kernel,
  type Tensor,
} from "./backend.ts";
import { redistributeRef } from "./redistribute_ref.ts";

const KERNEL: Kernel = {
  name: "redistribute",
  wgsl,
  bindings: "wrr",
  params: ["count", "keys", "columns", "queries", "first", "tokens"],
  ref: redistributeRef,
};

/**
 * In place: the chosen tokens' weights are summed, the sum goes to each of them times its mask, and every
 * query's weights are scaled to the sum that they had.
 *
 * @param weights Attention weights, `[batch heads, keys, some queries]`.
 * @param first The first of the queries.
 * @param tokens Key numbers `[tokens]`, all different.
 * @param mask `[tokens, all queries]`.
 */
export function redistribute(
  weights: Tensor,
  first: number,
  tokens: Tensor,
  mask: Tensor,
): void {
  const [z = 0, keys = 0, columns = 0] = weights.shape;
  const [, queries = 0] = mask.shape;
  expectShape(mask, [tokens.size, queries], "redistribute");
  if (first + columns > queries) {
    throw new RangeError(
      `Cannot run redistribute: masks must cover queries up to ${
        first + columns
      }: current shape is [${mask.shape}]`,
    );
  }
  weights.backend.dispatch(KERNEL, {
    bind: [weights, tokens, mask],
    params: {
      count: z * columns,
      keys,
      columns,
      queries,
      first,
      tokens: tokens.size,
    },
    groups: elementGroups(z * columns),
  });
}
