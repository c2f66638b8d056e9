/**
 * Attention-Refocusing on a plain model: cross-attention (CAR) and self-attention (SAR) losses.
 *
 * CAR raises the largest value of each token's heat map in its own boxes, and lowers it in the boxes of
 * others and in the background. SAR keeps the self-attention of a box's cells inside the box. `z -= d/dz of
 * lossScale (carWeight CAR + sarWeight SAR)`, with a scale and a number of updates that change by phase.
 *
 * What of the method needs GLIGEN, a model trained with boxes as an input, is not here: GLIGEN's own gated
 * attention, with which the authors' results are made, and their third loss on it (weight 3, steps 0 to
 * 14). For plain Stable Diffusion the authors advise a loss scale of 40 instead of 4 (their issue 3), which
 * is the default here. Their layouts from a language model and their long negative prompt are not here
 * either. Results in WinWinLay's tables are those with GLIGEN.
 *
 * Where we differ: the sampler is the request's (theirs is PLMS); phrases stay whole (there every word of
 * a phrase is an object of its own); a box too small for one cell counts as the nearest cell (their SAR is
 * NaN).
 *
 * @see Phung, Ge and Huang 2024, arXiv:2306.05427; Attention-Refocusing/attention-refocusing at 2c265cb.
 */
import type { Subject } from "../energy.ts";
import type { RasterMode } from "../raster.ts";
import { gradientStep } from "./gradient_step.ts";
import { blur } from "./maps/blur.ts";
import { cellsWhere, inBoxes } from "./maps/cells.ts";
import {
  hostEnergy,
  type HostLoss,
  type SiteMap,
  siteMean,
} from "./maps/host_energy.ts";
import { boxProbes, massInside } from "./maps/self_attention.ts";
import { addTo, subjectMap } from "./maps/subject_map.ts";
import { tokenSoftmax } from "./maps/token_softmax.ts";
import { argmax, sumOf } from "./maps/top_k.ts";
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
  orNone,
  rasterChoice,
  real,
  siteChoice,
  whole,
} from "./options.ts";
import {
  besideOf,
  defaultSites,
  inOrder,
  type SiteChoice,
  sitesOfOneGrid,
} from "./sites.ts";

/** Every choice of the method. */
export interface AttentionRefocusingOptions {
  /** Guided denoising steps at the start, of which there are three phases: up to 2, 5 and 10. */
  readonly steps: number;
  /** Guide steps 10, 15, ... 35 too. */
  readonly late: boolean;
  /** Scale of the losses in the first phase; later ones have 1, 0.75, 0.75 and, from step 20, 0.25 of it. */
  readonly lossScale: number;
  /** Weight of the cross-attention loss. */
  readonly carWeight: number;
  /** Weight of the self-attention loss; without it no self-attention is read. */
  readonly sarWeight: number;
  /** No more updates in a step once every in-box maximum is at least this; null for never. */
  readonly insideStop: number | null;
  /** No more updates in one of the first 10 steps once the scaled loss is at most this; null for never. */
  readonly lossStop: number | null;
  /** Steps in which well-placed maxima are pushed on. */
  readonly earlySteps: number;
  /** Factor on attention before the softmax over tokens. */
  readonly sharpness: number;
  /** Over which tokens the softmax runs: all but the first and the last, or only the prompt's own. */
  readonly over: "text" | "prompt";
  /** Width of the smoothing; see `blurWeights`. */
  readonly sigma: number;
  /** How boxes become cells. */
  readonly raster: RasterMode;
  /** Attention sites, all of one grid. */
  readonly sites: SiteChoice;
}

const OPTIONS: OptionTable<AttentionRefocusingOptions> = {
  steps: whole(10, "guided denoising steps at the start", { most: 10 }),
  late: flag(true, "guide steps 10, 15, ... 35 too"),
  lossScale: real(40, "scale of the losses; the code's with GLIGEN is 4"),
  carWeight: real(1, "weight of the cross-attention loss"),
  sarWeight: real(1, "weight of the self-attention loss"),
  insideStop: orNone(0.2, "enough for every in-box maximum"),
  lossStop: orNone(0.1, "enough for the scaled loss"),
  earlySteps: whole(15, "steps in which good maxima are pushed on"),
  sharpness: real(100, "factor on attention before the softmax over tokens"),
  over: choice(["text", "prompt"], "text", "tokens of that softmax"),
  sigma: real(0.5, "width of the smoothing", { least: 0.01 }),
  raster: rasterChoice("trunc"),
  sites: siteChoice("grid_of_first_up"),
};

/** The values of the authors' code, with their scale for plain models. */
export const ATTENTION_REFOCUSING_DEFAULTS: AttentionRefocusingOptions =
  fallbacks(OPTIONS);

/** The method under its name. */
export const ATTENTION_REFOCUSING: MethodSpec<AttentionRefocusingOptions> = {
  name: "attention-refocusing",
  about: "cross- and self-attention refocusing, without GLIGEN",
  source: "Phung et al. 2024, arXiv:2306.05427",
  options: OPTIONS,
  defaultsFor: (config) => config.added ? { sites: defaultSites(config) } : {},
  make: attentionRefocusing,
};

/** Scale, as a share of the first, and most updates of a step. */
function phaseOf(
  step: number,
  { steps, late }: Pick<AttentionRefocusingOptions, "steps" | "late">,
): { readonly scale: number; readonly iterations: number } {
  const scale = step < 5 ? 1 : step < 20 ? 0.75 : 0.25;
  if (step < steps) {
    return { scale, iterations: step < 2 ? 2 : step < 5 ? 6 : 3 };
  }
  const guided = late && step >= 10 && step <= 35 && step % 5 === 0;
  return { scale, iterations: guided ? 2 : 0 };
}

/** The method with the given choices. */
export function attentionRefocusing(
  options: AttentionRefocusingOptions,
): GuidanceMethod {
  return {
    placement: "before_step",
    score: "none",
    iterations: (step) => phaseOf(step, options).iterations,
    check: (config) => void sitesOfOneGrid(config, options.sites),
    energy: (context) => refocusingEnergy(context, options),
    update: gradientStep(() => 1),
  };
}

function refocusingEnergy(
  context: EnergyContext,
  options: AttentionRefocusingOptions,
): Energy {
  const { config, subjects, textLength, promptLength } = context;
  const { insideStop, lossStop, carWeight, sarWeight, raster, sites } = options;
  const end = options.over === "text" ? textLength - 1 : promptLength - 1;
  const tokens = Array.from({ length: end - 1 }, (_, i) => i + 1);
  const cross = sitesOfOneGrid(config, sites).map(({ id }) =>
    [id, tokens] as const
  );
  const self = sarWeight === 0
    ? []
    : boxProbes(context, besideOf(config, sites), raster);
  const isSelf = new Set(self.map(([id]) => id));
  return hostEnergy(context, {
    probes: inOrder(config, [...cross, ...self]),
    loss(maps, { step }) {
      const scale = options.lossScale * phaseOf(step, options).scale;
      const own = maps.filter(({ site }) => isSelf.has(site));
      const text = maps.filter(({ site }) => !isSelf.has(site));
      const car = carLoss(text, subjects, options, step);
      const sar = sarLoss(own, subjects, raster);
      const scaled = (gradients: readonly Float64Array[], weight: number) =>
        gradients.map((g) => g.map((v) => scale * weight * v));
      const back = new Map([
        ...scaled(car.gradients, carWeight).map((g, i) =>
          [text[i], g] as const
        ),
        ...scaled(sar.gradients, sarWeight).map((g, i) => [own[i], g] as const),
      ]);
      return {
        energy: scale * (carWeight * car.energy + sarWeight * sar.energy),
        subjects: subjects.map((_, i) => ({
          ...car.subjects[i],
          ...sar.subjects[i],
        })),
        gradients: maps.map((map) => back.get(map)!),
      };
    },
    goOn: ({ step, iteration }, last) =>
      iteration === 0 || last === undefined ||
      !(insideStop !== null &&
          last.subjects.every((s) => s.inside! >= insideStop)) &&
        !(lossStop !== null && step < 10 && last.energy <= lossStop),
  });
}

/**
 * The cross-attention loss at a denoising step. Per subject: the smallest maximum in one of its boxes, the
 * largest in one of another's, and its part of the loss.
 */
export function carLoss(
  maps: readonly SiteMap[],
  subjects: readonly Subject[],
  { sharpness, sigma, raster, earlySteps }: Pick<
    AttentionRefocusingOptions,
    "sharpness" | "sigma" | "raster" | "earlySteps"
  >,
  step: number,
): HostLoss {
  const { keys, grid } = maps[0]!;
  const mean = siteMean(maps);
  const heat = tokenSoftmax(mean.values, keys.length, sharpness);
  const early = Number(step < earlySteps);
  const gradient = new Float64Array(heat.values.length);
  const unions = subjects.map(({ boxes }) => inBoxes(boxes, grid, raster));
  const anywhere = unions[0]!.map((_, u) => unions.some((mask) => mask[u]));
  const background = cellsWhere(anywhere, false);
  let energy = 0;
  const reports = subjects.map(({ tokens, boxes, weight = 1 }, i) => {
    const others = subjects.filter((_, j) => j !== i).flatMap((s) => s.boxes);
    const share = weight / subjects.length;
    let [inside, outside, car] = [Infinity, 0, 0];
    for (const token of tokens) {
      const own = subjectMap(heat.values, keys, [token], "sum");
      const smooth = blur(own.values, grid, sigma);
      const peaks = new Float64Array(smooth.values.length);
      const max = (cells: readonly number[]): [number, number] => {
        const u = argmax(smooth.values, cells);
        return u === undefined ? [0, -1] : [smooth.values[u]!, u];
      };
      for (const box of boxes) {
        const [peak, u] = max(cellsWhere(inBoxes([box], grid, raster)));
        const w = peak < 0.1 ? 6 : peak < 0.2 ? 1 : early;
        car += w * (1 - peak);
        peaks[u]! -= w;
        inside = Math.min(inside, peak);
      }
      for (const box of others) {
        const mask = inBoxes([box], grid, raster);
        const [peak, u] = max(
          cellsWhere(mask.map((m, v) => m && !unions[i]![v])),
        );
        const w = peak > 0.15 ? 4 : peak > 0.1 ? 1 : early;
        car += w * peak;
        outside = Math.max(outside, peak);
        if (u >= 0) peaks[u]! += w;
      }
      const [peak, u] = max(background);
      car += boxes.length * peak / 2;
      if (u >= 0) peaks[u]! += boxes.length / 2;
      addTo(gradient, own.back(smooth.back(peaks.map((g) => share * g))));
    }
    energy += share * car;
    return { inside, outside, car };
  });
  const back = mean.back(heat.back(gradient));
  return { energy, subjects: reports, gradients: maps.map(() => back) };
}

/** The self-attention loss: how much of what a box's cells attend to lies outside the box. */
export function sarLoss(
  maps: readonly SiteMap[],
  subjects: readonly Subject[],
  raster: RasterMode,
): HostLoss {
  const reports = subjects.map(() => ({ sar: 0 }));
  let energy = 0;
  const gradients = maps.map((map) => {
    const sum = new Float64Array(map.values.length);
    subjects.forEach(({ boxes, weight = 1 }, i) => {
      for (const box of boxes) {
        const mask = inBoxes([box], map.grid, raster);
        const cells = cellsWhere(mask);
        const mass = massInside(map.values, map, mask);
        const outside = 1 - sumOf(mass.values, cells) / cells.length;
        reports[i]!.sar += outside / maps.length;
        const share = weight / (subjects.length * maps.length);
        energy += share * outside;
        const slope = mask.map((m) => m ? -share / cells.length : 0);
        addTo(sum, mass.back(Float64Array.from(slope)));
      }
    });
    return sum;
  });
  return { energy, subjects: reports, gradients };
}
