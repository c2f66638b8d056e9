/**
 * Error bars by resampling units (layouts) with replacement.
 *
 * The same resamples serve every method, so that a difference of two methods is paired: what makes a
 * layout hard for both cancels.
 *
 * @see Efron and Tibshirani 1993, An Introduction to the Bootstrap, 13.3.
 */
import { uniform } from "./uniform.ts";

/** A number with its 95 % interval; both ends are NaN where there is none. */
export interface Interval {
  /** Of the sample itself. */
  readonly value: number;
  /** Lower end. */
  readonly low: number;
  /** Upper end. */
  readonly high: number;
}

/**
 * How often each unit is drawn, per resample.
 *
 * @param seed The same numbers for the same seed on every machine.
 * @returns `[count][units]`; each row sums up to `units`.
 */
export function resamples(
  units: number,
  count: number,
  seed: number,
): Uint16Array[] {
  const next = uniform(seed);
  return Array.from({ length: count }, () => {
    const drawn = new Uint16Array(units);
    for (let i = 0; i < units; i++) drawn[Math.floor(next() * units)]!++;
    return drawn;
  });
}

/** The middle 95 % of a number's values over resamples. */
export function percentileInterval(
  value: number,
  resampled: readonly number[],
): Interval {
  const sorted = resampled.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length < 2 || !Number.isFinite(value)) {
    return { value, low: NaN, high: NaN };
  }
  const at = (share: number): number => {
    const place = share * (sorted.length - 1);
    const below = Math.floor(place);
    const above = sorted[Math.min(below + 1, sorted.length - 1)]!;
    return sorted[below]! + (place - below) * (above - sorted[below]!);
  };
  return { value, low: at(0.025), high: at(0.975) };
}

/**
 * The percentiles mirrored at the value: the basic bootstrap interval.
 *
 * For numbers that grow where layouts repeat, as they do in a resample: average precision does, being the
 * area under the upper hull of a curve, which fewer points leave higher. Percentiles would have that twice.
 *
 * @param range What the number can be.
 * @see Davison and Hinkley 1997, Bootstrap Methods and their Application, 5.2.
 */
export function basicInterval(
  value: number,
  resampled: readonly number[],
  [least, most]: readonly [number, number],
): Interval {
  const { low, high } = percentileInterval(value, resampled);
  return {
    value,
    low: Math.max(least, 2 * value - high),
    high: Math.min(most, 2 * value - low),
  };
}

/**
 * The value and 1.96 standard deviations of its resamples around it.
 *
 * For numbers that resampling itself shifts: a Frechet distance grows when pictures repeat, so that the
 * percentiles would lie above it.
 */
export function normalInterval(
  value: number,
  resampled: readonly number[],
): Interval {
  const list = resampled.filter(Number.isFinite);
  if (list.length < 2 || !Number.isFinite(value)) {
    return { value, low: NaN, high: NaN };
  }
  const mean = list.reduce((a, b) => a + b, 0) / list.length;
  const square = list.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  const half = 1.96 * Math.sqrt(square / (list.length - 1));
  return { value, low: value - half, high: value + half };
}
