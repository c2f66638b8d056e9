/** Float64 definition of the adaptive Langevin update. */
import type { Params } from "./backend.ts";

/** Bindings x, y, n, state, out; see `langevin.wgsl`. */
export function langevinRef(
  bind: readonly Float64Array[],
  p: Params,
  { UPDATE = 0 }: Params,
): void {
  const [x, y, n, state, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const {
    count = 1,
    total = 0,
    noiseLevel = 1,
    factor = 1,
    snr = 0,
    guard = 0,
    expected = 0,
  } = p;
  for (let b = 0; b * count < total; b++) {
    const [eps2 = 0, grad2 = 0, g2 = 0, n2 = 0, kept = 0] = state.subarray(
      6 * b,
      6 * b + 6,
    );
    const score = Math.sqrt(eps2) / noiseLevel;
    const nu = !p.adapt
      ? kept
      : p.adapt === 2
      ? p.nu!
      : grad2 > 1e-38
      ? factor * score / Math.sqrt(grad2)
      : 0;
    const noise = Math.sqrt(expected > 0 ? expected : n2);
    const xi = 2 * (snr * noise / Math.max(Math.sqrt(g2), guard * score)) ** 2;
    for (let i = b * count; i < (b + 1) * count; i++) {
      out[i] = UPDATE
        ? x[i]! + xi * y[i]! + Math.sqrt(2 * xi) * p.noise! * n[i]!
        : -x[i]! / noiseLevel - nu * y[i]!;
    }
    if (UPDATE) state[6 * b + 5] = xi;
    else state[6 * b + 4] = nu;
  }
}
