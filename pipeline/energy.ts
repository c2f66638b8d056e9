/** Attention maps, tokens and boxes -> layout energy and its gradient on the maps. */
import type { Backend, Tensor } from "../kernels/backend.ts";
import { type EnergyTables, layoutEnergy } from "../kernels/layout_energy.ts";
import { logMean } from "../kernels/log_mean.ts";
import type { Box, RasterMode } from "./raster.ts";
import {
  rasterizeShape,
  type Shape,
  shapeBoxes,
  shapePriors,
} from "./shape.ts";

/** A phrase with its token positions, and its boxes or mask. */
export interface Subject extends Shape {
  /** The phrase, for people. */
  readonly name: string;
  /** Its boxes, or the one around its mask. */
  readonly boxes: readonly Box[];
  /** Positions in the prompt's ids. */
  readonly tokens: readonly number[];
  /** Those of them that end an occurrence of the phrase. Default the last. */
  readonly ends?: readonly number[] | undefined;
  /** Factor on its energy. Default 1. */
  readonly weight?: number | undefined;
}

/** Tokens whose maps stand for a phrase: those that end its occurrences, or all. */
export function tokensOf(
  { tokens, ends = tokens.slice(-1) }: Pick<Subject, "tokens" | "ends">,
  how: string,
): readonly number[] {
  return how === "last" ? ends : tokens;
}

/**
 * Energy of one subject from its reported terms, `aef + rho nap`.
 *
 * @returns Undefined where the method's energy has other terms.
 */
export function subjectEnergy(
  { aef, nap = 0 }: Readonly<Record<string, number>>,
  rho = 0,
): number | undefined {
  return aef === undefined ? undefined : aef + rho * nap;
}

/** Choices of the non-local attention energy; the letters are those of the paper's open questions. */
export interface EnergyOptions {
  /** Peakedness of the prior (A3). */
  readonly lambda: number;
  /** Unit of its distances (A3). */
  readonly units: "unit" | "cells" | "pixels";
  /** `dx^2/W + dy^2/H`, or `(dx/W)^2 + (dy/H)^2` (A3). */
  readonly distance: "paper" | "scale_invariant";
  /** KL(attention, prior) as printed, or `reverse` (A2). */
  readonly divergence: "forward" | "reverse";
  /** Energy per head, then their mean; or one energy of the mean map (A5). */
  readonly heads: "mean_energy" | "mean_map";
  /** Energy per token of a phrase, then their mean; one of the mean map; or the last token of each occurrence alone (A6). */
  readonly tokens: "mean_energy" | "mean_map" | "last";
  /** Mean over sites and subjects, or their sum (A7). */
  readonly reduction: "mean" | "sum";
  /** Several boxes of a subject: the mean of a KL per box, or one KL to their mixture (A15). */
  readonly priors: "per_box" | "union_mixture";
  /** How boxes become cells (A20). */
  readonly raster: RasterMode;
}

/** The recommended reading of the paper. */
export const ENERGY_DEFAULTS: EnergyOptions = {
  lambda: 4,
  units: "unit",
  distance: "paper",
  divergence: "forward",
  heads: "mean_energy",
  tokens: "mean_energy",
  reduction: "mean",
  priors: "per_box",
  raster: "nearest",
};

/** Terms of one subject: means over sites, heads and tokens. */
export type LayoutTerms = {
  /** `(1 - share)^2`. */
  readonly aef: number;
  /** KL to the prior; 0 where rho is 0. */
  readonly nap: number;
  /** Share of the attention that lies in the boxes. */
  readonly share: number;
};

/** Numbers of one evaluation, on the host. */
export interface LayoutReport {
  /** `aef + rho nap`, reduced as the options say. */
  readonly energy: number;
  /** Per subject. */
  readonly subjects: readonly LayoutTerms[];
}

/** One attention map with what its energy gave. */
export interface EvaluatedMap {
  /** The reduced log-probabilities that were evaluated; seed of the way back. */
  readonly map: Tensor;
  /** Gradient of the energy on `map`. */
  readonly h: Tensor;
  /** `[rows, 3]`: aef, nap, share. */
  readonly terms: Tensor;
}

/**
 * The non-local attention energy of a layout:
 * `E = mean over sites and subjects of the mean over tokens and heads of (1 - f)^2 + rho KL(a in box, tau)`.
 *
 * @see WinWinLay, arXiv:2506.15563, eq. 2, 12 and 13.
 */
export class LayoutEnergy implements Disposable {
  /** Where the maps live. */
  readonly backend: Backend;
  /** Attention sites to be evaluated, in the order of execution. */
  readonly sites: readonly string[];
  /** Key positions to probe, subject after subject. */
  readonly probe: readonly number[];
  readonly #subjects: readonly Subject[];
  readonly #options: EnergyOptions;
  readonly #image: readonly [number, number];
  readonly #tables = new Map<string, EnergyTables>();
  readonly #runs: readonly number[];
  readonly #rho: Tensor;
  #weight = 0;
  #gate: readonly boolean[];

  /**
   * Prepares the energy; masks and priors are made when a grid is first seen.
   *
   * @param backend Where the maps live.
   * @param subjects What should be where.
   * @param sites Attention sites that will be evaluated.
   * @param image `[width, height]` in pixels, for `units: "pixels"`.
   */
  constructor(
    backend: Backend,
    subjects: readonly Subject[],
    sites: readonly string[],
    image: readonly [number, number],
    options: EnergyOptions = ENERGY_DEFAULTS,
  ) {
    this.backend = backend;
    this.#options = options;
    this.#subjects = subjects.map((s) => ({
      ...s,
      tokens: tokensOf(s, options.tokens),
    }));
    this.sites = sites;
    this.#image = image;
    this.probe = this.#subjects.flatMap((s) => s.tokens);
    this.#runs = this.#subjects.map((s) => s.tokens.length);
    this.#rho = backend.upload([this.#weight], [1]);
    this.#gate = subjects.map(() => true);
  }

  /**
   * Averages a site's log-probabilities over heads or tokens where the options ask for it. Recorded
   * on a tape, so that `evaluate` may give the gradient on the result.
   *
   * @param logProbs `[1, heads, probed tokens, height, width]`. Consumed.
   */
  reduce(logProbs: Tensor): Tensor {
    let map = logProbs;
    const { heads, tokens } = this.#options;
    const next = (axis: number, runs?: readonly number[]): void => {
      using old = map;
      map = logMean(old, axis, runs);
    };
    if (heads === "mean_map") next(1);
    if (tokens === "mean_map") next(2, this.#runs);
    return map;
  }

  /**
   * Averages a site's log-probabilities over heads and over the tokens of each subject.
   *
   * @param logProbs `[1, heads, probed tokens, height, width]`. Not consumed.
   * @returns `[1, 1, subjects, height, width]`; the caller disposes it.
   */
  mapsOf(logProbs: Tensor): Tensor {
    using perToken = logMean(logProbs, 1);
    return logMean(perToken, 2, this.#runs);
  }

  /** Sets the weight of the prior, where the next evaluations find it on the backend. */
  weigh(rho: number): void {
    if (rho === this.#weight) return;
    this.#weight = rho;
    this.backend.write(this.#rho, Float64Array.of(rho));
  }

  /** Energy terms of a reduced map and their gradient on it. The caller disposes both. */
  evaluate(map: Tensor, rho: number): EvaluatedMap {
    this.weigh(rho);
    const [, heads = 0, , height = 0, width = 0] = map.shape;
    const tables = this.#tablesFor(heads, height, width);
    return {
      map,
      ...layoutEnergy(map, tables, {
        rho: this.#rho,
        reverse: this.#options.divergence === "reverse",
      }),
    };
  }

  /** Sums up the terms of all sites, read from the backend. */
  report(terms: readonly ArrayLike<number>[], rho: number): LayoutReport {
    const perToken = this.#options.tokens !== "mean_map";
    const subjects = this.#subjects.map(() => ({ aef: 0, nap: 0, share: 0 }));
    for (const site of terms) {
      const rowOf = this.#subjects.flatMap((s, i) =>
        Array(perToken ? s.tokens.length : 1).fill(i) as number[]
      );
      const heads = site.length / 3 / rowOf.length;
      for (let r = 0; r < site.length / 3; r++) {
        const index = rowOf[r % rowOf.length]!;
        const scale = 1 /
          (terms.length * heads * (perToken ? this.#runs[index]! : 1));
        subjects[index]!.aef += scale * site[3 * r]!;
        subjects[index]!.nap += scale * site[3 * r + 1]!;
        subjects[index]!.share += scale * site[3 * r + 2]!;
      }
    }
    let energy = 0;
    subjects.forEach((s, i) =>
      energy += (this.#subjects[i]!.weight ?? 1) * (s.aef + rho * s.nap)
    );
    return {
      energy: this.#options.reduction === "mean"
        ? energy / subjects.length
        : energy * terms.length,
      subjects,
    };
  }

  /**
   * Lets only some subjects push, until the next call (A17).
   *
   * @returns Whether that changed anything.
   */
  gate(active: readonly boolean[]): boolean {
    if (active.every((a, i) => a === this.#gate[i])) return false;
    this.#gate = active;
    this.#clear();
    return true;
  }

  #tablesFor(heads: number, height: number, width: number): EnergyTables {
    const key = `${heads} ${height} ${width}`;
    let tables = this.#tables.get(key);
    if (!tables) {
      tables = this.#makeTables(heads, height, width);
      this.#tables.set(key, tables);
    }
    return tables;
  }

  #makeTables(heads: number, height: number, width: number): EnergyTables {
    const { lambda, units, distance, raster, reduction, tokens } =
      this.#options;
    const cells = height * width;
    const masks: Float64Array[] = [];
    const priors: Float64Array[] = [];
    const rows: number[] = [];
    let mostPriors = 0;
    const [imageWidth, imageHeight] = this.#image;
    this.#subjects.forEach((subject, i) => {
      masks.push(rasterizeShape(subject, width, height, raster));
      const own = shapePriors(subject, width, height, raster, {
        lambda,
        units,
        distance,
        imageWidth,
        imageHeight,
      });
      const list = this.#options.priors === "union_mixture" && own.length > 1
        ? [mixture(own, subject)]
        : own;
      const rowCount = tokens === "mean_map" ? 1 : subject.tokens.length;
      const share = reduction === "mean"
        ? 1 / (this.#subjects.length * this.sites.length)
        : 1;
      const weight = this.#gate[i]
        ? (subject.weight ?? 1) * share / (heads * rowCount)
        : 0;
      for (let r = 0; r < rowCount; r++) {
        rows.push(i, priors.length, list.length, weight);
      }
      priors.push(...list);
      mostPriors = Math.max(mostPriors, list.length);
    });
    if (priors.length === 0) {
      priors.push(new Float64Array(cells).fill(-Infinity));
    }
    const flat = (list: readonly Float64Array[]): Float32Array =>
      Float32Array.from(list.flatMap((x) => [...x]), (v) => Math.max(v, -2e30)); // no infinities in WGSL
    return {
      mask: this.backend.upload(flat(masks), [masks.length, cells]),
      logTau: this.backend.upload(flat(priors), [priors.length, cells]),
      rows: this.backend.upload(rows, [rows.length / 4, 4]),
      mostPriors,
    };
  }

  #clear(): void {
    for (const { mask, logTau, rows } of this.#tables.values()) {
      for (const x of [mask, logTau, rows]) {
        x.dispose();
      }
    }
    this.#tables.clear();
  }

  /** Frees masks and priors. */
  [Symbol.dispose](): void {
    this.#rho.dispose();
    this.#clear();
  }
}

/** Log of the area-weighted mean of priors. */
function mixture(
  priors: readonly Float64Array[],
  shape: Shape,
): Float64Array {
  const areas = shapeBoxes(shape).map(([x0, y0, x1, y1]) =>
    (x1 - x0) * (y1 - y0)
  );
  const total = areas.reduce((a, b) => a + b, 0);
  return priors[0]!.map((_, u) => {
    let sum = 0;
    priors.forEach((tau, j) => sum += areas[j]! / total * Math.exp(tau[u]!));
    return Math.log(sum);
  });
}
