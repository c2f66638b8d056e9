/** Layer normalisation over channels. */
import wgsl from "./layer_norm.wgsl" with { type: "text" };
import {
  channelMajor,
  elementGroups,
  expectSize,
  type Kernel,
  record,
  type Tensor,
} from "./backend.ts";
import { layerNormRef } from "./layer_norm_ref.ts";

const KERNEL: Kernel = {
  name: "layer_norm",
  wgsl,
  bindings: "rrrrw",
  params: ["columns", "channels", "cells", "eps:f"],
  ref: layerNormRef,
};

/**
 * `(x - mean) / sqrt(variance + eps) weight + bias` over the channels of each token.
 *
 * @param x `[batch, channels, ...space]`.
 * @param weight `[channels]`.
 * @param bias `[channels]`.
 * @returns Shape of `x`. Differentiable in `x`; saves `x`.
 * @see Ba et al. 2016, arXiv:1607.06450.
 */
export function layerNorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  eps: number,
): Tensor {
  const [batch, channels, cells] = channelMajor(x, "layer_norm");
  expectSize(weight, channels, "layer_norm");
  expectSize(bias, channels, "layer_norm");
  const params = { columns: batch * cells, channels, cells, eps };
  const run = (g: Tensor, GRAD: number): Tensor => {
    const out = x.backend.alloc(x.shape);
    x.backend.dispatch(KERNEL, {
      bind: [x, weight, bias, g, out],
      params,
      constants: { GRAD },
      groups: elementGroups(params.columns),
    });
    return out;
  };
  const out = run(x, 0);
  record([out], [x], [x], ([g]) => [run(g!, 1)]);
  return out;
}
