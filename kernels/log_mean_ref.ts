/** Float64 definition of `log_mean` and its vjp. */
import type { Params } from "./backend.ts";

/** Bindings x, runs, y, grad, out. */
export function logMeanRef(
  bind: readonly Float64Array[],
  p: Params,
  { GRAD = 0 }: Params,
): void {
  const [x, runs, y, grad, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { count = 0, members = 1, inner = 1, groups = 1 } = p;
  for (let i = 0; i < count; i++) {
    const [first = 0, size = 0] = runs.subarray(
      2 * (Math.floor(i / inner) % groups),
    );
    const start = (Math.floor(i / inner / groups) * members + first) * inner +
      i % inner;
    let high = -Infinity, sum = 0;
    for (let m = 0; m < size; m++) high = Math.max(high, x[start + m * inner]!);
    for (let m = 0; m < size; m++) {
      const at = start + m * inner;
      if (GRAD) out[at] = grad[i]! * Math.exp(x[at]! - y[i]!) / size;
      else sum += Math.exp(x[at]! - high);
    }
    if (!GRAD) out[i] = high + Math.log(sum / size);
  }
}
