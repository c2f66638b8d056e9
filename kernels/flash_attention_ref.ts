/** Float64 definitions of the flash kernels: head by head, one query after the other. */
import type { Params } from "./backend.ts";

/** Bindings q, k, v, stats, out; see `flash_attention.wgsl`. The workgroups of y are the heads. */
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
  const scores = new Float64Array(keys);
  for (let z = 0; z < heads; z++) {
    for (let n = 0; n < queries; n++) {
      const count = CAUSAL ? Math.min(keys, n + 1) : keys;
      scores.fill(0);
      for (let d = 0; d < width; d++) {
        const x = q[(z * width + d) * queries + n]!;
        const row = (z * width + d) * keys;
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
        const row = (z * width + d) * keys;
        let value = 0;
        for (let j = 0; j < count; j++) value += scores[j]! * v[row + j]!;
        out[(z * width + d) * queries + n] = value / sum;
      }
      stats[z * 2 * queries + n] = high;
      stats[(z * 2 + 1) * queries + n] = 1 / sum;
    }
  }
}
