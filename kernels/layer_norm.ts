/** Layer normalisation over channels. */
import wgsl from "./layer_norm.wgsl" with { type: "text" };
import foursWgsl from "./layer_norm_fours.wgsl" with { type: "text" };
import {
  type Backend,
  channelMajor,
  expectSize,
  foldGroups,
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
/** For four cells a thread. */
const FOURS: Kernel = {
  ...KERNEL,
  name: "layer_norm_fours",
  wgsl: foursWgsl,
};
/** Columns of its workgroups. */
const FOURS_COLUMNS = 32;

/** Workgroups that keep a large GPU busy; with fewer, they get fewer columns. An estimate. */
const ENOUGH = 256;

/**
 * How 256 threads, what every device allows, share the columns: 8 neighbouring numbers are what GPUs
 * read at once. The batch has no say, as the order of a sum depends on the lanes. Processors get a
 * thread per column, without barriers.
 */
function tile({ family }: Backend, cells: number) {
  if (family === "software") return { COLUMNS: 64, LANES: 1 };
  const COLUMNS = [32, 16].find((n) => cells >= n * ENOUGH) ?? 8;
  return { COLUMNS, LANES: 256 / COLUMNS };
}

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
  const fours = x.backend.family === "software" && cells % 4 === 0;
  const tiles = tile(x.backend, cells);
  const [kernel, columns] = fours
    ? [FOURS, FOURS_COLUMNS]
    : [KERNEL, tiles.COLUMNS];
  const run = (g: Tensor, GRAD: number): Tensor => {
    const out = x.backend.alloc(x.shape);
    x.backend.dispatch(kernel, {
      bind: [x, weight, bias, g, out],
      params,
      constants: fours ? { GRAD } : { ...tiles, GRAD },
      groups: foldGroups(Math.ceil(params.columns / columns)),
    });
    return out;
  };
  const out = run(x, 0);
  record([out], [x], [x], ([g]) => [run(g!, 1)]);
  return out;
}
