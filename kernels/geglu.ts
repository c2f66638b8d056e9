/** The gated activation of the transformer's feed-forward layer. */
import wgsl from "./geglu.wgsl" with { type: "text" };
import erfWgsl from "./erf.wgsl" with { type: "text" };
import foursWgsl from "./fours.wgsl" with { type: "text" };
import onesWgsl from "./ones.wgsl" with { type: "text" };
import {
  channelMajor,
  expectSize,
  type Kernel,
  record,
  runGroups,
  type Tensor,
} from "./backend.ts";
import { gegluRef } from "./geglu_ref.ts";
import { gemmTexel, texelFitsGated, texelPays } from "./gemm_texel.ts";
import { linear } from "./linear.ts";

const KERNEL: Kernel = {
  name: "geglu_fours",
  wgsl: foursWgsl + erfWgsl + wgsl,
  bindings: "rrw",
  params: ["batch", "plane"],
  ref: gegluRef,
};
/** Where a half of the channels does not come in fours. */
const ONES: Kernel = {
  ...KERNEL,
  name: "geglu_ones",
  wgsl: onesWgsl + erfWgsl + wgsl,
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
  const kernel = params.plane % 4 ? ONES : KERNEL;
  x.backend.dispatch(kernel, {
    bind: [x, x, out],
    params,
    constants: { GRAD: 0 },
    groups,
  });
  record([out], [x], [x], ([g]) => {
    const dx = x.backend.alloc(x.shape);
    x.backend.dispatch(kernel, {
      bind: [x, g!, dx],
      params,
      constants: { GRAD: 1 },
      groups,
    });
    return [dx];
  });
  return out;
}

/**
 * `geglu` of a linear layer. Where no tape records, the software family makes both in one kernel, with the same
 * numbers.
 *
 * @param x `[batch, in, ...space]`.
 * @param weight `[2 inner, in]`: values, then their gates.
 * @param bias `[2 inner]`.
 * @returns `[batch, inner, ...space]`. Differentiable in `x`.
 */
export function linearGeglu(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const [batch, channels, cells] = channelMajor(x, "geglu");
  const inner = bias.size / 2;
  expectSize(weight, bias.size * channels, "geglu weight");
  const { backend } = x;
  const params = {
    Z: batch,
    M: inner,
    N: cells,
    K: channels,
    am: channels,
    ak: 1,
    bn: 1,
    bk: cells,
    ldc: cells,
    sa: 0,
    sb: channels * cells,
    sc: inner * cells,
    oa: 0,
    ob: 0,
    oc: 0,
    shiftFirst: 0,
    shiftStride: 0,
    gate: inner,
    flags: 1, // a bias
  };
  if (
    !backend.tape && backend.family === "software" && backend.kind !== "cpu" &&
    texelPays(bias.size * cells * channels) &&
    texelFitsGated(weight.type, params)
  ) {
    const out = backend.alloc([batch, inner, ...x.shape.slice(2)]);
    gemmTexel({ bind: [weight, x, bias, weight, weight, out], params });
    return out;
  }
  using wide = linear(x, weight, { bias });
  return geglu(wide);
}
