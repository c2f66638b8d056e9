/** Attention made sharper: a softmax over the tokens of its probabilities. */
import type { Mapped } from "./mapped.ts";

/**
 * `softmax over tokens of scale p`, cell by cell.
 *
 * @param map `[tokens, cells]`.
 */
export function tokenSoftmax(
  map: Float64Array,
  tokens: number,
  scale: number,
): Mapped {
  const cells = map.length / tokens;
  const values = new Float64Array(map.length);
  for (let u = 0; u < cells; u++) {
    let high = -Infinity, sum = 0;
    for (let j = u; j < map.length; j += cells) high = Math.max(high, map[j]!);
    for (let j = u; j < map.length; j += cells) {
      values[j] = Math.exp(scale * (map[j]! - high));
      sum += values[j]!;
    }
    for (let j = u; j < map.length; j += cells) values[j]! /= sum;
  }
  return {
    values,
    back(gradient) {
      const out = new Float64Array(map.length);
      for (let u = 0; u < cells; u++) {
        let mean = 0;
        for (let j = u; j < map.length; j += cells) {
          mean += values[j]! * gradient[j]!;
        }
        for (let j = u; j < map.length; j += cells) {
          out[j] = scale * values[j]! * (gradient[j]! - mean);
        }
      }
      return out;
    },
  };
}
