/** Activations and their vjps. */
import wgsl from "./activation.wgsl" with { type: "text" };
import erfWgsl from "./erf.wgsl" with { type: "text" };
import foursWgsl from "./fours.wgsl" with { type: "text" };
import { activationRef, ACTIVATIONS } from "./activation_ref.ts";
import { type Kernel, record, runGroups, type Tensor } from "./backend.ts";

const KERNEL: Kernel = {
  name: "activation",
  wgsl: foursWgsl + erfWgsl + wgsl,
  bindings: "rrw",
  params: ["count"],
  ref: activationRef,
};

/** Which activation: `gelu` is the exact erf form, `quick_gelu` is `x sigmoid(1.702 x)`. */
export type Activation = "silu" | "gelu" | "quick_gelu";

/**
 * `f(x)`, element by element.
 *
 * @param x Any shape.
 * @returns Shape of `x`. Differentiable; saves `x`.
 */
export function activation(x: Tensor, kind: Activation): Tensor {
  const out = run(x, x, kind, false);
  record([out], [x], [x], ([g]) => [run(x, g!, kind, true)]);
  return out;
}

function run(x: Tensor, g: Tensor, kind: Activation, grad: boolean): Tensor {
  const out = x.backend.alloc(x.shape);
  x.backend.dispatch(KERNEL, {
    bind: [x, g, out],
    params: { count: x.size },
    constants: { KIND: ACTIVATIONS.indexOf(kind), GRAD: Number(grad) },
    groups: runGroups(1, x.size),
  });
  return out;
}
