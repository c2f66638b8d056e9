/** The map of a phrase, from those of its tokens. */
import type { Mapped } from "./mapped.ts";

/**
 * One map for a phrase: the mean of its tokens', or their sum.
 *
 * @param maps `[keys, cells]`.
 * @param keys What the rows of `maps` are.
 * @param tokens Positions that stand for the phrase, all among the keys.
 */
export function subjectMap(
  maps: Float64Array,
  keys: readonly number[],
  tokens: readonly number[],
  how: "mean" | "sum",
): Mapped {
  const cells = maps.length / keys.length;
  const weight = how === "mean" ? 1 / tokens.length : 1;
  const rows = tokens.map((token) => keys.indexOf(token) * cells);
  const values = new Float64Array(cells);
  for (const row of rows) {
    for (let u = 0; u < cells; u++) values[u]! += weight * maps[row + u]!;
  }
  return {
    values,
    back(gradient) {
      const out = new Float64Array(maps.length);
      for (const row of rows) {
        for (let u = 0; u < cells; u++) out[row + u]! += weight * gradient[u]!;
      }
      return out;
    },
  };
}

/** Adds an array to another. */
export function addTo(sum: Float64Array, more: Float64Array): void {
  for (let i = 0; i < sum.length; i++) sum[i]! += more[i]!;
}
