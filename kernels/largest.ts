/** How large the numbers of a tensor are, kept on the device. */
import wgsl from "./largest.wgsl" with { type: "text" };
import type { Kernel, Tensor } from "./backend.ts";
import { largestRef } from "./largest_ref.ts";

const KERNEL: Kernel = {
  name: "largest",
  wgsl,
  bindings: "rw",
  params: ["fours"],
  ref: largestRef,
};

/** Workgroups, as in the kernel. */
export const PEAKS = 64;

/**
 * The largest sizes of numbers.
 *
 * @param x Its size is a multiple of 4.
 * @returns `[64]`, the largest of which is the largest |x|.
 */
export function largest(x: Tensor): Tensor {
  if (x.size % 4) {
    throw new RangeError(
      `Cannot run largest: the size must be a multiple of 4: current shape is [${x.shape}]`,
    );
  }
  const out = x.backend.alloc([PEAKS]);
  x.backend.dispatch(KERNEL, {
    bind: [x, out],
    params: { fours: x.size / 4 },
    groups: [PEAKS, 1, 1],
  });
  return out;
}
