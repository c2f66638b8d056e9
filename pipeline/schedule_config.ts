/** The noise schedule that a model was trained with. */
import { readConfig } from "./config.ts";

/** What a model predicts: its noise, or `v = sqrt(abar) eps - sqrt(1 - abar) x0`. */
export type Prediction = "epsilon" | "v_prediction";

/** How timesteps are spread over the training schedule; names and rules are diffusers'. */
export const SPACINGS = ["leading", "trailing", "linspace"] as const;

/** One of them. */
export type Spacing = typeof SPACINGS[number];

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
  /** DDIM: abar after the last step is 1 instead of the first of training. */
  readonly finalAlphaOne: boolean;
  /** DPM-Solver++: sigma after the last step. */
  readonly finalSigma: "zero" | "sigma_min";
  /** Spread sigmas as Karras et al. do, where the sampler can. */
  readonly karras: boolean;
  /** abar of the last train timestep is 0; for v-prediction. */
  readonly zeroTerminalSnr: boolean;
}

/** Spacing that diffusers' classes have where a config does not say it. */
const CLASS_SPACING: Readonly<Record<string, Spacing>> = {
  EulerDiscreteScheduler: "linspace",
  EulerAncestralDiscreteScheduler: "linspace",
  DPMSolverMultistepScheduler: "linspace",
};

/**
 * Reads and checks a `scheduler_config.json`. Its `_class_name` does not choose the sampler (most
 * checkpoints of SD1.x name PNDM): every sampler here starts from the same betas. It only says what
 * spacing is meant where the file does not: linspace for Euler and DPM-Solver, else leading.
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
  read.only("algorithm_type", ["dpmsolver++", undefined]);
  read.only("solver_order", [2, undefined]);
  read.only("solver_type", ["midpoint", undefined]);
  read.only("use_exponential_sigmas", [false, undefined]);
  read.only("use_beta_sigmas", [false, undefined]);
  read.only("use_flow_sigmas", [false, undefined]);
  read.only("use_lu_lambdas", [false, undefined]);
  read.only("euler_at_final", [false, undefined]);
  read.only("lower_order_final", [true, undefined]);
  read.only("interpolation_type", ["linear", undefined]);
  read.only("timestep_type", ["discrete", undefined]);
  read.only("final_sigmas_type", ["zero", "sigma_min", undefined]);
  const prediction = read.string("prediction_type", "epsilon") as Prediction;
  const zeroTerminalSnr = read.boolean("rescale_betas_zero_snr", false);
  if (zeroTerminalSnr && prediction !== "v_prediction") {
    read.only("rescale_betas_zero_snr", [false, undefined]);
  }
  read.only("prediction_type", ["epsilon", "v_prediction", undefined]);
  read.only("timestep_spacing", [...SPACINGS, undefined]);
  return {
    trainSteps: read.integer("num_train_timesteps", 1000),
    betaStart: read.number("beta_start"),
    betaEnd: read.number("beta_end"),
    betaSchedule: read.string(
      "beta_schedule",
    ) as ScheduleConfig["betaSchedule"],
    prediction,
    spacing: read.string(
      "timestep_spacing",
      CLASS_SPACING[String(config["_class_name"])] ?? "leading",
    ) as Spacing,
    offset: read.number("steps_offset", 0),
    finalAlphaOne: read.boolean("set_alpha_to_one", true),
    finalSigma: read.string(
      "final_sigmas_type",
      "zero",
    ) as ScheduleConfig["finalSigma"],
    karras: read.boolean("use_karras_sigmas", false),
    zeroTerminalSnr,
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
  return config.zeroTerminalSnr ? rescaled(out) : out;
}

/**
 * Shifts and scales `sqrt(abar)` so that the last is 0 and the first stays.
 *
 * @see Lin et al. 2023, arXiv:2305.08891, algorithm 1.
 */
function rescaled(alphas: Float64Array): Float64Array {
  const first = Math.sqrt(alphas[0]!), last = Math.sqrt(alphas.at(-1)!);
  return alphas.map((abar) =>
    ((Math.sqrt(abar) - last) * first / (first - last)) ** 2
  );
}
