/** Inner products per item of a batch, kept on the device. */
import wgsl from "./dot.wgsl" with { type: "text" };
import { expectSize, type Kernel, type Tensor } from "./backend.ts";
import { dotRef } from "./dot_ref.ts";

const KERNEL: Kernel = {
  name: "dot",
  wgsl,
  bindings: "rrw",
  params: ["count", "slot", "stride"],
  ref: dotRef,
};

/**
 * `out[slot + b stride] = sum_i x[b, i] y[b, i]`.
 *
 * @param x `[batch, ...]`.
 * @param y Like `x`; `x` itself gives squared norms.
 * @param out Where the numbers go.
 */
export function dotInto(
  x: Tensor,
  y: Tensor,
  out: Tensor,
  { slot, stride }: { slot: number; stride: number },
): void {
  const batch = x.shape[0] ?? 0;
  expectSize(y, x.size, "dot");
  if (batch < 1 || slot + (batch - 1) * stride >= out.size) {
    throw new RangeError(
      `Cannot run dot: slots must lie in the output: current ${slot} + ${batch} x ${stride} of ${out.size}`,
    );
  }
  x.backend.dispatch(KERNEL, {
    bind: [x, y, out],
    params: { batch, count: x.size / batch, slot, stride },
    groups: [batch, 1, 1],
  });
}
