/** The tolerance of the golden files: how far a tensor may lie from the expected one. */
import type { Floats } from "../../kernels/backend.ts";

/** How far the reference itself moves between float64 and float32; `float32_noise` of the index. */
export interface Noise {
  /** Largest difference. */
  readonly max_abs: number;
  /** Norm of the difference over the norm of the values. */
  readonly rel_l2: number;
  /** Largest value. */
  readonly ref_max_abs: number;
}

/** One expected tensor and what came out. */
export interface Check {
  /** Name in the file, without `expected.`. */
  readonly tensor: string;
  /** Norm of the difference over the norm of the expected values. */
  readonly relL2: number;
  /** Bound on `relL2`. */
  readonly relL2Bound: number;
  /** Largest difference. */
  readonly maxAbs: number;
  /** Bound on `maxAbs`. */
  readonly maxAbsBound: number;
  /** The larger of the two errors as a share of its bound: above 1 fails. */
  readonly ratio: number;
  /** What is wrong, if something is. */
  readonly problem?: string;
}

/**
 * Compares by the rule in `conventions.tolerance`.
 *
 * `rel_l2 <= max(10 noise.rel_l2, 1e-6)` and
 * `max_abs <= max(20 noise.max_abs, 2e-6 noise.ref_max_abs)`.
 *
 * @param tensor Its name.
 * @param actual What came out.
 * @param expected What should.
 * @param noise Of this tensor; without it the values must be equal.
 * @returns The errors; `problem` is set if the check fails.
 */
export function compare(
  tensor: string,
  actual: ArrayLike<number>,
  expected: Floats | Int32Array,
  noise: Noise | undefined,
): Check {
  const relL2Bound = noise ? Math.max(10 * noise.rel_l2, 1e-6) : 0;
  const maxAbsBound = noise
    ? Math.max(20 * noise.max_abs, 2e-6 * noise.ref_max_abs)
    : 0;
  const bounds = { tensor, relL2Bound, maxAbsBound };
  const fail = (problem: string): Check => ({
    ...bounds,
    relL2: Infinity,
    maxAbs: Infinity,
    ratio: Infinity,
    problem,
  });
  if (actual.length !== expected.length) {
    return fail(`holds ${actual.length} numbers instead of ${expected.length}`);
  }
  let error = 0, power = 0, maxAbs = 0;
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i]!, e = expected[i]!;
    if (!Number.isFinite(a)) return fail(`number ${i} is ${a}`);
    if (!Number.isFinite(e)) return fail(`expected number ${i} is ${e}`);
    const d = Math.abs(a - e);
    error += d * d;
    power += e * e;
    maxAbs = Math.max(maxAbs, d);
  }
  const relL2 = error === 0 ? 0 : Math.sqrt(error / power);
  const ratio = Math.max(share(relL2, relL2Bound), share(maxAbs, maxAbsBound));
  const check = { ...bounds, relL2, maxAbs, ratio };
  return ratio <= 1 ? check : { ...check, problem: "is outside its tolerance" };
}

function share(error: number, bound: number): number {
  return error === 0 ? 0 : error / bound;
}
