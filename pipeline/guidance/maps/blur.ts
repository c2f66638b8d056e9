/** The 3x3 smoothing that BoxDiff, Attention-Refocusing and R&B share. */
import type { Grid, Mapped } from "./mapped.ts";

/**
 * Weights proportional to `exp(-(d / (2 sigma))^2)`, d the distance in cells, as the codes have it: their
 * standard deviation is `sqrt(2) sigma`. 0.5 gives 0.211942, 0.576117, 0.211942.
 */
export function blurWeights(
  sigma: number,
): readonly [side: number, middle: number] {
  const side = Math.exp(-((1 / (2 * sigma)) ** 2));
  const sum = 1 + 2 * side;
  return [side / sum, 1 / sum];
}

/** Smooths along both axes; beyond the border the map is mirrored, its edge not repeated. */
export function blur(map: Float64Array, grid: Grid, sigma: number): Mapped {
  const weights = blurWeights(sigma);
  const rows = spread(map, grid, weights, 0, false);
  return {
    values: spread(rows, grid, weights, 1, false),
    back: (gradient) =>
      spread(spread(gradient, grid, weights, 1, true), grid, weights, 0, true),
  };
}

/** One axis of it, or the transpose of that. */
function spread(
  map: Float64Array,
  [height, width]: Grid,
  [side, middle]: readonly [number, number],
  axis: 0 | 1,
  transposed: boolean,
): Float64Array {
  const length = axis === 0 ? height : width;
  const stride = axis === 0 ? width : 1;
  const mirrored = (i: number): number =>
    length === 1 ? 0 : i < 0 ? -i : i >= length ? 2 * length - 2 - i : i;
  const out = new Float64Array(map.length);
  for (let u = 0; u < map.length; u++) {
    const i = Math.floor(u / stride) % length;
    for (const d of [-1, 0, 1]) {
      const v = u + (mirrored(i + d) - i) * stride;
      const weight = d === 0 ? middle : side;
      if (transposed) out[v]! += weight * map[u]!;
      else out[u]! += weight * map[v]!;
    }
  }
  return out;
}
