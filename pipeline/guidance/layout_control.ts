/**
 * Layout-Control: backward guidance by the share of attention outside the boxes.
 *
 * `L = mean over sites, subjects, tokens and heads of (1 - f)^2`, f the share of a token's attention that
 * lies in its boxes; `z -= scale (1 - abar) dL/dz`. The authors' code takes `x -= scale sigma^2 dL/dx` in
 * the sigma space of its LMS sampler, which is the very same step. This is also the row "AEF + backprop"
 * of WinWinLay's Table 2.
 *
 * Where we differ: the sampler is the request's (DDIM unless said otherwise, theirs is LMS over 51
 * timesteps); a phrase's tokens are found by its pieces, not by counting words; with `raster` `trunc` a box
 * that covers no cell is an error, where the code adds a constant 1. Forward guidance is in neither.
 *
 * @see Chen, Laina and Vedaldi 2024, arXiv:2304.03373; silent-chen/layout-guidance at 50fcf75.
 */
import {
  ENERGY_DEFAULTS,
  type EnergyOptions,
  LayoutEnergy,
} from "../energy.ts";
import { deviceEnergy } from "./device_energy.ts";
import { gradientStep } from "./gradient_step.ts";
import type { GuidanceMethod, MethodSpec } from "./method.ts";
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
import { defaultSites, guidedSites, type SiteChoice } from "./sites.ts";
import { whileAbove } from "./stop.ts";

/** Every choice of the method. */
export interface LayoutControlOptions
  extends Pick<EnergyOptions, "tokens" | "heads" | "raster"> {
  /** Guided denoising steps. */
  readonly steps: number;
  /** Most updates per guided step. */
  readonly iterations: number;
  /** Step size, times `1 - abar`. */
  readonly scale: number;
  /** No more updates once the loss is at most this; null for never. */
  readonly threshold: number | null;
  /** A quirk of the code: the last loss of a step decides whether the next is guided at all. */
  readonly staleStop: boolean;
  /** Attention sites. */
  readonly sites: SiteChoice;
}

const OPTIONS: OptionTable<LayoutControlOptions> = {
  steps: whole(10, "guided denoising steps"),
  iterations: whole(5, "most updates per guided step", { least: 1 }),
  scale: real(30, "step size, times 1 - abar"),
  threshold: orNone(0.2, "no more updates once the loss is at most this"),
  staleStop: flag(true, "a step's last loss may end guidance for good"),
  tokens: choice(
    ["mean_energy", "mean_map", "last"],
    "mean_energy",
    "a loss per token of a phrase, of their mean map, or the last's",
  ),
  heads: choice(
    ["mean_energy", "mean_map"],
    "mean_energy",
    "a loss per head, or one of their mean map",
  ),
  raster: rasterChoice("trunc"),
  sites: siteChoice("middle_and_first_up"),
};

/** The values of the authors' code. */
export const LAYOUT_CONTROL_DEFAULTS: LayoutControlOptions = fallbacks(OPTIONS);

/** The method under its name. */
export const LAYOUT_CONTROL: MethodSpec<LayoutControlOptions> = {
  name: "layout-control",
  about: "share of attention outside the boxes, plain gradient steps",
  source: "Chen et al. 2024, arXiv:2304.03373",
  options: OPTIONS,
  defaultsFor: (config) => ({ sites: defaultSites(config) }),
  make: layoutControl,
};

/** The method with the given choices. */
export function layoutControl(options: LayoutControlOptions): GuidanceMethod {
  const { steps, iterations, scale, threshold, staleStop, sites } = options;
  const { tokens, heads, raster } = options;
  return {
    placement: "before_step",
    score: "none",
    iterations: (step) => step < steps ? iterations : 0,
    check: (config) => void guidedSites(config, sites),
    shapes: {
      sites: (config) => guidedSites(config, sites),
      raster: options.raster,
    },
    energy: ({ backend, config, subjects, image }) =>
      deviceEnergy(
        new LayoutEnergy(
          backend,
          subjects,
          guidedSites(config, sites),
          image,
          { ...ENERGY_DEFAULTS, tokens, heads, raster },
        ),
        { rho: () => 0, goOn: whileAbove(threshold, staleStop) },
      ),
    update: gradientStep(({ alphaBar }) => scale * (1 - alphaBar)),
  };
}
