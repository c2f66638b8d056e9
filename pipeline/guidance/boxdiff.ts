/**
 * BoxDiff: strong attention in the box, weak attention outside, and a shape that ends at its corners.
 *
 * The heat map of a token is the softmax of 100 times its attention over the tokens, smoothed. Per subject
 * `IB = 1 - mean of the largest in-box values`, `OB = mean of the largest values outside`, and
 * `CC = |projection on an axis - indicator of the box|` near the box's ends, both axes; the loss is their
 * sum, `z -= scale sqrt(l_i) dL/dz`. At steps 0, 10 and 20 up to 20 more updates, by the worst subject's
 * IB alone, push it above 0.05, 0.5 and 0.8.
 *
 * Where we differ: the sampler is the request's (theirs is PNDM over 51 timesteps); boxes are fractions of
 * any size, not pixels of 512; a phrase has one map (its last token's by default, the code takes one token
 * per box from the user) and may have several boxes, whose union counts; a box too small for one cell
 * counts as the nearest cell, and at least one value enters each mean (NaN in the code); the check before
 * a refinement is not run twice at the same latent; nothing is run after the guided steps.
 *
 * @see Xie et al. 2023, arXiv:2307.10816; showlab/BoxDiff at b0d5d3b.
 */
import { gradientStep } from "./gradient_step.ts";
import { blur } from "./maps/blur.ts";
import { boxRange, cellsWhere, inBoxes } from "./maps/cells.ts";
import {
  hostEnergy,
  type HostLoss,
  type SiteMap,
  siteMean,
} from "./maps/host_energy.ts";
import type { Grid } from "./maps/mapped.ts";
import { addTo, subjectMap } from "./maps/subject_map.ts";
import { tokenSoftmax } from "./maps/token_softmax.ts";
import { argmax, largest, sumOf } from "./maps/top_k.ts";
import type {
  Energy,
  EnergyContext,
  GuidanceMethod,
  MethodSpec,
} from "./method.ts";
import {
  choice,
  fallbacks,
  flag,
  type OptionTable,
  pair,
  rasterChoice,
  real,
  siteChoice,
  whole,
} from "./options.ts";
import { type Subject, tokensOf } from "../energy.ts";
import type { RasterMode } from "../raster.ts";
import { defaultSites, type SiteChoice, sitesOfOneGrid } from "./sites.ts";

/** Every choice of the method. */
export interface BoxDiffOptions {
  /** Guided denoising steps. */
  readonly steps: number;
  /** Step size. */
  readonly scale: number;
  /** Factors under the root of the step size at the first and after the last step. */
  readonly scaleRange: readonly [number, number];
  /** Share of the cells that enters the means of the largest, the code's P. */
  readonly topShare: number;
  /** Cells around a box's ends whose projections count, the code's L. */
  readonly cornerWidth: number;
  /** Factor on attention before the softmax over tokens. */
  readonly sharpness: number;
  /** Over which tokens the softmax runs: all but the first and the last, or only the prompt's own. */
  readonly over: "text" | "prompt";
  /** Width of the smoothing; see `blurWeights`. */
  readonly sigma: number;
  /** The map of a phrase: its last token's, or the mean of all. */
  readonly tokens: "last" | "mean_map";
  /** Extra updates at steps 0, 10 and 20. */
  readonly refine: boolean;
  /** Most of them per step. */
  readonly refineIterations: number;
  /** A quirk of the code: after a refinement the step's own update sees the new IB only. */
  readonly staleTerms: boolean;
  /** How boxes become cells. */
  readonly raster: RasterMode;
  /** Attention sites, all of one grid. */
  readonly sites: SiteChoice;
}

const OPTIONS: OptionTable<BoxDiffOptions> = {
  steps: whole(25, "guided denoising steps"),
  scale: real(20, "step size"),
  scaleRange: pair([1, 0.5], "squared factors on it, first and last step"),
  topShare: real(0.2, "share of the cells in the means of the largest", {
    most: 1,
  }),
  cornerWidth: whole(1, "cells around a box's ends that count for its corners"),
  sharpness: real(100, "factor on attention before the softmax over tokens"),
  over: choice(["text", "prompt"], "text", "tokens of that softmax"),
  sigma: real(0.5, "width of the smoothing", { least: 0.01 }),
  tokens: choice(
    ["last", "mean_map"],
    "last",
    "map of a phrase: its last token's, or the mean",
  ),
  refine: flag(true, "extra updates at steps 0, 10 and 20"),
  refineIterations: whole(20, "most extra updates of a step", { least: 1 }),
  staleTerms: flag(true, "after those only the in-box term acts"),
  raster: rasterChoice("half_even_512"),
  sites: siteChoice("grid_of_first_up"),
};

/** The values of the authors' code. */
export const BOXDIFF_DEFAULTS: BoxDiffOptions = fallbacks(OPTIONS);

/** What the strongest in-box attention must reach at which step. */
const REFINEMENTS: ReadonlyMap<number, number> = new Map([
  [0, 0.05],
  [10, 0.5],
  [20, 0.8],
]);

/** The method under its name. */
export const BOXDIFF: MethodSpec<BoxDiffOptions> = {
  name: "boxdiff",
  about: "inner-box, outer-box and corner constraints",
  source: "Xie et al. 2023, arXiv:2307.10816",
  options: OPTIONS,
  defaultsFor: (config) => config.added ? { sites: defaultSites(config) } : {},
  make: boxDiff,
};

/** The method with the given choices. */
export function boxDiff(options: BoxDiffOptions): GuidanceMethod {
  const { steps, scale, scaleRange: [first, last], sites } = options;
  const refines = (step: number): boolean =>
    options.refine && REFINEMENTS.has(step);
  return {
    placement: "before_step",
    score: "none",
    iterations: (step) =>
      step >= steps ? 0 : refines(step) ? 1 + options.refineIterations : 1,
    check: (config) => void sitesOfOneGrid(config, sites),
    energy: (context) => boxDiffEnergy(context, options, refines),
    update: gradientStep(({ step, steps }) =>
      scale * Math.sqrt(first + (last - first) * step / steps)
    ),
  };
}

/** Which terms move the latent. */
export type BoxDiffPhase = "all" | "inside" | "worst";

function boxDiffEnergy(
  context: EnergyContext,
  options: BoxDiffOptions,
  refines: (step: number) => boolean,
): Energy {
  const { config, subjects, textLength, promptLength } = context;
  const end = options.over === "text" ? textLength - 1 : promptLength - 1;
  const keys = Array.from({ length: end - 1 }, (_, i) => i + 1);
  const sites = sitesOfOneGrid(config, options.sites);
  let before = 0; // the worst subject's IB in the pass before
  let refining = false;
  return hostEnergy(context, {
    probes: new Map(sites.map(({ id }) => [id, keys])),
    // A step ends with its own update, the first that is no refinement.
    goOn: ({ iteration }) => iteration === 0 || refining,
    loss: (maps, { step, iteration }) =>
      boxDiffLoss(maps, subjects, options, (worst) => {
        // As in the code, the value before the last update decides.
        const seen = iteration === 0 ? worst : before;
        before = worst;
        refining = refines(step) && seen > 1 - REFINEMENTS.get(step)! &&
          iteration < options.refineIterations;
        if (refining) return "worst";
        return iteration > 0 && options.staleTerms ? "inside" : "all";
      }),
  });
}

/**
 * The loss of a pass.
 *
 * @param phaseOf Says which terms move the latent, from the worst subject's IB.
 */
export function boxDiffLoss(
  maps: readonly SiteMap[],
  subjects: readonly Subject[],
  options: BoxDiffOptions,
  phaseOf: (worst: number) => BoxDiffPhase = () => "all",
): HostLoss {
  const { keys, grid } = maps[0]!;
  const mean = siteMean(maps);
  const heat = tokenSoftmax(mean.values, keys.length, options.sharpness);
  const terms = subjects.map((subject) => {
    const tokens = tokensOf(subject, options.tokens);
    const own = subjectMap(heat.values, keys, tokens, "mean");
    const smooth = blur(own.values, grid, options.sigma);
    const found = constraints(smooth.values, grid, subject.boxes, options);
    const back = (gradient: Float64Array): Float64Array =>
      own.back(smooth.back(gradient));
    return { ...found, back };
  });
  // A subject of weight 0 moves nothing: to refine by it would be in vain.
  const insides = terms.map(({ inside }, i) =>
    subjects[i]!.weight === 0 ? -1 : inside
  );
  const worst = insides.indexOf(Math.max(...insides));
  const phase = phaseOf(insides[worst]!);
  const gradient = new Float64Array(heat.values.length);
  let energy = 0;
  terms.forEach((t, i) => {
    if (phase === "worst" && i !== worst) return;
    const weight = subjects[i]!.weight ?? 1;
    energy += weight * t.inside;
    const sum = t.insideGradient.slice();
    if (phase === "all") {
      energy += weight * (t.outside + t.cornerX + t.cornerY);
      addTo(sum, t.otherGradient);
    }
    addTo(gradient, t.back(sum.map((g) => weight * g)));
  });
  const back = mean.back(heat.back(gradient));
  return {
    energy,
    subjects: terms.map(({ inside, outside, cornerX, cornerY }) => ({
      inside,
      outside,
      cornerX,
      cornerY,
    })),
    gradients: maps.map(() => back),
  };
}

/** The three constraints on a smoothed heat map, with their gradients on it. */
function constraints(
  map: Float64Array,
  grid: Grid,
  boxes: Subject["boxes"],
  { topShare, cornerWidth, raster }: BoxDiffOptions,
): {
  readonly inside: number;
  readonly outside: number;
  readonly cornerX: number;
  readonly cornerY: number;
  readonly insideGradient: Float64Array;
  readonly otherGradient: Float64Array;
} {
  const mask = inBoxes(boxes, grid, raster);
  const insideGradient = new Float64Array(map.length);
  const otherGradient = new Float64Array(map.length);
  const topMean = (inside: boolean): { mean: number; top: number[] } => {
    const cells = cellsWhere(mask, inside);
    const count = Math.max(1, Math.floor(topShare * cells.length));
    const top = largest(map, cells, count);
    return { mean: top.length ? sumOf(map, top) / top.length : 0, top };
  };
  const inner = topMean(true);
  for (const u of inner.top) insideGradient[u] = -1 / inner.top.length;
  const outer = topMean(false);
  for (const u of outer.top) otherGradient[u] = 1 / outer.top.length;

  /** Mean over an axis's positions of how far the largest value is from being as the box says. */
  const corner = (axis: 0 | 1): number => {
    const [height, width] = grid;
    const length = grid[1 - axis]!; // axis 0 is x
    const near = new Set<number>();
    for (const box of boxes) {
      const range = boxRange(box, grid, raster);
      for (const end of [range[axis]!, range[axis + 2]!]) {
        for (let i = end - cornerWidth; i <= end + cornerWidth; i++) {
          if (i >= 0 && i < length) near.add(i);
        }
      }
    }
    let sum = 0;
    for (const i of near) {
      const line = axis === 0
        ? Array.from({ length: height }, (_, y) => y * width + i)
        : Array.from({ length: width }, (_, x) => i * width + x);
      const peak = argmax(map, line)!;
      const off = map[peak]! - Number(line.some((u) => mask[u]));
      sum += Math.abs(off) / length;
      otherGradient[peak]! += Math.sign(off) / length;
    }
    return sum;
  };
  const [cornerX, cornerY] = [corner(0), corner(1)];
  return {
    inside: 1 - inner.mean,
    outside: outer.mean,
    cornerX,
    cornerY,
    insideGradient,
    otherGradient,
  };
}
