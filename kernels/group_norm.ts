/** Group normalisation, with an optional SiLU behind it. */
import wgsl from "./group_norm.wgsl" with { type: "text" };
import statsWgsl from "./group_norm_stats.wgsl" with { type: "text" };
import {
  channelMajor,
  expectSize,
  type Kernel,
  record,
  runGroups,
  type Tensor,
} from "./backend.ts";
import { groupNormRef, groupNormStatsRef } from "./group_norm_ref.ts";

const STATS: Kernel = {
  name: "group_norm_stats",
  wgsl: statsWgsl,
  bindings: "rrrrrw",
  params: ["count", "cells", "groups", "eps:f"],
  ref: groupNormStatsRef,
};
const APPLY: Kernel = {
  name: "group_norm",
  wgsl,
  bindings: "rrrrrrw",
  params: ["planes", "count", "cells", "groups"],
  ref: groupNormRef,
};

/** Options of `groupNorm`. */
export interface GroupNormOptions {
  /** Number of groups; divides the channels. */
  readonly groups: number;
  /** Added to the variance. */
  readonly eps: number;
  /** Apply SiLU to the result. Default false. */
  readonly silu?: boolean;
}

/**
 * `act((x - mean) / sqrt(variance + eps) weight + bias)`, mean and biased variance over each group.
 *
 * @param x `[batch, channels, ...space]`.
 * @param weight `[channels]`.
 * @param bias `[channels]`.
 * @returns Shape of `x`. Differentiable in `x`; saves `x`, mean and 1/std.
 * @throws {RangeError} If the groups do not divide the channels.
 * @see Wu and He 2018, arXiv:1803.08494.
 */
export function groupNorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  options: GroupNormOptions,
): Tensor {
  const [batch, channels, cells] = channelMajor(x, "group_norm");
  const { groups, eps, silu = false } = options;
  if (channels % groups) {
    throw new RangeError(
      `Cannot run group_norm: ${groups} groups must divide the channels: current shape is [${x.shape}]`,
    );
  }
  expectSize(weight, channels, "group_norm");
  expectSize(bias, channels, "group_norm");
  const backend = x.backend;
  const blocks = batch * groups;
  const count = channels / groups * cells;
  const planes = batch * channels;
  const params = { planes, blocks, count, cells, groups, eps };
  const SILU = Number(silu);
  using stats = backend.alloc([blocks, 2]);
  const out = backend.alloc(x.shape);
  // One axis of the grid is enough: batch * groups stays far below 65,535.
  const blockGroups = [blocks, 1, 1] as const;
  backend.dispatch(STATS, {
    bind: [x, weight, bias, x, x, stats],
    params,
    constants: { GRAD: 0, SILU: 0 },
    groups: blockGroups,
  });
  backend.dispatch(APPLY, {
    bind: [x, weight, bias, x, stats, stats, out],
    params,
    constants: { GRAD: 0, SILU },
    groups: runGroups(planes, cells),
  });
  record([out], [x], [x, stats], ([g]) => {
    using sums = backend.alloc([blocks, 2]);
    const dx = backend.alloc(x.shape);
    backend.dispatch(STATS, {
      bind: [x, weight, bias, g!, stats, sums],
      params,
      constants: { GRAD: 1, SILU },
      groups: blockGroups,
    });
    backend.dispatch(APPLY, {
      bind: [x, weight, bias, g!, stats, sums, dx],
      params,
      constants: { GRAD: 1, SILU },
      groups: runGroups(planes, cells),
    });
    return [dx];
  });
  return out;
}
