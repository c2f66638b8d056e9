/** Float64 definition of `combine`. */
import type { Params } from "./backend.ts";

/** `out = alpha x + beta y`. */
export function combineRef(
  bind: readonly Float64Array[],
  { count = 0, alpha = 0, beta = 0 }: Params,
): void {
  const [x, y, out] = bind as [Float64Array, Float64Array, Float64Array];
  for (let i = 0; i < count; i++) out[i] = alpha * x[i]! + beta * y[i]!;
}
