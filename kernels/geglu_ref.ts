/** Float64 definition of `geglu` and its vjp. */
import { gelu, geluSlope } from "./activation_ref.ts";
import type { Params } from "./backend.ts";

/** `out = v gelu(u)`, or with GRAD the gradient on `[v, u]`; bindings x, g, out. */
export function gegluRef(
  bind: readonly Float64Array[],
  { batch = 0, plane = 1 }: Params,
  { GRAD = 0 }: Params,
): void {
  const [x, g, out] = bind as [Float64Array, Float64Array, Float64Array];
  for (let i = 0; i < batch * plane; i++) {
    const at = i + Math.floor(i / plane) * plane;
    const v = x[at]!;
    const u = x[at + plane]!;
    if (GRAD) {
      out[at] = g[i]! * gelu(u);
      out[at + plane] = g[i]! * v * geluSlope(u);
    } else out[i] = v * gelu(u);
  }
}
