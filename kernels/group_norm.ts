/** Group normalisation, with an optional SiLU behind it. */
import wgsl from "./group_norm.wgsl" with { type: "text" };
import applyWgsl from "./group_norm_apply.wgsl" with { type: "text" };
import mergeWgsl from "./group_norm_merge.wgsl" with { type: "text" };
import statsWgsl from "./group_norm_stats.wgsl" with { type: "text" };
import wholeWgsl from "./group_norm_whole.wgsl" with { type: "text" };
import {
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
  groupNormWholeRef,
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
  wgsl: applyWgsl + wgsl,
  bindings: "rrrrrrw",
  params: ["planes", "count", "cells", "groups"],
  ref: groupNormRef,
};
const WHOLE: Kernel = {
  name: "group_norm_whole",
  wgsl: applyWgsl + wholeWgsl,
  bindings: "rrrrww",
  params: ["count", "cells", "groups", "eps:f"],
  ref: groupNormWholeRef,
};

/** Threads of a workgroup, but of `group_norm_whole`. */
const THREADS = 256;
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
  const SILU = Number(silu);
  const params = { planes, blocks, count, cells, groups, eps };
  using stats = backend.alloc([blocks, 2]);
  const run = backend.family === "software" && cells % 4 === 0
    ? whole
    : inParts;
  const inputs = { x, weight, bias, stats };
  const out = run(inputs, undefined, params, SILU);
  record([out], [x], [x, stats], ([g]) => [run(inputs, g!, params, SILU)]);
  return out;
}

/** What the kernels read, and the statistics, which they write first. */
interface Inputs {
  readonly x: Tensor;
  readonly weight: Tensor;
  readonly bias: Tensor;
  /** `[batch * groups, 2]`, mean and 1 / std. */
  readonly stats: Tensor;
}

/** Sizes that the kernels share. */
interface Sizes {
  readonly planes: number;
  readonly blocks: number;
  readonly count: number;
  readonly cells: number;
  readonly groups: number;
  readonly eps: number;
}

/** One run for each way, the norm, or of `g` the gradient, where cells come in fours. */
function whole(
  { x, weight, bias, stats }: Inputs,
  g: Tensor | undefined,
  sizes: Sizes,
  SILU: number,
): Tensor {
  const out = x.backend.alloc(x.shape);
  x.backend.dispatch(WHOLE, {
    bind: [x, weight, bias, g ?? x, stats, out],
    params: { ...sizes },
    constants: { GRAD: Number(!!g), SILU },
    // One axis of the grid is enough: batch * groups stays far below 65,535.
    groups: [sizes.blocks, 1, 1],
  });
  return out;
}

/** The same of any size, by as many workgroups as keep a GPU busy. */
function inParts(
  { x, weight, bias, stats }: Inputs,
  g: Tensor | undefined,
  sizes: Sizes,
  SILU: number,
): Tensor {
  const { backend } = x;
  const { planes, blocks, count, cells } = sizes;
  const part = partSize(count);
  const parts = Math.ceil(count / part);
  const params = { ...sizes, part, parts };
  const GRAD = Number(!!g);
  // Statistics, or of the way back two sums of each group.
  using sums = g ? backend.alloc(stats.shape) : stats.retain();
  using found = parts > 1 ? backend.alloc([blocks, parts, 2]) : sums.retain();
  backend.dispatch(STATS, {
    bind: [x, weight, bias, g ?? x, g ? stats : x, found],
    params,
    constants: {
      WG: THREADS,
      GRAD,
      SILU: g ? SILU : 0,
      PARTS: Number(parts > 1),
    },
    groups: [blocks, parts, 1],
  });
  if (parts > 1) {
    backend.dispatch(MERGE, {
      bind: [found, sums],
      params,
      constants: { GRAD },
      groups: [blocks, 1, 1],
    });
  }
  const out = backend.alloc(x.shape);
  backend.dispatch(APPLY, {
    bind: [x, weight, bias, g ?? x, stats, sums, out],
    params,
    constants: { WG: cells > 64 ? THREADS : 64, GRAD, SILU },
    groups: runGroups(planes, cells),
  });
  return out;
}

/** Numbers of a group that one workgroup adds up. The batch has no say: it would change the sums. */
function partSize(count: number): number {
  return count <= 2 * PART ? count : Math.max(PART, Math.ceil(count / PARTS));
}
