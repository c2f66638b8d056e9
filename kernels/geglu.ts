/** The gated activation of the transformer's feed-forward layer. */
import wgsl from "./geglu.wgsl" with { type: "text" };
import erfWgsl from "./erf.wgsl" with { type: "text" };
import {
  channelMajor,
  type Kernel,
  record,
  runGroups,
  type Tensor,
} from "./backend.ts";
import { gegluRef } from "./geglu_ref.ts";

const KERNEL: Kernel = {
  name: "geglu",
  wgsl: erfWgsl + wgsl,
  bindings: "rrw",
  params: ["batch", "plane"],
  ref: gegluRef,
};

/**
 * `v gelu(u)` with `[v, u]` the two halves of the channels, gelu in its exact erf form.
 *
 * @param x `[batch, 2 inner, ...space]`.
 * @returns `[batch, inner, ...space]`. Differentiable; saves `x`.
 * @throws {RangeError} If the number of channels is odd.
 * @see Shazeer 2020, arXiv:2002.05202.
 */
export function geglu(x: Tensor): Tensor {
  const [batch, channels, cells] = channelMajor(x, "geglu");
  if (channels % 2) {
    throw new RangeError(
      `Cannot run geglu: the number of channels must be even: current shape is [${x.shape}]`,
    );
  }
  const params = {
    batch,
    plane: channels / 2 * cells,
  };
  const out = x.backend.alloc([batch, channels / 2, ...x.shape.slice(2)]);
  const groups = runGroups(batch, params.plane);
  x.backend.dispatch(KERNEL, {
    bind: [x, x, out],
    params,
    constants: { GRAD: 0 },
    groups,
  });
  record([out], [x], [x], ([g]) => {
    const dx = x.backend.alloc(x.shape);
    x.backend.dispatch(KERNEL, {
      bind: [x, g!, dx],
      params,
      constants: { GRAD: 1 },
      groups,
    });
    return [dx];
  });
  return out;
}
