/** Float64 definition of `guided_step`. */
import type { Params } from "./backend.ts";

/** Bindings z, outputs, next, clean. */
export function guidedStepRef(bind: readonly Float64Array[], p: Params): void {
  const [z, outputs, next, clean] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { count = 0, scale = 1, a = 1, b = 0, c0 = 1, d = 0 } = p;
  for (let i = 0; i < count; i++) {
    const e = outputs[i]! + scale * (outputs[count + i]! - outputs[i]!);
    next[i] = a * z[i]! + b * e;
    clean[i] = c0 * z[i]! + d * e;
  }
}
