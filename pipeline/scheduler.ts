/**
 * Noise schedules and samplers: timesteps, and the coefficients of each sampler's linear step.
 *
 * The latent is variance-preserving throughout, `z = sqrt(abar) x0 + sqrt(1 - abar) eps`; a sampler that
 * is written for `x = z sqrt(1 + sigma^2)` is converted, which changes nothing (the Langevin update is
 * equivariant too, methods of k-diffusion and diffusers differ only in this factor).
 */
import type { StepCoefficients } from "../kernels/guided_step.ts";
import { nearest } from "./nearest.ts";
import {
  alphasCumprod,
  type Prediction,
  type ScheduleConfig,
} from "./schedule_config.ts";
import {
  interpolate,
  karras,
  type SigmaLadder,
  sigmaTimesteps,
  spread,
} from "./timesteps.ts";

/** The samplers, by the names people know them by. */
export const SCHEDULERS = [
  "ddim",
  "dpmpp_2m",
  "dpmpp_2m_karras",
  "euler",
  "euler_a",
] as const;

/** A sampler. */
export type SchedulerName = typeof SCHEDULERS[number];

/** What other Stable Diffusion tools call them. */
export const SCHEDULER_TITLES: Readonly<Record<SchedulerName, string>> = {
  ddim: "DDIM",
  dpmpp_2m: "DPM++ 2M",
  dpmpp_2m_karras: "DPM++ 2M Karras",
  euler: "Euler",
  euler_a: "Euler a",
};

/** One step: `z' = a z + b out + previous x0' + noise n`, `x0 = c z + d out`, x0' that of the step before. */
export interface SchedulerStep extends StepCoefficients {
  /** Factor on the clean latent of the step before; multistep samplers only. */
  readonly previous?: number;
  /** Factor on fresh N(0, 1) noise; ancestral samplers only. */
  readonly noise?: number;
}

/** Timesteps of a sampler run and the way between them. */
export interface Scheduler {
  /** What the model predicts. */
  readonly prediction: Prediction;
  /** Train timesteps, noisiest first; not always whole numbers. */
  readonly timesteps: readonly number[];
  /** The first latent is N(0, 1) noise times this. Default 1. */
  readonly initialScale?: number;
  /** `abar` at a step; the noise level is `sqrt(1 - abar)`. */
  alphaBar(step: number): number;
  /** The linear step from `timesteps[step]` to the next, for the model's output. */
  coefficients(step: number): SchedulerStep;
}

/**
 * A sampler for a model.
 *
 * @param steps Number of steps, 1 to the number of train timesteps.
 * @throws {RangeError} If there are no such steps or there is no such sampler.
 */
export function makeScheduler(
  name: SchedulerName,
  config: ScheduleConfig,
  steps: number,
): Scheduler {
  const make = {
    ddim,
    dpmpp_2m: dpmSolver,
    dpmpp_2m_karras: (c: ScheduleConfig, n: number) =>
      dpmSolver({ ...c, karras: true }, n),
    euler,
    euler_a: eulerAncestral,
  }[name];
  if (!make) {
    throw new RangeError(
      `Cannot sample: the scheduler must be one of ${
        SCHEDULERS.join(", ")
      }: current ${JSON.stringify(name)}; did you mean ${
        nearest(String(name), SCHEDULERS)
      }?`,
    );
  }
  return make(config, steps);
}

function checkSteps({ trainSteps }: ScheduleConfig, steps: number): void {
  if (!(Number.isInteger(steps) && steps >= 1 && steps <= trainSteps)) {
    throw new RangeError(
      `Cannot sample: steps must be a whole number from 1 to ${trainSteps}: current ${steps}`,
    );
  }
}

/**
 * DDIM with eta 0.
 *
 * `z' = sqrt(abar') x0 + sqrt(1 - abar') eps`, `x0 = (z - sqrt(1 - abar) eps) / sqrt(abar)`.
 *
 * @param steps Number of steps, 1 to the number of train timesteps.
 * @throws {RangeError} If there are no such steps.
 * @see Song et al. 2021, arXiv:2010.02502, eq. 12; diffusers `DDIMScheduler`.
 */
export function ddim(config: ScheduleConfig, steps: number): Scheduler {
  const { trainSteps, prediction } = config;
  checkSteps(config, steps);
  const alphas = alphasCumprod(config);
  const timesteps = spread(config, steps, config.spacing);
  const stride = Math.floor(trainSteps / steps);
  const at = (step: number): number => alphas[timesteps[step]!]!;
  const after = (step: number): number => {
    const previous = timesteps[step]! - stride;
    return previous >= 0
      ? alphas[previous]!
      : config.finalAlphaOne
      ? 1
      : alphas[0]!;
  };
  return {
    prediction,
    timesteps,
    alphaBar: at,
    coefficients(step) {
      const { c, d, e, f } = split(at(step), prediction);
      const alpha = Math.sqrt(after(step)), sigma = Math.sqrt(1 - after(step));
      return { a: alpha * c + sigma * e, b: alpha * d + sigma * f, c, d };
    },
  };
}

/** `x0 = c z + d out` and `eps = e z + f out` at `abar`. */
function split(
  abar: number,
  prediction: Prediction,
): { c: number; d: number; e: number; f: number } {
  const alpha = Math.sqrt(abar), sigma = Math.sqrt(1 - abar);
  return prediction === "epsilon"
    ? { c: 1 / alpha, d: -sigma / alpha, e: 0, f: 1 }
    : { c: alpha, d: -sigma, e: sigma, f: alpha };
}

/** What all samplers over sigmas share; `step` gives `x' = keep x + push x0 + ...` in sigma space. */
function overSigmas(
  { prediction }: ScheduleConfig,
  { timesteps, sigmas, initialScale }: SigmaLadder,
  move: (
    step: number,
  ) => {
    readonly keep: number;
    readonly push: number;
    readonly previous?: number;
    readonly noise?: number;
  },
): Scheduler {
  const root = (step: number): number => Math.sqrt(1 + sigmas[step]! ** 2);
  return {
    prediction,
    timesteps,
    initialScale,
    alphaBar: (step) => 1 / root(step) ** 2,
    coefficients(step) {
      const { c, d } = split(1 / root(step) ** 2, prediction);
      const { keep, push, previous = 0, noise = 0 } = move(step);
      const to = root(step + 1);
      return {
        a: (keep * root(step) + push * c) / to,
        b: push * d / to,
        c,
        d,
        ...previous ? { previous: previous / to } : {},
        ...noise ? { noise: noise / to } : {},
      };
    },
  };
}

/**
 * Euler's method in sigma: `x' = x + (sigma' - sigma) (x - x0) / sigma`.
 *
 * @see Karras et al. 2022, arXiv:2206.00364, algorithm 1 without churn; diffusers `EulerDiscreteScheduler`.
 */
export function euler(config: ScheduleConfig, steps: number): Scheduler {
  checkSteps(config, steps);
  const ladder = eulerLadder(config, steps, config.karras);
  const { sigmas } = ladder;
  return overSigmas(config, ladder, (step) => {
    const ratio = sigmas[step + 1]! / sigmas[step]!;
    return { keep: ratio, push: 1 - ratio };
  });
}

/**
 * Euler's method down to a lower sigma, then fresh noise up to the next.
 *
 * @see k-diffusion `sample_euler_ancestral`; diffusers `EulerAncestralDiscreteScheduler`.
 */
export function eulerAncestral(
  config: ScheduleConfig,
  steps: number,
): Scheduler {
  checkSteps(config, steps);
  const ladder = eulerLadder(config, steps, false);
  const { sigmas } = ladder;
  return overSigmas(config, ladder, (step) => {
    const from = sigmas[step]!, to = sigmas[step + 1]!;
    const up = Math.sqrt(to ** 2 * (from ** 2 - to ** 2) / from ** 2);
    const ratio = Math.sqrt(to ** 2 - up ** 2) / from;
    return { keep: ratio, push: 1 - ratio, noise: up };
  });
}

function eulerLadder(
  config: ScheduleConfig,
  steps: number,
  useKarras: boolean,
): SigmaLadder {
  const all = trainSigmas(config);
  let timesteps = sigmaTimesteps(config, steps);
  let sigmas = timesteps.map((t) => interpolate(all, t));
  if (useKarras) {
    ({ sigmas, timesteps } = karras(all, steps, sigmas));
  }
  const first = sigmas[0]!;
  return {
    timesteps,
    sigmas: [...sigmas, 0],
    // With these spacings diffusers starts from sigma n instead of sqrt(1 + sigma^2) n.
    initialScale: config.spacing === "leading"
      ? 1
      : first / Math.sqrt(1 + first ** 2),
  };
}

/**
 * DPM-Solver++ 2M, the second-order multistep solver in data prediction; the last step is of first
 * order.
 *
 * With `lambda = -log sigma` and `h = lambda' - lambda`:
 * `x' = sigma'/sigma x + (1 - exp(-h)) (x0 + (x0 - x0_before) / (2 r))`, `r = h_before / h`.
 *
 * @see Lu et al. 2022, arXiv:2211.01095, algorithm 2; diffusers `DPMSolverMultistepScheduler`.
 */
export function dpmSolver(config: ScheduleConfig, steps: number): Scheduler {
  checkSteps(config, steps);
  const all = trainSigmas(config);
  let timesteps: number[] = spread(config, steps, config.spacing, 1);
  let sigmas = timesteps.map((t) => interpolate(all, t));
  if (config.karras) {
    ({ sigmas, timesteps } = karras(all, steps));
    timesteps = timesteps.map(Math.round);
  }
  sigmas = [...sigmas, config.finalSigma === "zero" ? 0 : all[0]!];
  const ladder = { timesteps, sigmas, initialScale: 1 };
  return overSigmas(config, ladder, (step) => {
    const from = sigmas[step]!, to = sigmas[step + 1]!;
    const keep = to / from, push = 1 - keep; // exp(-h) = sigma' / sigma
    const last = step === steps - 1 &&
      (config.finalSigma === "zero" || steps < 15);
    if (step === 0 || last) return { keep, push };
    const h = Math.log(from / to);
    const before = Math.log(sigmas[step - 1]! / from);
    const extra = push * h / (2 * before);
    return { keep, push: push + extra, previous: -extra };
  });
}

/** k-diffusion's sigma of every train timestep, rising. */
function trainSigmas(config: ScheduleConfig): number[] {
  return Array.from(
    alphasCumprod(config),
    // What diffusers puts for an abar of 0, so that sigma is a number.
    (abar) => Math.sqrt((1 - abar) / Math.max(abar, 2 ** -24)),
  );
}
