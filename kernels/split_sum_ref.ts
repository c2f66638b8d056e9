/** Float64 definition of `split_sum`. */
import type { Params } from "./backend.ts";

/** Bindings sums, bias, shift, residual, c; see `split_sum.wgsl`. */
export function splitSumRef(
  bind: readonly Float64Array[],
  p: Params,
  flags: Params,
): void {
  const [sums, bias, shift, residual, c] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { count = 0, M = 1, N = 1, parts = 1, alpha = 1 } = p;
  const { ldc = 0, sc = 0, oc = 0, shiftStride = 0, shiftFirst = 0 } = p;
  const size = M * N;
  for (let i = 0; i < count; i++) {
    const z = Math.floor(i / size);
    const m = Math.floor(i % size / N);
    let sum = 0;
    for (let part = 0; part < parts; part++) {
      sum += sums[(z * parts + part) * size + i % size]!;
    }
    const at = oc + z * sc + m * ldc + i % N;
    c[at] = alpha * sum + (flags.BIAS ? bias[m]! : 0) +
      (flags.SHIFT ? shift[shiftFirst + z * shiftStride + m]! : 0) +
      (flags.RESIDUAL ? residual[at]! : 0) + (flags.ACCUMULATE ? c[at]! : 0);
  }
}
