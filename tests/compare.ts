/** Seeded inputs, and errors that are worth comparing with a bound. */
import { strict as assert } from "node:assert";
import process from "node:process";
import type { Floats } from "../kernels/backend.ts";

/** Unit roundoff of float32: one rounding changes a number by at most this share of it. */
export const U = 2 ** -24;

/**
 * Bound on the relative L2 error of sums of `length` rounded products in float32.
 *
 * Each of the two kinds of rounding is at most U of what it rounds; over a sum in a row the errors
 * add like a random walk, so they grow with the square root of the length (Higham and Mary 2019,
 * SIAM J. Sci. Comput. 41). With zero-mean terms about 0.4 U sqrt(length) is expected.
 */
export function sumBound(length: number): number {
  return U * (2 + Math.sqrt(length));
}

/** What `compare` measures. */
export interface Difference {
  /** `sum (actual - expected)^2 / sum expected^2`; the plain sum where `expected` is all zeros. */
  readonly nmse: number;
  /** Square root of `nmse`. */
  readonly relL2: number;
  /** The largest `|actual - expected|`. */
  readonly maxAbs: number;
  /** The largest `|expected|`. */
  readonly refMax: number;
}

/** `n` numbers, uniform in `[-scale, scale)`, exact in float32, the same on every engine. */
export function rand(seed: number, n: number, scale = 1): Float32Array {
  const out = new Float32Array(n);
  let state = (seed ^ 0x9e3779b9) >>> 0;
  for (let i = 0; i < n; i++) { // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    out[i] = scale * (((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1);
  }
  return out;
}

/** How far apart two arrays are. Fails where the lengths differ or a number is not finite. */
export function compare(actual: Floats, expected: Floats): Difference {
  assert.equal(actual.length, expected.length, "lengths differ");
  let error = 0, power = 0, maxAbs = 0, refMax = 0;
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i]!, e = expected[i]!;
    if (!Number.isFinite(a) || !Number.isFinite(e)) {
      assert.fail(`number ${i} is not finite: ${a}, expected ${e}`);
    }
    const d = Math.abs(a - e);
    error += d * d;
    power += e * e;
    maxAbs = Math.max(maxAbs, d);
    refMax = Math.max(refMax, Math.abs(e));
  }
  const nmse = power > 0 ? error / power : error;
  return { nmse, relL2: Math.sqrt(nmse), maxAbs, refMax };
}

/** Bounds of `assertClose`. */
export interface Bounds {
  /** On the relative L2 error. */
  readonly relL2: number;
  /** On the largest absolute error. */
  readonly maxAbs?: number;
}

/** Fails unless two arrays are as close as the bounds say. */
export function assertClose(
  actual: Floats,
  expected: Floats,
  bounds: Bounds,
  label: string,
): void {
  let found: Difference;
  try {
    found = compare(actual, expected);
  } catch (cause) {
    throw new Error(`${label}: ${(cause as Error).message}`, { cause });
  }
  const { relL2, maxAbs = Infinity } = bounds;
  if (process.env.WINWINLAY_TEST_ERRORS) {
    // Every error as a share of its bound, to see how tight the bounds are.
    const share = found.relL2 ? found.relL2 / relL2 : 0;
    const largest = found.maxAbs ? found.maxAbs / maxAbs : 0;
    console.log(
      `error/bound ${Math.max(share, largest).toFixed(3)} ${label}`,
    );
  }
  assert.ok(
    found.relL2 <= relL2 && found.maxAbs <= maxAbs,
    `${label}: relL2 ${found.relL2} (bound ${relL2}), maxAbs ${found.maxAbs} (bound ${maxAbs}), refMax ${found.refMax}`,
  );
}
