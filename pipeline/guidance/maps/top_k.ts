/** The cells where a map is largest. */

/** Up to `count` of `cells`, the largest value first, ties by position. */
export function largest(
  map: Float64Array,
  cells: readonly number[],
  count: number,
): number[] {
  return cells.toSorted((u, v) => map[v]! - map[u]! || u - v).slice(0, count);
}

/** The cell of the largest value; undefined of none. */
export function argmax(
  map: Float64Array,
  cells: readonly number[],
): number | undefined {
  let best: number | undefined;
  for (const u of cells) {
    if (best === undefined || map[u]! > map[best]!) best = u;
  }
  return best;
}

/** Sum over some cells. */
export function sumOf(map: Float64Array, cells: readonly number[]): number {
  return cells.reduce((sum, u) => sum + map[u]!, 0);
}
