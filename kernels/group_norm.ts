/** Group normalisation, with an optional SiLU behind it. */
import wgsl from "./group_norm.wgsl" with { type: "text" };
import mergeWgsl from "./group_norm_merge.wgsl" with { type: "text" };
import statsWgsl from "./group_norm_stats.wgsl" with { type: "text" };
import {
  type Backend,
  channelMajor,
  expectSize,
  type Kernel,
  record,
  runGroups,
  type Tensor,
} from "./backend.ts";
import {
  groupNormMergeRef,
  groupNormRef,
  groupNormStatsRef,
} from "./group_norm_ref.ts";

const STATS: Kernel = {
  name: "group_norm_stats",
  wgsl: statsWgsl,
  bindings: "rrrrrw",
  params: ["count", "cells", "groups", "part", "eps:f"],
  ref: groupNormStatsRef,
};
const MERGE: Kernel = {
  name: "group_norm_merge",
  wgsl: mergeWgsl,
  bindings: "rw",
  params: ["count", "part", "parts", "eps:f"],
  ref: groupNormMergeRef,
};
const APPLY: Kernel = {
  name: "group_norm",
  wgsl,
  bindings: "rrrrrrw",
  params: ["planes", "count", "cells", "groups"],
  ref: groupNormRef,
};

/** Numbers of a part, at least: that many a workgroup reads as fast as another run starts. An estimate. */
const PART = 2 ** 14;
/** Parts of a group at most: one per thread of `group_norm_merge`. */
const PARTS = 64;

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
  const part = partSize(backend, count);
  const parts = Math.ceil(count / part);
  const params = { planes, blocks, count, cells, groups, part, parts, eps };
  const software = backend.family === "software";
  const WG = software ? 64 : 256;
  // What belongs to a plane is worked out by eights of threads on a processor, by workgroups on a GPU.
  const perPlane = software ? 8 : cells > 64 ? WG : 64;
  /** Statistics of the groups into `stats`; with `GRAD` sums, given those statistics. */
  const reduce = (
    { g, forward, stats, ...constants }: {
      readonly g: Tensor;
      readonly forward: Tensor;
      readonly stats: Tensor;
      readonly GRAD: number;
      readonly SILU: number;
    },
  ): void => {
    using found = parts > 1
      ? backend.alloc([blocks, parts, 2])
      : stats.retain();
    // One axis of the grid is enough: batch * groups stays far below 65,535.
    backend.dispatch(STATS, {
      bind: [x, weight, bias, g, forward, found],
      params,
      constants: { WG, ...constants, PARTS: Number(parts > 1) },
      groups: [blocks, parts, 1],
    });
    if (parts === 1) return;
    backend.dispatch(MERGE, {
      bind: [found, stats],
      params,
      constants: { GRAD: constants.GRAD },
      groups: [blocks, 1, 1],
    });
  };
  const apply = (
    { g, stats, sums, GRAD }: {
      readonly g: Tensor;
      readonly stats: Tensor;
      readonly sums: Tensor;
      readonly GRAD: number;
    },
  ): Tensor => {
    const out = backend.alloc(x.shape);
    backend.dispatch(APPLY, {
      bind: [x, weight, bias, g, stats, sums, out],
      params,
      constants: { WG: perPlane, GRAD, SILU },
      groups: runGroups(planes, cells),
    });
    return out;
  };
  const SILU = Number(silu);
  using stats = backend.alloc([blocks, 2]);
  reduce({ g: x, forward: x, stats, GRAD: 0, SILU: 0 });
  const out = apply({ g: x, stats, sums: stats, GRAD: 0 });
  record([out], [x], [x, stats], ([g]) => {
    using sums = backend.alloc([blocks, 2]);
    reduce({ g: g!, forward: stats, stats: sums, GRAD: 1, SILU });
    return [apply({ g: g!, stats, sums, GRAD: 1 })];
  });
  return out;
}

/** Numbers of a group that one workgroup adds up. The batch has no say: it would change the sums. */
function partSize({ family }: Backend, count: number): number {
  if (family === "software" || count <= 2 * PART) return count;
  return Math.max(PART, Math.ceil(count / PARTS));
}
