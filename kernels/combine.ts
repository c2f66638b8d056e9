/** Weighted sums of tensors: residual additions, classifier-free guidance, gradient accumulation. */
import wgsl from "./combine.wgsl" with { type: "text" };
import foursWgsl from "./fours.wgsl" with { type: "text" };
import {
  expectSize,
  type Kernel,
  record,
  runGroups,
  type Tensor,
} from "./backend.ts";
import { combineRef } from "./combine_ref.ts";

const KERNEL: Kernel = {
  name: "combine",
  wgsl: foursWgsl + wgsl,
  bindings: "rrw",
  params: ["count", "alpha:f", "beta:f"],
  ref: combineRef,
};

/**
 * `alpha x + beta y`, element by element.
 *
 * @param x Any shape.
 * @param y As many elements as `x`.
 * @returns Shape of `x`. Differentiable in both.
 */
export function combine(
  x: Tensor,
  alpha: number,
  y: Tensor,
  beta: number,
): Tensor {
  expectSize(y, x.size, "combine");
  const out = x.backend.alloc(x.shape);
  x.backend.dispatch(KERNEL, {
    bind: [x, y, out],
    params: { count: x.size, alpha, beta },
    groups: runGroups(1, x.size),
  });
  record([out], [x, y], [], ([g], needs) => [
    needs[0] ? scaled(g!, alpha) : undefined,
    needs[1] ? scaled(g!, beta) : undefined,
  ]);
  return out;
}

/** `x + y`. */
export function add(x: Tensor, y: Tensor): Tensor {
  return combine(x, 1, y, 1);
}

function scaled(g: Tensor, factor: number): Tensor {
  return factor === 1 ? g.retain() : combine(g, factor, g, 0);
}
