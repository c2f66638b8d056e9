/**
 * CSG: selective sampling of cross- and self-attention, and a forward pass in which subjects keep to
 * their boxes.
 *
 * Of the k largest in-box values (0.8 of the box) a random half is kept, outside as many of the largest; I
 * and O are their sums, p the mean of those kept, q the largest mean of another subject at the same cells.
 *
 * - cross: `5 (sum (1 - I / (I + O))^2 + 50 sum max(0, q - p + 0.1)^2)`.
 * - self: `5 sum (1 - I / (I + O))^2` on how much of each cell's self-attention goes to the box.
 * - `z -= 0.5 sqrt(l_i) dL/dz`, l falling from 1 to 0.5 over all steps.
 * - redistribution: in the denoising passes of both branches the subjects' tokens pool their attention, and
 *   each takes the pool inside its box and nothing outside.
 *
 * Where we differ: the sampler is the request's (theirs is PNDM over 51 timesteps); boxes are fractions of
 * any size, not pixels of 512; a phrase has one map (its last token's by default, the code takes one token
 * per box from the user) and may have several boxes, whose union counts; there are no background boxes with
 * the foreground cut out; the random subset comes from the request's seed.
 *
 * @see Liu et al. 2024 (the paper's reference "CSG"); Papple-F/csg at 1a5d721.
 */
import type { Tensor } from "../../kernels/backend.ts";
import { redistribute } from "../../kernels/redistribute.ts";
import { type Subject, tokensOf } from "../energy.ts";
import { halfEven, type RasterMode } from "../raster.ts";
import { gradientStep } from "./gradient_step.ts";
import { cellsWhere, inBoxes } from "./maps/cells.ts";
import {
  hostEnergy,
  type HostLoss,
  type SiteMap,
  siteMean,
} from "./maps/host_energy.ts";
import { randomSubset } from "./maps/random_subset.ts";
import { boxProbes, massInside } from "./maps/self_attention.ts";
import { addTo, subjectMap } from "./maps/subject_map.ts";
import { largest, sumOf } from "./maps/top_k.ts";
import type {
  Energy,
  EnergyContext,
  ForwardEdit,
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
import {
  besideOf,
  defaultSites,
  inOrder,
  type SiteChoice,
  sitesOfOneGrid,
} from "./sites.ts";

/** Every choice of the method. */
export interface CsgOptions {
  /** Guided denoising steps. */
  readonly steps: number;
  /** Updates per guided step. */
  readonly iterations: number;
  /** Step size. */
  readonly scale: number;
  /** Factors under the root of the step size at the first and after the last step. */
  readonly scaleRange: readonly [number, number];
  /** Share of a box's cells whose values are looked at. */
  readonly topShare: number;
  /** Share of those that is kept, by chance; 1 for all. */
  readonly subset: number;
  /** Weight of the cross-attention loss. */
  readonly crossWeight: number;
  /** Weight in it of what others have in a subject's box. */
  readonly interWeight: number;
  /** By how much a subject must be ahead of the others there. */
  readonly margin: number;
  /** Weight of the self-attention loss; without it no self-attention is read. */
  readonly selfWeight: number;
  /** Whether the denoising passes are changed too. */
  readonly redistribute: boolean;
  /** In how many steps, from the first. */
  readonly redistributeSteps: number;
  /** The map of a phrase: its last token's, or the mean of all. */
  readonly tokens: "last" | "mean_map";
  /** How boxes become cells. */
  readonly raster: RasterMode;
  /** Attention sites of the losses, all of one grid. */
  readonly sites: SiteChoice;
  /** Attention sites of the redistribution, all of one grid. */
  readonly redistributeSites: SiteChoice;
}

const OPTIONS: OptionTable<CsgOptions> = {
  steps: whole(25, "guided denoising steps"),
  iterations: whole(5, "updates per guided step", { least: 1 }),
  scale: real(0.5, "step size"),
  scaleRange: pair([1, 0.5], "squared factors on it, first and last step"),
  topShare: real(0.8, "share of a box's cells that is looked at", { most: 1 }),
  subset: real(0.5, "share of those that is kept, by chance", { most: 1 }),
  crossWeight: real(5, "weight of the cross-attention loss"),
  interWeight: real(50, "weight in it of others in a phrase's box"),
  margin: real(0.1, "lead that a phrase must have in its box"),
  selfWeight: real(5, "weight of the self-attention loss"),
  redistribute: flag(true, "pool attention in the denoising passes"),
  redistributeSteps: whole(26, "in how many steps"),
  tokens: choice(
    ["last", "mean_map"],
    "last",
    "map of a phrase: its last token's, or the mean",
  ),
  raster: rasterChoice("half_even_512"),
  sites: siteChoice("first_up"),
  redistributeSites: siteChoice("grid_of_first_up"),
};

/** The values of the authors' code. */
export const CSG_DEFAULTS: CsgOptions = fallbacks(OPTIONS);

/** The method under its name. */
export const CSG: MethodSpec<CsgOptions> = {
  name: "csg",
  about: "selective cross- and self-attention losses, redistributed attention",
  source: "Liu et al. 2024, code Papple-F/csg",
  options: OPTIONS,
  defaultsFor: (config) =>
    config.added
      ? { sites: defaultSites(config), redistributeSites: defaultSites(config) }
      : {},
  make: csg,
};

/** The method with the given choices. */
export function csg(options: CsgOptions): GuidanceMethod {
  const { steps, iterations, scale, scaleRange: [first, last] } = options;
  return {
    placement: "before_step",
    score: "none",
    iterations: (step) => step < steps ? iterations : 0,
    check(config) {
      sitesOfOneGrid(config, options.sites);
      sitesOfOneGrid(config, options.redistributeSites);
    },
    energy: (context) => csgEnergy(context, options),
    update: gradientStep(({ step, steps: all }) =>
      scale * Math.sqrt(first + (last - first) * step / all)
    ),
    edit: (context) =>
      options.redistribute ? redistribution(context, options) : undefined,
  };
}

function csgEnergy(context: EnergyContext, options: CsgOptions): Energy {
  const { config, subjects, seed } = context;
  const { sites, selfWeight, raster } = options;
  const tokens = [...new Set(subjects.flatMap((subject) => subject.tokens))];
  const cross = sitesOfOneGrid(config, sites).map(({ id }) =>
    [id, tokens] as const
  );
  const self = selfWeight === 0
    ? []
    : boxProbes(context, besideOf(config, sites), raster);
  const isSelf = new Set(self.map(([id]) => id));
  return hostEnergy(context, {
    probes: inOrder(config, [...cross, ...self]),
    loss(maps, { step, iteration }) {
      const own = maps.filter(({ site }) => isSelf.has(site));
      const text = maps.filter(({ site }) => !isSelf.has(site));
      const draw = (use: number) => (cells: readonly number[], count: number) =>
        randomSubset(cells, count, seed, [step, iteration * 1024 + use]);
      const c = csgCrossLoss(text, subjects, options, draw);
      const s = own.length
        ? csgSelfLoss(own, subjects, options, (i) => draw(512 + i))
        : undefined;
      return {
        energy: c.energy + (s?.energy ?? 0),
        subjects: subjects.map((_, i) => ({
          ...c.subjects[i],
          ...s?.subjects[i],
        })),
        gradients: maps.map((map) =>
          isSelf.has(map.site)
            ? s!.gradients[own.indexOf(map)]!
            : c.gradients[text.indexOf(map)]!
        ),
      };
    },
  });
}

/** Picks some of the cells of a subject. */
export type Draw = (
  subject: number,
) => (cells: readonly number[], count: number) => number[];

/** The cross-attention loss. */
export function csgCrossLoss(
  maps: readonly SiteMap[],
  subjects: readonly Subject[],
  options: CsgOptions,
  draw: Draw,
): HostLoss {
  const { keys, grid } = maps[0]!;
  const mean = siteMean(maps);
  const own = subjects.map((subject) =>
    subjectMap(mean.values, keys, tokensOf(subject, options.tokens), "mean")
  );
  const slopes = own.map(({ values }) => new Float64Array(values.length));
  let energy = 0;
  const reports = subjects.map(({ boxes, weight = 1 }, i) => {
    const mask = inBoxes(boxes, grid, options.raster);
    const share = weight * options.crossWeight;
    const { kept, ratio, gradient } = selectiveRatio(
      own[i]!.values,
      mask,
      options,
      draw(i),
    );
    addTo(slopes[i]!, gradient.map((g) => share * g));
    const levels = own.map(({ values }) => sumOf(values, kept) / kept.length);
    const others = levels.map((level, j) => j === i ? -Infinity : level);
    const rival = others.indexOf(Math.max(...others));
    const behind = Math.max(0, others[rival]! - levels[i]! + options.margin);
    const slope = share * options.interWeight * 2 * behind / kept.length;
    for (const u of behind > 0 ? kept : []) {
      slopes[i]![u]! -= slope;
      slopes[rival]![u]! += slope;
    }
    energy += share * (ratio + options.interWeight * behind ** 2);
    return { intra: ratio, inter: behind ** 2 };
  });
  const sum = new Float64Array(mean.values.length);
  own.forEach((map, i) => addTo(sum, map.back(slopes[i]!)));
  const back = mean.back(sum);
  return { energy, subjects: reports, gradients: maps.map(() => back) };
}

/** The self-attention loss. */
export function csgSelfLoss(
  maps: readonly SiteMap[],
  subjects: readonly Subject[],
  options: CsgOptions,
  draw: Draw,
): HostLoss {
  const { grid } = maps[0]!;
  const mean = siteMean(maps);
  const sum = new Float64Array(mean.values.length);
  let energy = 0;
  const reports = subjects.map(({ boxes, weight = 1 }, i) => {
    const mask = inBoxes(boxes, grid, options.raster);
    const mass = massInside(mean.values, maps[0]!, mask);
    const share = weight * options.selfWeight;
    const { ratio, gradient } = selectiveRatio(
      mass.values,
      mask,
      options,
      draw(i),
    );
    addTo(sum, mass.back(gradient.map((g) => share * g)));
    energy += share * ratio;
    return { self: ratio };
  });
  const back = mean.back(sum);
  return { energy, subjects: reports, gradients: maps.map(() => back) };
}

/** `(1 - I / (I + O))^2` of a map, its gradient on it, and which in-box cells were kept. */
function selectiveRatio(
  map: Float64Array,
  mask: readonly boolean[],
  { topShare, subset }: CsgOptions,
  draw: (cells: readonly number[], count: number) => number[],
): {
  readonly kept: readonly number[];
  readonly ratio: number;
  readonly gradient: Float64Array;
} {
  const box = cellsWhere(mask);
  const top = largest(map, box, Math.max(1, Math.floor(topShare * box.length)));
  const count = Math.max(1, halfEven(subset * top.length));
  const kept = count === top.length ? top : draw(top, count);
  const out = largest(map, cellsWhere(mask, false), count);
  const [inside, outside] = [sumOf(map, kept), sumOf(map, out)];
  const all = inside + outside;
  const off = outside / all;
  const gradient = new Float64Array(map.length);
  for (const u of kept) gradient[u] = -2 * off * outside / all ** 2;
  for (const u of out) gradient[u] = 2 * off * inside / all ** 2;
  return { kept, ratio: off ** 2, gradient };
}

/** The change of the denoising passes. */
function redistribution(
  { backend, config, subjects, grid }: EnergyContext,
  options: CsgOptions,
): ForwardEdit {
  const sites = sitesOfOneGrid(config, options.redistributeSites);
  const names = new Set(sites.map(({ id }) => id));
  const [height = 1, width = 1] = grid.map((n) =>
    Math.ceil(n / 2 ** sites[0]!.level)
  );
  // Per token the queries that it may keep, and how much of the pool.
  const rows = new Map<number, number[]>();
  for (const subject of subjects) {
    const mask = inBoxes(subject.boxes, [height, width], options.raster);
    const wanted = tokensOf(subject, options.tokens);
    for (const token of wanted) {
      const row = rows.get(token) ?? Array<number>(mask.length).fill(0);
      rows.set(
        token,
        row.map((v, u) => Math.max(v, Number(mask[u]) / wanted.length)),
      );
    }
  }
  const tokens: Tensor = backend.upload([...rows.keys()], [rows.size]);
  const mask: Tensor = backend.upload([...rows.values()].flat(), [
    rows.size,
    height * width,
  ]);
  return {
    at: (site, step) =>
      step < options.redistributeSteps && names.has(site)
        ? (weights, first) => redistribute(weights, first, tokens, mask)
        : undefined,
    [Symbol.dispose]() {
      tokens.dispose();
      mask.dispose();
    },
  };
}
