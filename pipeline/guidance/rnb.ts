/**
 * R&B: a region loss on the rectangle that attention makes, and a boundary loss on its edges.
 *
 * Attention is the mean over sites, each enlarged to the latent's grid; a phrase's tokens are summed. Per
 * subject, with n that map scaled to [0, 1] and a threshold `th = 0.4 mean in the box + 0.6 mean outside`:
 *
 * - R is the rectangle around the cells above th, `w = 1 - IoU(R, box)`; from 0.85 on nothing is added.
 * - region: `2 - w (I / sg(T) + sg(I) / T)`, I and T the rectangle's cells in the box and in all, whose
 *   gradient is that of n (straight through).
 * - shape: `2 - w/2 (a / sg(b) + sg(a) / b)`, a and b the sums of `sigmoid(20 (n - th))` in the box and in all.
 * - boundary, with two subjects or more and where the box holds less than the maximum outside:
 *   `1 - w (edges in the box / all edges)`, edges by Sobel on the smoothed softmax of 120 times attention.
 *
 * The loss is the mean over subjects; `z -= step dL/dz`. sg stops the gradient.
 *
 * Where we differ: the sampler is the request's (theirs is DDIM without the offset of 1, and has a long
 * negative prompt); a phrase's tokens are found by its pieces; maps are enlarged to the latent's grid, 64x64
 * at 512x512 as in the code; a box too small for one cell counts as the nearest cell (NaN there); a map
 * without any contrast counts as 0, and a rectangle of one row or column adds no region gradient (NaN there).
 *
 * @see Xiao et al. 2024, arXiv:2310.08872; StevenShaw1999/RnB at 251d9f8.
 */
import type { Subject } from "../energy.ts";
import type { RasterMode } from "../raster.ts";
import { gradientStep } from "./gradient_step.ts";
import { bilinear } from "./maps/bilinear.ts";
import { blur } from "./maps/blur.ts";
import { cellsWhere, inBoxes } from "./maps/cells.ts";
import { hostEnergy, type HostLoss, type SiteMap } from "./maps/host_energy.ts";
import type { Grid, Mapped } from "./maps/mapped.ts";
import { sobel } from "./maps/sobel.ts";
import { addTo, subjectMap } from "./maps/subject_map.ts";
import { tokenSoftmax } from "./maps/token_softmax.ts";
import { argmax, sumOf } from "./maps/top_k.ts";
import type { GuidanceMethod, MethodSpec } from "./method.ts";
import {
  fallbacks,
  flag,
  type OptionTable,
  rasterChoice,
  real,
  siteChoice,
  whole,
} from "./options.ts";
import {
  chosenSites,
  defaultSites,
  inOrder,
  type SiteChoice,
} from "./sites.ts";
import { whileAbove } from "./stop.ts";

/** Every choice of the method. */
export interface RnbOptions {
  /** Guided denoising steps. */
  readonly steps: number;
  /** Most updates per guided step. */
  readonly iterations: number;
  /** Step size. */
  readonly step: number;
  /** A subject whose rectangle has this IoU with its box adds nothing. */
  readonly enough: number;
  /** Whether edges count. */
  readonly boundary: boolean;
  /** Factor on attention before the softmax over tokens, for the edges. */
  readonly sharpness: number;
  /** A quirk of the code: a loss of 0 ends guidance for good, not for its step alone. */
  readonly staleStop: boolean;
  /** How boxes become cells. */
  readonly raster: RasterMode;
  /** Attention sites of the region loss. */
  readonly sites: SiteChoice;
  /** Attention sites of the boundary loss. */
  readonly boundarySites: SiteChoice;
}

const OPTIONS: OptionTable<RnbOptions> = {
  steps: whole(10, "guided denoising steps"),
  iterations: whole(5, "most updates per guided step", { least: 1 }),
  step: real(70, "step size"),
  enough: real(0.85, "IoU from which on a phrase adds nothing", { most: 1 }),
  boundary: flag(true, "whether edges count"),
  sharpness: real(120, "factor on attention before the softmax for edges"),
  staleStop: flag(true, "a loss of 0 ends guidance for good"),
  raster: rasterChoice("trunc"),
  sites: siteChoice("last_down_to_second_up"),
  boundarySites: siteChoice("middle_to_second_up"),
};

/** The values of the authors' code. */
export const RNB_DEFAULTS: RnbOptions = fallbacks(OPTIONS);

/** Where the code's loop stops: its loss scale 30 divides the loss there and nowhere else. */
const DONE = 30 * 1e-6;
/** Width of the smoothing before the edges. */
const SIGMA = 3;

/** The method under its name. */
export const RNB: MethodSpec<RnbOptions> = {
  name: "rnb",
  about: "region and boundary losses on attention",
  source: "Xiao et al. 2024, arXiv:2310.08872",
  options: OPTIONS,
  defaultsFor: (config) =>
    config.added
      ? { sites: defaultSites(config), boundarySites: defaultSites(config) }
      : {},
  make: rnb,
};

/** The method with the given choices. */
export function rnb(options: RnbOptions): GuidanceMethod {
  const { steps, iterations, step: size, staleStop } = options;
  return {
    placement: "before_step",
    score: "none",
    iterations: (step) => step < steps ? iterations : 0,
    check(config) {
      chosenSites(config, options.sites);
      chosenSites(config, options.boundarySites);
    },
    energy(context) {
      const { config, subjects, grid, textLength } = context;
      const keys = Array.from({ length: textLength - 1 }, (_, i) => i + 1);
      const ids = (choice: SiteChoice): string[] =>
        chosenSites(config, choice).map(({ id }) => id);
      const region = new Set(ids(options.sites));
      const edges = new Set(ids(options.boundarySites));
      const probes = inOrder(
        config,
        [...region.union(edges)].map((id) => [id, keys] as const),
      );
      return hostEnergy(context, {
        probes,
        loss: (maps) =>
          rnbLoss(maps, subjects, grid, {
            ...options,
            inRegion: ({ site }) => region.has(site),
            inBoundary: ({ site }) => edges.has(site),
          }),
        goOn: whileAbove(DONE, staleStop),
      });
    },
    update: gradientStep(() => size),
  };
}

/**
 * The loss of a pass.
 *
 * @param grid On which it is computed.
 */
export function rnbLoss(
  maps: readonly SiteMap[],
  subjects: readonly Subject[],
  grid: Grid,
  options: Pick<RnbOptions, "enough" | "boundary" | "sharpness" | "raster"> & {
    readonly inRegion: (map: SiteMap) => boolean;
    readonly inBoundary: (map: SiteMap) => boolean;
  },
): HostLoss {
  const { keys } = maps[0]!;
  const gradients = maps.map((map) => new Float64Array(map.values.length));
  const region = maps.flatMap((map, i) => options.inRegion(map) ? [i] : []);
  const edge = maps.flatMap((map, i) => options.inBoundary(map) ? [i] : []);
  let sharp: { readonly heat: Mapped; readonly mean: Mapped } | undefined;
  let sharpGradient: Float64Array | undefined;
  let energy = 0;
  const reports = subjects.map(({ tokens, boxes, weight = 1 }) => {
    const share = weight / subjects.length;
    const own = region.map((i) => {
      const sum = subjectMap(maps[i]!.values, keys, tokens, "sum");
      const large = bilinear(sum.values, maps[i]!.grid, grid);
      return { i, sum, large };
    });
    const map = new Float64Array(grid[0] * grid[1]);
    for (const { large } of own) {
      addTo(map, large.values.map((v) => v / own.length));
    }
    const inside = inBoxes(boxes, grid, options.raster);
    const r = regionLoss(map, inside, grid, options.enough);
    for (const { i, sum, large } of own) {
      const back = r.gradient.map((g) => share * g / own.length);
      addTo(gradients[i]!, sum.back(large.back(back)));
    }
    let boundary = 0;
    const wanted = options.boundary && subjects.length > 1 && r.weight > 0 &&
      peakOf(map, cellsWhere(inside)) < peakOf(map, cellsWhere(inside, false));
    if (wanted) {
      const mean = sharp?.mean ??
        enlargedMean(edge.map((i) => maps[i]!), keys.length, grid);
      sharp ??= {
        mean,
        heat: tokenSoftmax(mean.values, keys.length, options.sharpness),
      };
      const phrase = subjectMap(sharp.heat.values, keys, tokens, "sum");
      const b = boundaryLoss(phrase.values, inside, grid, r.weight);
      boundary = b.value;
      sharpGradient ??= new Float64Array(sharp.heat.values.length);
      addTo(sharpGradient, phrase.back(b.gradient.map((g) => share * g)));
    }
    energy += share * (r.region + r.shape + boundary);
    const { region: regionTerm, shape, weight: off } = r;
    return { region: regionTerm, shape, boundary, iou: 1 - off };
  });
  if (sharp && sharpGradient) {
    const flat = sharp.mean.back(sharp.heat.back(sharpGradient));
    let at = 0;
    for (const i of edge) {
      const { length } = gradients[i]!;
      addTo(gradients[i]!, flat.subarray(at, at += length));
    }
  }
  return { energy, subjects: reports, gradients };
}

/** Mean of all tokens' maps on the large grid; the way back gives the sites' gradients one after another. */
function enlargedMean(
  maps: readonly SiteMap[],
  tokens: number,
  grid: Grid,
): Mapped {
  const cells = grid[0] * grid[1];
  const values = new Float64Array(tokens * cells);
  const rows = maps.map(({ values: all, grid: own }) =>
    Array.from({ length: tokens }, (_, j) => {
      const size = all.length / tokens;
      return bilinear(all.subarray(j * size, (j + 1) * size), own, grid);
    })
  );
  for (const site of rows) {
    site.forEach((row, j) =>
      addTo(
        values.subarray(j * cells, (j + 1) * cells),
        row.values.map((v) => v / maps.length),
      )
    );
  }
  return {
    values,
    back: (gradient) =>
      Float64Array.from(rows.flatMap((site) =>
        site.flatMap((row, j) => {
          const own = gradient.subarray(j * cells, (j + 1) * cells);
          return [...row.back(own.map((g) => g / maps.length))];
        })
      )),
  };
}

function peakOf(map: Float64Array, cells: readonly number[]): number {
  const u = argmax(map, cells);
  return u === undefined ? -Infinity : map[u]!;
}

/** Region and shape terms of one map, with their gradient on it. */
function regionLoss(
  map: Float64Array,
  inside: readonly boolean[],
  [, width]: Grid,
  enough: number,
): {
  readonly region: number;
  readonly shape: number;
  readonly weight: number;
  readonly gradient: Float64Array;
} {
  const all = [...map.keys()];
  const low = argmax(map.map((v) => -v), all)!;
  const high = argmax(map, all)!;
  const range = map[high]! - map[low]!;
  const n = map.map((v) => range > 0 ? (v - map[low]!) / range : 0);
  const box = cellsWhere(inside);
  const rest = cellsWhere(inside, false);
  const th = rest.length
    ? 0.4 * sumOf(n, box) / box.length + 0.6 * sumOf(n, rest) / rest.length
    : 0;

  // The rectangle around the cells above the threshold, its last row and column excluded.
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const u of all) {
    if (!(n[u]! > th)) continue;
    const [x, y] = [u % width, Math.floor(u / width)];
    [x0, x1] = [Math.min(x0, x), Math.max(x1, x)];
    [y0, y1] = [Math.min(y0, y), Math.max(y1, y)];
  }
  const area = Math.max(0, x1 - x0) * Math.max(0, y1 - y0);
  let common = 0;
  for (const u of box) {
    const [x, y] = [u % width, Math.floor(u / width)];
    if (x >= x0 && x < x1 && y >= y0 && y < y1) common++;
  }
  const iou = common / (area + box.length - common);
  const weight = iou >= enough ? 0 : 1 - iou;
  const gradient = new Float64Array(map.length);
  if (weight === 0) return { region: 0, shape: 0, weight, gradient };

  const slope = new Float64Array(map.length); // on n
  if (area > 0) {
    for (const u of all) {
      slope[u] = weight * (common / area ** 2 - Number(inside[u]) / area);
    }
  }
  const q = n.map((v) => 1 / (1 + Math.exp(-20 * (v - th))));
  const [a, b] = [sumOf(q, box), sumOf(q, all)];
  let onThreshold = 0;
  for (const u of all) {
    const g = -0.5 * weight * (Number(inside[u]) / b - a / b ** 2) * 20 *
      q[u]! * (1 - q[u]!);
    slope[u]! += g;
    onThreshold -= g;
  }
  if (rest.length) {
    for (const u of all) {
      slope[u]! += onThreshold *
        (inside[u] ? 0.4 / box.length : 0.6 / rest.length);
    }
  }
  // n = (map - low) / (high - low)
  if (range > 0) {
    for (const u of all) {
      gradient[u]! += slope[u]! / range;
      gradient[low]! += slope[u]! * (n[u]! - 1) / range;
      gradient[high]! -= slope[u]! * n[u]! / range;
    }
  }
  return {
    region: 2 - weight * (area > 0 ? 2 * common / area : 0),
    shape: 2 - weight * a / b,
    weight,
    gradient,
  };
}

/** Boundary term of one phrase's sharpened map, with its gradient on it. */
function boundaryLoss(
  map: Float64Array,
  inside: readonly boolean[],
  grid: Grid,
  weight: number,
): { readonly value: number; readonly gradient: Float64Array } {
  const peak = peakOf(map, [...map.keys()]);
  const smooth = blur(map.map((v) => v / peak), grid, SIGMA);
  const edges = sobel(smooth.values, grid);
  const all = edges.values.reduce((sum, v) => sum + v, 0);
  const own = sumOf(edges.values, cellsWhere(inside));
  const back = edges.values.map((_, u) =>
    -weight * (Number(inside[u]) / all - own / all ** 2)
  );
  return {
    value: 1 - weight * own / all,
    gradient: smooth.back(edges.back(back)).map((g) => g / peak),
  };
}
