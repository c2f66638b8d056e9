/**
 * WinWinLay: non-local attention energy and adaptive Langevin update.
 *
 * The paper leaves several points open; each is a typed option here, its letter in brackets, and the
 * default is the recommended reading.
 *
 * @see arXiv:2506.15563 (ICML 2025).
 */
import { langevinStep } from "../../kernels/langevin.ts";
import { ENERGY_DEFAULTS, type EnergyOptions } from "../energy.ts";
import { attentionSites, type UnetConfig } from "../unet.ts";
import type { GuidanceMethod } from "./method.ts";

/** Every choice of the method. */
export interface WinWinLayOptions extends EnergyOptions {
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
  /** Attention sites (A8): middle and first up block, the first half of those, or a list of diffusers' paths. */
  readonly sites: "middle_and_first_up" | "first_up_only" | readonly string[];
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

/** The paper's settings in the recommended reading. */
export const WINWINLAY_DEFAULTS: WinWinLayOptions = {
  ...ENERGY_DEFAULTS,
  steps: 10,
  iterations: 4,
  snr: 0.06,
  rho: [5, 0],
  rhoSchedule: "guided_steps",
  sites: "middle_and_first_up",
  score: "cond",
  placement: "before_step",
  nu: "per_iteration",
  nuFactor: 1,
  noise: "always",
  noiseNorm: "drawn",
  guard: 0.1,
  stopBelow: null,
  energyFloor: null,
};

/** The method with the given choices. */
export function winwinlay(options: WinWinLayOptions): GuidanceMethod {
  const { steps, iterations, rho: [first, last], rhoSchedule, nu, noise } =
    options;
  return {
    steps,
    iterations,
    placement: options.placement,
    energy: options,
    score: options.score,
    stopBelow: options.stopBelow ?? undefined,
    energyFloor: options.energyFloor ?? undefined,
    sites: (config) => guidedSites(config, options.sites),
    rho(step, total) {
      const span = {
        guided_steps: steps - 1,
        all_steps: total - 1,
        exclusive_end: steps,
        constant: Infinity,
      }[rhoSchedule];
      return first + (last - first) * step / Math.max(1, span);
    },
    update: (
      z,
      eps,
      grad,
      n,
      { iteration, iterations: count, alphaBar, state },
    ) =>
      langevinStep(z, eps, grad, n, state, {
        noiseLevel: Math.sqrt(1 - alphaBar),
        snr: options.snr,
        guard: options.guard,
        factor: options.nuFactor,
        adapt: nu === "per_iteration" || (nu === "per_step" && iteration === 0),
        ...(typeof nu === "number" ? { nu } : {}),
        addNoise: noise === "always" ||
          (noise === "not_last" && iteration < count - 1),
        expectedNorm: options.noiseNorm === "expected",
      }),
  };
}

/**
 * Sites of a model family: for SDXL, whose first up block has 30, only its first transformer's.
 */
export function defaultSites(
  { added }: UnetConfig,
): "middle_and_first_up" | "first_up_only" {
  return added ? "first_up_only" : "middle_and_first_up";
}

/**
 * Cross-attention sites to guide. A listed name may also be that of a transformer, such as
 * `down_blocks.2.attentions.1`, for all of its sites.
 *
 * @throws {RangeError} If a listed site is not one of the UNet's.
 */
export function guidedSites(
  config: UnetConfig,
  choice: WinWinLayOptions["sites"],
): string[] {
  const all = attentionSites(config).filter((site) => site.kind === "cross");
  if (typeof choice !== "string") {
    const named = (site: string) =>
      choice.some((name) => site === name || site.startsWith(`${name}.`));
    for (const id of choice) {
      if (!all.some((site) => site.id === id || site.id.startsWith(`${id}.`))) {
        throw new RangeError(
          `Cannot guide ${id}: it must be one of ${
            all.map((site) => site.id).join(", ")
          }`,
        );
      }
    }
    // In the order of execution, so that the tape may end at the last.
    return all.filter((site) => named(site.id)).map((site) => site.id);
  }
  const firstUp = all.find((site) => site.stage.startsWith("up_blocks"))?.stage;
  return all.filter(({ id, stage }) =>
    stage === "mid_block" ||
    (stage === firstUp &&
      (choice === "middle_and_first_up" ||
        id.startsWith(`${stage}.attentions.0.`)))
  ).map((site) => site.id);
}
