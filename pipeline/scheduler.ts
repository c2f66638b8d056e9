/** Noise schedules: timesteps, alpha products and the coefficients of DDIM's linear step. */
import type { StepCoefficients } from "../kernels/guided_step.ts";
import { readConfig } from "./config.ts";

/** What a model predicts: its noise, or `v = sqrt(abar) eps - sqrt(1 - abar) x0`. */
export type Prediction = "epsilon" | "v_prediction";

/** How timesteps are spread over the training schedule; names and rules are diffusers'. */
export type Spacing = "leading" | "trailing" | "linspace";

/** What a scheduler's config says, checked. */
export interface ScheduleConfig {
  /** Timesteps of training, 1000. */
  readonly trainSteps: number;
  /** First beta. */
  readonly betaStart: number;
  /** Last beta. */
  readonly betaEnd: number;
  /** Linear in beta or in its root. */
  readonly betaSchedule: "scaled_linear" | "linear";
  /** What the model predicts. */
  readonly prediction: Prediction;
  /** How timesteps are spread. */
  readonly spacing: Spacing;
  /** Added to each timestep with leading spacing. */
  readonly offset: number;
  /** abar after the last step is 1 instead of the first of training. */
  readonly finalAlphaOne: boolean;
}

/**
 * Reads and checks a `scheduler_config.json`. Its `_class_name` does not matter: most checkpoints of
 * SD1.x name PNDM, and every sampler here starts from the same betas.
 */
export function scheduleConfig(
  config: Readonly<Record<string, unknown>>,
  name: string,
): ScheduleConfig {
  const read = readConfig(config, name);
  read.only("beta_schedule", ["scaled_linear", "linear"]);
  read.only("trained_betas", [null, undefined]);
  read.only("clip_sample", [false, undefined]);
  read.only("thresholding", [false, undefined]);
  read.only("rescale_betas_zero_snr", [false, undefined]);
  read.only("prediction_type", ["epsilon", "v_prediction", undefined]);
  read.only("timestep_spacing", ["leading", "trailing", "linspace", undefined]);
  return {
    trainSteps: read.integer("num_train_timesteps", 1000),
    betaStart: read.number("beta_start"),
    betaEnd: read.number("beta_end"),
    betaSchedule: read.string(
      "beta_schedule",
    ) as ScheduleConfig["betaSchedule"],
    prediction: read.string("prediction_type", "epsilon") as Prediction,
    spacing: read.string("timestep_spacing", "leading") as Spacing,
    offset: read.number("steps_offset", 0),
    finalAlphaOne: read.boolean("set_alpha_to_one", true),
  };
}

/** `abar_t = prod (1 - beta_s)`, s up to t; float64. */
export function alphasCumprod(config: ScheduleConfig): Float64Array {
  const { trainSteps, betaStart, betaEnd, betaSchedule } = config;
  const root = betaSchedule === "scaled_linear"
    ? Math.sqrt
    : (x: number): number => x;
  const first = root(betaStart), last = root(betaEnd);
  const out = new Float64Array(trainSteps);
  let product = 1;
  for (let t = 0; t < trainSteps; t++) {
    const value = first + (last - first) * t / Math.max(1, trainSteps - 1);
    product *= 1 - (betaSchedule === "scaled_linear" ? value * value : value);
    out[t] = product;
  }
  return out;
}

/** Timesteps of a sampler run and the way between them. */
export interface Scheduler {
  /** What the model predicts. */
  readonly prediction: Prediction;
  /** Train timesteps, noisiest first. */
  readonly timesteps: readonly number[];
  /** `abar` at a step; the noise level is `sqrt(1 - abar)`. */
  alphaBar(step: number): number;
  /** The linear step from `timesteps[step]` to the next, for the model's output. */
  coefficients(step: number): StepCoefficients;
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
  if (!(Number.isInteger(steps) && steps >= 1 && steps <= trainSteps)) {
    throw new RangeError(
      `Cannot sample: steps must be a whole number from 1 to ${trainSteps}: current ${steps}`,
    );
  }
  const alphas = alphasCumprod(config);
  const timesteps = spread(config, steps);
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
      const alpha = Math.sqrt(at(step)), sigma = Math.sqrt(1 - at(step));
      const alpha1 = Math.sqrt(after(step)),
        sigma1 = Math.sqrt(1 - after(step));
      // x0 = c z + d out, eps = e z + f out
      const [c, d, e, f] = prediction === "epsilon"
        ? [1 / alpha, -sigma / alpha, 0, 1]
        : [alpha, -sigma, sigma, alpha];
      return { a: alpha1 * c + sigma1 * e, b: alpha1 * d + sigma1 * f, c, d };
    },
  };
}

function spread(
  { trainSteps, spacing, offset }: ScheduleConfig,
  steps: number,
): number[] {
  const index = [...Array(steps).keys()];
  if (spacing === "leading") {
    const list = index.map((i) => i * Math.floor(trainSteps / steps) + offset)
      .toReversed();
    if (list[0]! >= trainSteps) {
      throw new RangeError(
        `Cannot sample: ${steps} steps with offset ${offset} must end below ${trainSteps}: current first timestep is ${
          list[0]
        }`,
      );
    }
    return list;
  }
  if (spacing === "trailing") {
    return index.map((i) =>
      Math.round(trainSteps - i * trainSteps / steps) - 1
    );
  }
  return index.map((i) =>
    Math.round(i * (trainSteps - 1) / Math.max(1, steps - 1))
  ).toReversed();
}
