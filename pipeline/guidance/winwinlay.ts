/**
 * WinWinLay: non-local attention energy and adaptive Langevin update.
 *
 * The paper leaves several points open; each is a typed option here, its letter in brackets, and the
 * default is the recommended reading.
 *
 * @see arXiv:2506.15563 (ICML 2025).
 */
import { langevinStep } from "../../kernels/langevin.ts";
import {
  ENERGY_DEFAULTS,
  type EnergyOptions,
  LayoutEnergy,
} from "../energy.ts";
import { deviceEnergy } from "./device_energy.ts";
import { gradientStep } from "./gradient_step.ts";
import type { GuidanceMethod, MethodSpec, UpdateRule } from "./method.ts";
import {
  choice,
  fallbacks,
  nameOrNumber,
  type OptionTable,
  orNone,
  pair,
  rasterChoice,
  real,
  siteChoice,
  whole,
} from "./options.ts";
import { defaultSites, guidedSites, type SiteChoice } from "./sites.ts";

/** Every choice of the method. */
export interface WinWinLayOptions extends EnergyOptions {
  /**
   * The paper's Table 2, first half: the non-local energy (`naef`), or the attention energy alone (`aef`),
   * which is the same as rho 0.
   */
  readonly energy: "naef" | "aef";
  /**
   * The paper's Table 2, second half: the adaptive Langevin update, or `backprop`,
   * `z -= eta (1 - abar) grad E`, the step of Layout-Control. `backprop` has no use for snr, score, nu,
   * nuFactor, noise, noiseNorm and guard.
   */
  readonly update: "adaptive" | "backprop";
  /** Step of `backprop`; the energy should then be a mean, and iterations 5 and stopBelow 0.2 (A21). */
  readonly eta: number;
  /** Guided denoising steps. */
  readonly steps: number;
  /** Langevin updates per guided step, the paper's O (A12). */
  readonly iterations: number;
  /** Ratio of drift to noise, the paper's r. */
  readonly snr: number;
  /** Weight of the prior at the first and the last point of its schedule. */
  readonly rho: readonly [number, number];
  /** Over what rho falls (A4): the guided steps with both ends, all steps, without the end, or not at all. */
  readonly rhoSchedule:
    | "guided_steps"
    | "all_steps"
    | "exclusive_end"
    | "constant";
  /** Attention sites (A8): `middle_and_first_up` in the recommended reading. */
  readonly sites: SiteChoice;
  /** Which score stands for grad log p (A9). */
  readonly score: "cond" | "uncond" | "cfg";
  /** Refine before the denoising step, or its result at the next timestep (A11). */
  readonly placement: "before_step" | "after_step";
  /** Balance of the two forces (A13): norms of each iteration, of each step's first, or a constant. */
  readonly nu: "per_iteration" | "per_step" | number;
  /** Factor on nu (Figure 7 of the paper). */
  readonly nuFactor: number;
  /** Whether the noise term is added (A14). */
  readonly noise: "always" | "not_last" | "never";
  /** Norm of the noise in the step size (A16): the drawn one, or its expectation. */
  readonly noiseNorm: "drawn" | "expected";
  /** Smallest drift as a share of the score, against a step without bound. */
  readonly guard: number;
  /** End a step's iterations once the energy is below this; null for never (A17). */
  readonly stopBelow: number | null;
  /** A phrase stops pushing once its `(1 - share)^2` is below this; null for never (A17). */
  readonly energyFloor: number | null;
}

/** The options as a table; fallbacks are the paper's settings in the recommended reading. */
const OPTIONS: OptionTable<WinWinLayOptions> = {
  energy: choice(
    ["naef", "aef"],
    "naef",
    "with the prior, or the share in the box alone",
  ),
  update: choice(
    ["adaptive", "backprop"],
    "adaptive",
    "Langevin, or a plain gradient step",
  ),
  eta: real(30, "step of backprop, times 1 - abar"),
  steps: whole(10, "guided denoising steps"),
  iterations: whole(4, "updates per guided step", { least: 1 }),
  snr: real(0.06, "ratio of drift to noise", { most: 10 }),
  rho: pair([5, 0], "weight of the prior at its first and last step"),
  rhoSchedule: choice(
    ["guided_steps", "all_steps", "exclusive_end", "constant"],
    "guided_steps",
    "over what rho falls",
  ),
  lambda: real(ENERGY_DEFAULTS.lambda, "peakedness of the prior"),
  units: choice(
    ["unit", "cells", "pixels"],
    ENERGY_DEFAULTS.units,
    "unit of the prior's distances",
  ),
  distance: choice(
    ["paper", "scale_invariant"],
    ENERGY_DEFAULTS.distance,
    "the prior's distance; scale_invariant goes with lambda 2",
  ),
  divergence: choice(
    ["forward", "reverse"],
    ENERGY_DEFAULTS.divergence,
    "KL(attention, prior), or the other way round",
  ),
  heads: choice(
    ["mean_energy", "mean_map"],
    ENERGY_DEFAULTS.heads,
    "an energy per head, or one of their mean map",
  ),
  tokens: choice(
    ["mean_energy", "mean_map", "last"],
    ENERGY_DEFAULTS.tokens,
    "an energy per token of a phrase, of their mean map, or the last's",
  ),
  reduction: choice(
    ["mean", "sum"],
    ENERGY_DEFAULTS.reduction,
    "over attention sites and phrases",
  ),
  priors: choice(
    ["per_box", "union_mixture"],
    ENERGY_DEFAULTS.priors,
    "several boxes of a phrase",
  ),
  raster: rasterChoice(ENERGY_DEFAULTS.raster),
  sites: siteChoice("middle_and_first_up"),
  score: choice(
    ["cond", "uncond", "cfg"],
    "cond",
    "which prediction is the score",
  ),
  placement: choice(
    ["before_step", "after_step"],
    "before_step",
    "refine before or after the denoising step",
  ),
  nu: nameOrNumber(
    ["per_iteration", "per_step"],
    "per_iteration",
    "balance of the forces: per_iteration, per_step or a number",
  ),
  nuFactor: real(1, "factor on nu"),
  noise: choice(
    ["always", "not_last", "never"],
    "always",
    "when Langevin noise is added",
  ),
  noiseNorm: choice(
    ["drawn", "expected"],
    "drawn",
    "norm of the noise in the step size",
  ),
  guard: real(0.1, "smallest drift as a share of the score", { least: 1e-6 }),
  stopBelow: orNone(null, "end a step's iterations below this energy"),
  energyFloor: orNone(null, "a phrase below this energy stops pushing"),
};

/** The paper's settings in the recommended reading. */
export const WINWINLAY_DEFAULTS: WinWinLayOptions = fallbacks(OPTIONS);

/** The method under its name. */
export const WINWINLAY: MethodSpec<WinWinLayOptions> = {
  name: "winwinlay",
  about: "non-local attention energy, adaptive Langevin update",
  source: "ICML 2025, arXiv:2506.15563",
  options: OPTIONS,
  // Of the 40 sites that the paper's rule gives SDXL, 20.
  defaultsFor: (config) => ({ sites: defaultSites(config) }),
  make: winwinlay,
};

/** The method with the given choices. */
export function winwinlay(options: WinWinLayOptions): GuidanceMethod {
  const { steps, iterations, stopBelow, energyFloor } = options;
  return {
    placement: options.placement,
    score: options.update === "adaptive" ? options.score : "none",
    iterations: (step) => step < steps ? iterations : 0,
    check: (config) => void guidedSites(config, options.sites),
    shapes: {
      sites: (config) => guidedSites(config, options.sites),
      raster: options.raster,
    },
    energy: ({ backend, config, subjects, image }) =>
      deviceEnergy(
        new LayoutEnergy(
          backend,
          subjects,
          guidedSites(config, options.sites),
          image,
          options,
        ),
        {
          rho: (at) => rhoAt(options, at.step, at.steps),
          floor: energyFloor ?? undefined,
          goOn: (at, last) =>
            at.iteration === 0 || stopBelow === null || !last ||
            last.energy >= stopBelow,
        },
      ),
    update: options.update === "adaptive"
      ? langevinUpdate(options)
      : gradientStep(({ alphaBar }) => options.eta * (1 - alphaBar)),
  };
}

/** Weight of the prior at a step (A4). */
export function rhoAt(
  { energy, rho: [first, last], rhoSchedule, steps, placement }: Pick<
    WinWinLayOptions,
    "energy" | "rho" | "rhoSchedule" | "steps" | "placement"
  >,
  step: number,
  total: number,
): number {
  if (energy === "aef") return 0;
  const guided = Math.min(steps, total - Number(placement === "after_step"));
  const span = {
    guided_steps: guided - 1,
    all_steps: total - 1,
    exclusive_end: guided,
    constant: Infinity,
  }[rhoSchedule];
  return first + (last - first) * step / Math.max(1, span);
}

function langevinUpdate(options: WinWinLayOptions): UpdateRule {
  const { nu, noise } = options;
  return (z, eps, grad, n, { iteration, iterations, alphaBar, state }) =>
    langevinStep(z, eps, grad, n, state, {
      noiseLevel: Math.sqrt(1 - alphaBar),
      snr: options.snr,
      guard: options.guard,
      factor: options.nuFactor,
      adapt: nu === "per_iteration" || (nu === "per_step" && iteration === 0),
      ...(typeof nu === "number" ? { nu: nu * options.nuFactor } : {}),
      addNoise: noise === "always" ||
        (noise === "not_last" && iteration < iterations - 1),
      expectedNorm: options.noiseNorm === "expected",
    });
}
