/**
 * Frechet distance between a set of features and a reference, both taken as Gaussians:
 * `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.
 *
 * With few pictures it is too large, even for real ones: compare it only with that of as many others.
 *
 * @see Heusel et al. 2017, arXiv:1706.08500; Dowson and Landau 1982.
 */
import { choleskyFactor, symmetricEigenvalues } from "./symmetric.ts";

/** What real pictures look like to a detector. */
export interface FeatureReference {
  /** `[n]`. */
  readonly mean: Float64Array;
  /** `[n, n]`. */
  readonly covariance: Float64Array;
  /** Rows of n: real pictures that are not among those of mean and covariance. */
  readonly features: readonly Float64Array[];
}

/** A reference made ready for comparisons. */
export class FrechetReference {
  readonly #mean: Float64Array;
  readonly #factor: Float64Array;
  readonly #trace: number;

  /** Factorises the covariance once. */
  constructor(
    { mean, covariance }: Pick<FeatureReference, "mean" | "covariance">,
  ) {
    this.#mean = mean;
    this.#factor = choleskyFactor(covariance, mean.length);
    this.#trace = trace(covariance, mean.length);
  }

  /**
   * The distance of some feature rows.
   *
   * @param rows Of the reference's length each.
   * @returns NaN for fewer than two rows.
   */
  distance(rows: readonly Float64Array[]): number {
    return this.distances(rows)();
  }

  /**
   * A function for the distances of many mixtures of the same rows.
   *
   * @param rows Of the reference's length each.
   * @returns From `[rows]`, how often each row counts (default once), to the distance.
   */
  distances(
    rows: readonly Float64Array[],
  ): (weights?: ArrayLike<number>) => number {
    const n = this.#mean.length;
    // C1 C2 has the eigenvalues of L' C2 L, where C1 = L L': the covariance of the rows x' L.
    const projected = rows.map((row) => times(row, this.#factor));
    return (weights) => {
      const { mean, variance } = spread(rows, n, weights);
      const { covariance } = momentsOf(projected, n, weights);
      if (Number.isNaN(covariance[0]!)) return NaN;
      let shift = 0;
      mean.forEach((m, i) => shift += (m - this.#mean[i]!) ** 2);
      let roots = 0;
      for (const value of symmetricEigenvalues(covariance, n)) {
        roots += Math.sqrt(Math.max(0, value));
      }
      return Math.max(0, shift + this.#trace + variance - 2 * roots);
    };
  }
}

/**
 * Mean and covariance (over count - 1) of weighted rows.
 *
 * @returns NaN where the weights sum up to less than 2.
 */
export function momentsOf(
  rows: readonly Float64Array[],
  n: number,
  weights: ArrayLike<number> = new Uint8Array(rows.length).fill(1),
): { mean: Float64Array; covariance: Float64Array } {
  let count = 0;
  const mean = new Float64Array(n);
  rows.forEach((row, r) => {
    count += weights[r]!;
    for (let i = 0; i < n; i++) mean[i]! += weights[r]! * row[i]!;
  });
  const covariance = new Float64Array(n * n);
  if (count < 2) return { mean, covariance: covariance.fill(NaN) };
  for (let i = 0; i < n; i++) mean[i]! /= count;
  const off = new Float64Array(n);
  rows.forEach((row, r) => {
    const weight = weights[r]! / (count - 1);
    if (weight === 0) return;
    for (let i = 0; i < n; i++) off[i] = row[i]! - mean[i]!;
    for (let i = 0; i < n; i++) {
      const scaled = weight * off[i]!;
      for (let j = 0; j <= i; j++) covariance[i * n + j]! += scaled * off[j]!;
    }
  });
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) covariance[j * n + i] = covariance[i * n + j]!;
  }
  return { mean, covariance };
}

/** Mean, and the sum of all variances. */
function spread(
  rows: readonly Float64Array[],
  n: number,
  weights: ArrayLike<number> = new Uint8Array(rows.length).fill(1),
): { mean: Float64Array; variance: number } {
  const mean = new Float64Array(n);
  let count = 0;
  rows.forEach((row, r) => {
    count += weights[r]!;
    for (let i = 0; i < n; i++) mean[i]! += weights[r]! * row[i]!;
  });
  for (let i = 0; i < n; i++) mean[i]! /= count;
  let variance = 0;
  rows.forEach((row, r) => {
    let square = 0;
    for (let i = 0; i < n; i++) square += (row[i]! - mean[i]!) ** 2;
    variance += weights[r]! * square / (count - 1);
  });
  return { mean, variance };
}

/** `row' matrix` for a lower triangular matrix. */
function times(row: Float64Array, lower: Float64Array): Float64Array {
  const n = row.length;
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) out[j]! += row[i]! * lower[i * n + j]!;
  }
  return out;
}

function trace(matrix: Float64Array, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += matrix[i * n + i]!;
  return sum;
}
