/** Float64 definition of `dot`. */
import type { Params } from "./backend.ts";

/** Bindings x, y, out. */
export function dotRef([x, y, out]: readonly Float64Array[], p: Params): void {
  const { batch = 0, count = 0, slot = 0, stride = 0 } = p;
  for (let b = 0; b < batch; b++) {
    let sum = 0;
    for (let i = b * count; i < (b + 1) * count; i++) sum += x![i]! * y![i]!;
    out![slot + b * stride] = sum;
  }
}
