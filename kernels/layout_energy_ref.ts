/** Float64 definition of `layout_energy`, on probabilities as the papers print it. */
import type { Params } from "./backend.ts";

/** Bindings logA, mask, logTau, rows, rho, h, terms; see `layout_energy.wgsl`. */
export function layoutEnergyRef(
  bind: readonly Float64Array[],
  p: Params,
  { REVERSE = 0 }: Params,
): void {
  const [logA, mask, logTau, rows, [rho = 0], h, terms] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { count = 0, tokens = 1, cells = 1 } = p;
  for (let r = 0; r < count; r++) {
    const start = r * cells;
    const [region = 0, firstPrior = 0, priors = 0, weight = 0] = rows.subarray(
      r % tokens * 4,
      r % tokens * 4 + 4,
    );
    let high = -Infinity;
    for (let u = 0; u < cells; u++) high = Math.max(high, logA[start + u]!);
    let sum = 0, inside = 0;
    for (let u = 0; u < cells; u++) {
      const a = Math.exp(logA[start + u]! - high);
      sum += a;
      inside += mask[region * cells + u]! * a;
    }
    const f = inside / sum;
    for (let u = 0; u < cells; u++) {
      const a = Math.exp(logA[start + u]! - high) / sum;
      h[start + u] = -2 * weight * (1 - f) * (mask[region * cells + u]! - f) *
        a;
    }
    let nap = 0;
    for (let j = 0; j < priors && rho !== 0; j++) {
      const tau = logTau.subarray(
        (firstPrior + j) * cells,
        (firstPrior + j + 1) * cells,
      );
      let peak = -Infinity, boxSum = 0, kl = 0;
      for (let u = 0; u < cells; u++) {
        if (tau[u]! > -1e30) peak = Math.max(peak, logA[start + u]!);
      }
      for (let u = 0; u < cells; u++) {
        if (tau[u]! > -1e30) boxSum += Math.exp(logA[start + u]! - peak);
      }
      const logHat = (u: number): number =>
        logA[start + u]! - peak - Math.log(boxSum);
      for (let u = 0; u < cells; u++) {
        if (tau[u]! > -1e30) {
          kl += REVERSE
            ? Math.exp(tau[u]!) * (tau[u]! - logHat(u))
            : Math.exp(logHat(u)) * (logHat(u) - tau[u]!);
        }
      }
      for (let u = 0; u < cells; u++) {
        if (tau[u]! > -1e30) {
          const slope = REVERSE
            ? Math.exp(logHat(u)) - Math.exp(tau[u]!)
            : Math.exp(logHat(u)) * (logHat(u) - tau[u]! - kl);
          h[start + u] = h[start + u]! + weight * rho / priors * slope;
        }
      }
      nap += kl / priors;
    }
    terms.set([(1 - f) ** 2, nap, f], 3 * r);
  }
}
