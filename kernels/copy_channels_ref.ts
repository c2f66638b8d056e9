/** Float64 definition of `copy_channels`. */
import type { Params } from "./backend.ts";

/** Bindings x, out. */
export function copyChannelsRef(
  [x, out]: readonly Float64Array[],
  p: Params,
): void {
  const { batch = 0, run = 1, xStride = 0, outStride = 0, from_ = 0, to_ = 0 } =
    p;
  for (let b = 0; b < batch; b++) {
    out!.set(
      x!.subarray(b * xStride + from_, b * xStride + from_ + run),
      b * outStride + to_,
    );
  }
}
