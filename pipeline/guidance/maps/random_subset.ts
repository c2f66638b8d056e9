/** A part of some cells, by chance: the same for the same seed on every machine. */
import { philox } from "../../../kernels/normal_ref.ts";

/** Keeps these draws apart from those of `noise.ts`. */
const STREAM = 3;

/**
 * `count` of `cells`; which ones depends on seed, step and use alone.
 *
 * @param use Two whole numbers below 2^32 that name the use.
 */
export function randomSubset(
  cells: readonly number[],
  count: number,
  seed: number,
  use: readonly [number, number],
): number[] {
  const key = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
  return cells
    .map((u) => ({ u, order: philox([u, STREAM, ...use], key)[0] }))
    .toSorted((a, b) => a.order - b.order || a.u - b.u)
    .slice(0, count)
    .map(({ u }) => u);
}
