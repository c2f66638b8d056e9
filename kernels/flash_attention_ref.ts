/** Float64 definitions of the flash kernels: head by head, one query after the other. */
import type { Params } from "./backend.ts";

/**
 * Bindings q, k, v, stats, out; see `flash_attention.wgsl`. The workgroups of y are the heads, from `head` on where
 * there are more; lines of keys have `line` numbers where they end with others.
 */
export function flashAttentionRef(
  bind: readonly Float64Array[],
  p: Params,
  { CAUSAL = 0 }: Params,
): void {
  const [q, k, v, stats, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { heads = 1, queries = 1, keys = 1, width = 1, scale = 1 } = p;
  const { qPitch = 1, qFirst = 0, kPitch = 1, kFirst = 0 } = p;
  const { vPitch = 1, vFirst = 0, head = 0, line = keys } = p;
  const scores = new Float64Array(keys);
  for (let z = head; z < head + heads; z++) {
    for (let n = 0; n < queries; n++) {
      const count = CAUSAL ? Math.min(keys, n + 1) : keys;
      scores.fill(0);
      for (let d = 0; d < width; d++) {
        const x = q[(z * qPitch + qFirst + d) * queries + n]!;
        const row = (z * kPitch + kFirst + d) * line;
        for (let j = 0; j < count; j++) {
          scores[j] = scores[j]! + x * k[row + j]!;
        }
      }
      let high = -Infinity;
      for (let j = 0; j < count; j++) high = Math.max(high, scale * scores[j]!);
      let sum = 0;
      for (let j = 0; j < count; j++) {
        sum += scores[j] = Math.exp(scale * scores[j]! - high);
      }
      for (let d = 0; d < width; d++) {
        const row = (z * vPitch + vFirst + d) * line;
        let value = 0;
        for (let j = 0; j < count; j++) value += scores[j]! * v[row + j]!;
        out[(z * width + d) * queries + n] = value / sum;
      }
      stats[z * 2 * queries + n] = high;
      stats[(z * 2 + 1) * queries + n] = 1 / sum;
    }
  }
}

/** Bindings a, b, ga, gb, rows, h, probed, out; `head` and `line`, of the others, as in `flashAttentionRef`. */
export function flashGradRef(
  bind: readonly Float64Array[],
  p: Params,
  flags: Params,
): void {
  const [a, b, ga, gb, rows, h, probed, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { heads = 1, own = 1, others = 1, width = 1, tokens = 0, scale = 1 } =
    p;
  const { head = 0, line: length = others } = p;
  const { BY_QUERY = 0, VALUES = 0, OUTPUT = 0, PROBE = 0, CAUSAL = 0 } = flags;
  const queries = BY_QUERY ? own : others;
  for (let z = head; z < head + heads; z++) {
    /** The first line of this head in a tensor. */
    const line = (name: string) => z * p[`${name}Pitch`]! + p[`${name}First`]!;
    const la = line("a"), lb = line("b"), lga = line("ga"), lgb = line("gb");
    const lout = line("out");
    /** Product of column i of a or ga with column j of b or gb. */
    const dot = (second: boolean, i: number, j: number) => {
      const [x, y] = second ? [ga, gb] : [a, b];
      const [lx, ly] = second ? [lga, lgb] : [la, lb];
      let sum = 0;
      for (let d = 0; d < width; d++) {
        sum += x[(lx + d) * own + i]! * y[(ly + d) * length + j]!;
      }
      return sum;
    };
    for (let i = 0; i < own; i++) {
      for (let d = 0; d < width; d++) out[(lout + d) * own + i] = 0;
      for (let j = 0; j < others; j++) {
        const [query, key] = BY_QUERY ? [i, j] : [j, i];
        if (CAUSAL && key > query) continue;
        const row = (which: number) => rows[(z * 3 + which) * queries + query]!;
        let value = Math.exp(scale * dot(false, i, j) - row(0)) * row(1);
        if (!VALUES) value *= (OUTPUT ? dot(true, i, j) : 0) - row(2);
        for (let t = 0; !VALUES && PROBE && t < tokens; t++) {
          if (probed[t] === key) {
            value += h[(z * tokens + t) * queries + query]!;
          }
        }
        const [from, first] = VALUES ? [gb, lgb] : [b, lb];
        for (let d = 0; d < width; d++) {
          const at = (lout + d) * own + i;
          out[at] = out[at]! + (VALUES ? 1 : scale) * value *
              from[(first + d) * length + j]!;
        }
      }
    }
  }
}
