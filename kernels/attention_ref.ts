/** Float64 definitions of the row kernels of attention. */
import type { Params } from "./backend.ts";

/** Bindings s, stats; see `softmax_columns.wgsl`. */
export function softmaxColumnsRef(
  [s, stats]: readonly Float64Array[],
  p: Params,
  { CAUSAL = 0, AGAIN = 0 }: Params,
): void {
  const { count = 0, keys = 1, columns = 1, queries = 1, first = 0 } = p;
  for (let i = 0; i < count; i++) {
    const z = Math.floor(i / columns);
    const n = i % columns;
    const start = z * keys * columns + n;
    const at = z * 2 * queries + first + n;
    const last = CAUSAL ? Math.min(keys, first + n + 1) : keys;
    if (!AGAIN) {
      let high = -Infinity;
      for (let j = 0; j < last; j++) high = Math.max(high, s![start + j * columns]!);
      let sum = 0;
      for (let j = 0; j < last; j++) sum += Math.exp(s![start + j * columns]! - high);
      stats![at] = high;
      stats![at + queries] = 1 / sum;
    }
    const high = stats![at]!;
    const inverse = stats![at + queries]!;
    for (let j = 0; j < keys; j++) {
      s![start + j * columns] = j < last ? Math.exp(s![start + j * columns]! - high) * inverse : 0;
    }
  }
}

/** Bindings q, k, stats, tokens, out. */
export function attentionProbeRef(bind: readonly Float64Array[], p: Params): void {
  const [q, k, stats, tokens, out] = bind as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
  const { count = 0, queries = 1, keys = 1, width = 1, scale = 1 } = p;
  for (let i = 0; i < count; i++) {
    const n = i % queries;
    const token = tokens[Math.floor(i / queries) % p.tokens!]!;
    const z = Math.floor(i / queries / p.tokens!);
    let sum = 0;
    for (let d = 0; d < width; d++) sum += k[(z * width + d) * keys + token]! * q[(z * width + d) * queries + n]!;
    const at = z * 2 * queries + n;
    out[i] = scale * sum - stats[at]! + Math.log(stats[at + queries]!);
  }
}

/** Bindings go, o, h, delta. */
export function attentionDeltaRef(bind: readonly Float64Array[], p: Params, { OUTPUT = 0, PROBE = 0 }: Params): void {
  const [go, o, h, delta] = bind as [Float64Array, Float64Array, Float64Array, Float64Array];
  const { count = 0, queries = 1, width = 1, tokens = 0 } = p;
  for (let i = 0; i < count; i++) {
    const z = Math.floor(i / queries);
    const n = i % queries;
    let sum = 0;
    for (let d = 0; OUTPUT && d < width; d++) {
      const at = (z * width + d) * queries + n;
      sum += go[at]! * o[at]!;
    }
    for (let t = 0; PROBE && t < tokens; t++) sum += h[(z * tokens + t) * queries + n]!;
    delta[i] = sum;
  }
}

/** Bindings s, dp, delta, h, probed. */
export function softmaxGradRef(bind: readonly Float64Array[], p: Params, { OUTPUT = 0, PROBE = 0 }: Params): void {
  const [s, dp, delta, h, probed] = bind as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
  const { count = 0, keys = 1, columns = 1, queries = 1, first = 0, tokens = 0 } = p;
  for (let i = 0; i < count; i++) {
    const n = first + i % columns;
    const key = Math.floor(i / columns) % keys;
    const z = Math.floor(i / columns / keys);
    let value = s[i]! * ((OUTPUT ? dp[i]! : 0) - delta[z * queries + n]!);
    for (let t = 0; PROBE && t < tokens; t++) {
      if (probed[t] === key) value += h[(z * tokens + t) * queries + n]!;
    }
    s[i] = value;
  }
}
