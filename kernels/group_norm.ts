/** Group normalisation, with an optional SiLU behind it. */
import wgsl from "./group_norm.wgsl" with { type: "text" };
import applyWgsl from "./group_norm_apply.wgsl" with { type: "text" };
import momentsWgsl from "./group_norm_moments.wgsl" with { type: "text" };
import mergeWgsl from "./group_norm_merge.wgsl" with { type: "text" };
import partsWgsl from "./group_norm_parts.wgsl" with { type: "text" };
import planesWgsl from "./group_norm_planes.wgsl" with { type: "text" };
import runWgsl from "./group_norm_run.wgsl" with { type: "text" };
import sourcesWgsl from "./group_norm_sources.wgsl" with { type: "text" };
import sumsWgsl from "./group_norm_sums.wgsl" with { type: "text" };
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
import { besideShape, splitChannels } from "./concat.ts";
import {
  groupNormMergeRef,
  groupNormRef,
  groupNormStatsRef,
  groupNormWholeRef,
} from "./group_norm_ref.ts";

/** Functions that read `x`, and the same of `beside`: WGSL passes no bindings on. */
export function bothSources(wgsl: string): string {
  return wgsl + wgsl.replaceAll(/\bx\[/g, "beside[").replaceAll(
    "Own(",
    "Beside(",
  );
}

const STATS: Kernel = {
  name: "group_norm_stats",
  wgsl: sourcesWgsl + bothSources(partsWgsl) + statsWgsl,
  bindings: "rrrrrrw",
  params: ["count", "cells", "groups", "own", "part", "eps:f"],
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
  wgsl: applyWgsl + sourcesWgsl + bothSources(runWgsl) + wgsl,
  bindings: "rrrrrrrw",
  params: ["planes", "count", "cells", "groups", "own"],
  ref: groupNormRef,
};
/** What kernels that do a whole norm begin with. */
export const NORM_WGSL: string = applyWgsl + sourcesWgsl + momentsWgsl +
  bothSources(sumsWgsl);
const WHOLE: Kernel = {
  name: "group_norm_whole",
  wgsl: NORM_WGSL + bothSources(planesWgsl) + wholeWgsl,
  bindings: "rrrrrww",
  params: ["count", "cells", "groups", "own", "eps:f"],
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
  /** Its channels follow those of `x`, as if both were one tensor: `[batch, others, ...space]`. Differentiable. */
  readonly beside?: Tensor | undefined;
}

/**
 * `act((x - mean) / sqrt(variance + eps) weight + bias)`, mean and biased variance over each group.
 *
 * @param x `[batch, channels, ...space]`; with `beside` only the first of the channels.
 * @param weight `[channels]`.
 * @param bias `[channels]`.
 * @returns `[batch, channels, ...space]`. Differentiable in `x` and `beside`; saves both, mean and 1/std.
 * @throws {RangeError} If the groups do not divide the channels, or `beside` has another batch or space.
 * @see Wu and He 2018, arXiv:1803.08494.
 */
export function groupNorm(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  options: GroupNormOptions,
): Tensor {
  const norm = normOf(x, weight, bias, options);
  using _ = norm.stats;
  const out = runNorm(norm);
  record([out], norm.sources, [...norm.sources, norm.stats], ([g], needs) => {
    using grad = runNorm(norm, g);
    return splitChannels(grad, norm.sources, needs);
  });
  return out;
}

/** A norm that kernels can run: its inputs, checked, and what they share. */
export interface Norm {
  /** `[batch, own, ...space]`, and perhaps what follows: together `channels`. */
  readonly sources: readonly [Tensor, ...Tensor[]];
  /** `[batch, channels, ...space]`. */
  readonly shape: readonly number[];
  /** `[channels]`. */
  readonly weight: Tensor;
  /** `[channels]`. */
  readonly bias: Tensor;
  /** `[batch * groups, 2]`, mean and 1 / std, which the kernels write first. */
  readonly stats: Tensor;
  /** For the kernels: whether SiLU follows, whether there are two sources; 1 or 0. */
  readonly constants: { readonly SILU: number; readonly BESIDE: number };
  /** Sizes. */
  readonly params: {
    readonly planes: number;
    /** Groups of all batch elements. */
    readonly blocks: number;
    /** Numbers of a group. */
    readonly count: number;
    readonly cells: number;
    readonly groups: number;
    /** Channels of the first source. */
    readonly own: number;
    readonly eps: number;
  };
}

/** Checks a norm and makes room for its statistics, which are the caller's. Arguments of `groupNorm`. */
export function normOf(
  x: Tensor,
  weight: Tensor,
  bias: Tensor,
  options: GroupNormOptions,
): Norm {
  const { groups, eps, silu = false, beside } = options;
  const [batch, own, cells] = channelMajor(x, "group_norm");
  const shape = beside ? besideShape(x, beside, "group_norm") : x.shape;
  const channels = shape[1]!;
  if (channels % groups) {
    throw new RangeError(
      `Cannot run group_norm: ${groups} groups must divide the channels: current shape is [${shape}]`,
    );
  }
  expectSize(weight, channels, "group_norm");
  expectSize(bias, channels, "group_norm");
  const blocks = batch * groups;
  const count = channels / groups * cells;
  const planes = batch * channels;
  return {
    sources: beside ? [x, beside] : [x],
    shape,
    weight,
    bias,
    stats: x.backend.alloc([blocks, 2]),
    constants: { SILU: Number(silu), BESIDE: Number(!!beside) },
    params: { planes, blocks, count, cells, groups, own, eps },
  };
}

/** The norm, or with `g`, the gradient on its result, the gradient on its input. */
export function runNorm(norm: Norm, g?: Tensor): Tensor {
  const { weight: { backend }, params: { cells } } = norm;
  const run = backend.family === "software" && cells % 4 === 0
    ? whole
    : inParts;
  return run(norm, g);
}

/** One run for each way, the norm, or of `g` the gradient, where cells come in fours. */
function whole(
  { sources: [x, beside = x], shape, weight, bias, stats, constants, params }:
    Norm,
  g: Tensor | undefined,
): Tensor {
  const out = x.backend.alloc(shape);
  x.backend.dispatch(WHOLE, {
    bind: [x, beside, weight, bias, g ?? x, stats, out],
    params,
    constants: { GRAD: Number(!!g), ...constants },
    // One axis of the grid is enough: batch * groups stays far below 65,535.
    groups: [params.blocks, 1, 1],
  });
  return out;
}

/** The same of any size, by as many workgroups as keep a GPU busy. */
function inParts(
  {
    sources: [x, beside = x],
    shape,
    weight,
    bias,
    stats,
    constants,
    params: sizes,
  }: Norm,
  g: Tensor | undefined,
): Tensor {
  const { backend } = x;
  const { planes, blocks, count, cells } = sizes;
  const part = partSize(count);
  const parts = Math.ceil(count / part);
  const params = { ...sizes, part, parts };
  const GRAD = Number(!!g);
  const { BESIDE } = constants;
  // Statistics, or of the way back two sums of each group.
  using sums = g ? backend.alloc(stats.shape) : stats.retain();
  using found = parts > 1 ? backend.alloc([blocks, parts, 2]) : sums.retain();
  backend.dispatch(STATS, {
    bind: [x, beside, weight, bias, g ?? x, g ? stats : x, found],
    params,
    constants: {
      WG: THREADS,
      GRAD,
      SILU: g ? constants.SILU : 0,
      PARTS: Number(parts > 1),
      BESIDE,
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
  const out = backend.alloc(shape);
  backend.dispatch(APPLY, {
    bind: [x, beside, weight, bias, g ?? x, stats, sums, out],
    params,
    constants: { WG: cells > 64 ? THREADS : 64, GRAD, ...constants },
    groups: runGroups(planes, cells),
  });
  return out;
}

/** Numbers of a group that one workgroup adds up. The batch has no say: it would change the sums. */
function partSize(count: number): number {
  return count <= 2 * PART ? count : Math.max(PART, Math.ceil(count / PARTS));
}
