/** Softmax over the keys of a chunk of scores, up to a factor that `scale_columns` applies later. */
import columnsWgsl from "./softmax_columns.wgsl" with { type: "text" };
import texelWgsl from "./softmax_texel.wgsl" with { type: "text" };
import placeWgsl from "./texel.wgsl" with { type: "text" };
import { softmaxColumnsRef, softmaxTexelRef } from "./attention_ref.ts";
import {
  elementGroups,
  type Kernel,
  STAGE_SIZE,
  type Tensor,
} from "./backend.ts";

const PARAMS = ["count", "keys", "columns", "queries", "first"];
const ANY: Kernel = {
  name: "softmax_columns",
  wgsl: columnsWgsl,
  bindings: "ww",
  params: PARAMS,
  ref: softmaxColumnsRef,
};
const TEXEL: Kernel = {
  name: "softmax_texel",
  wgsl: placeWgsl + texelWgsl,
  bindings: "bww",
  params: [...PARAMS, "z"],
  ref: softmaxTexelRef,
};

/** Threads of a workgroup of `softmax_texel`, each with four columns. */
const THREADS = 8;

/** Which of all queries the columns are, and what they see. */
export interface SoftmaxOptions {
  /** The first column's query. */
  readonly first: number;
  /** Whether a query sees only keys up to its own position. */
  readonly causal: boolean;
  /** Which kernel; `auto`, the default, takes `texel` on software adapters where sizes allow. For tests. */
  readonly variant?: "auto" | "any" | "texel";
}

/**
 * `s[z,j,n]` becomes `exp(s[z,j,n] - max_j)`, in place; maxima and reciprocal sums go to `stats`.
 *
 * @param s `[z, keys, columns]`.
 * @param stats `[z, 2, queries]`: of each query the maximum and 1 / sum.
 */
export function softmaxColumns(
  s: Tensor,
  stats: Tensor,
  { first, causal, variant = "auto" }: SoftmaxOptions,
): void {
  const { backend } = s;
  const [z = 0, keys = 0, columns = 0] = s.shape;
  const queries = stats.shape[2]!;
  const params = { count: z * columns, keys, columns, queries, first };
  const size = keys * columns;
  const fits = !causal && columns % 4 === 0 && size <= STAGE_SIZE.f32;
  if (variant === "texel" && !fits) {
    throw new RangeError(
      `Cannot run softmax_texel: columns must come in fours, fit the stage and see all keys: current shape is [${s.shape}]`,
    );
  }
  const staged = variant === "texel" || variant === "auto" && fits &&
      backend.family === "software" && backend.kind !== "cpu";
  if (!staged) {
    backend.dispatch(ANY, {
      bind: [s, stats],
      params,
      constants: { CAUSAL: Number(causal) },
      groups: elementGroups(z * columns),
    });
    return;
  }
  const most = Math.floor(STAGE_SIZE.f32 / size);
  for (let at = 0; at < z; at += most) {
    const here = Math.min(most, z - at);
    backend.stage("b", s, at * size, here * size);
    backend.dispatch(TEXEL, {
      bind: [s, s, stats],
      params: { ...params, count: here * columns, z: at },
      groups: [Math.ceil(columns / 4 / THREADS), here, 1],
    });
  }
}
