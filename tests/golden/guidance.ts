/** Golden cases of kind `guidance`: inner iterations and the step after them. */
import type { Tensor } from "../../kernels/backend.ts";
import { combine } from "../../kernels/combine.ts";
import { stackBatch } from "../../kernels/concat.ts";
import { guidedStep } from "../../kernels/guided_step.ts";
import type {
  EnergyContext,
  GuidanceMethod,
} from "../../pipeline/guidance/method.ts";
import {
  winwinlay,
  WINWINLAY_DEFAULTS,
  type WinWinLayOptions,
} from "../../pipeline/guidance/winwinlay.ts";
import { sample } from "../../pipeline/sampler.ts";
import {
  alphasCumprod,
  scheduleConfig,
} from "../../pipeline/schedule_config.ts";
import { ddim, type Scheduler } from "../../pipeline/scheduler.ts";
import { loadUnet, type Unet, unetForward } from "../../pipeline/unet.ts";
import { energyGradient } from "../../pipeline/unet_grad.ts";
import type { GoldenCase } from "./case.ts";
import { subjectsOf, variantOf } from "./variant.ts";

/** Of SD1.5, as the cases say. */
const SCHEDULE = scheduleConfig({
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  steps_offset: 1,
  set_alpha_to_one: false,
}, "the schedule of SD1.5");

/** What all runs of a case share. */
interface Setting {
  readonly c: GoldenCase;
  readonly unet: Unet;
  readonly z0: Tensor;
  readonly cond: Tensor;
  readonly uncond: Tensor;
  readonly noises: readonly Float32Array[];
  /** 50 DDIM steps, of which only the one at the case's timestep. */
  readonly scheduler: Scheduler;
  readonly abar: number;
}

/** Runs a case of kind `guidance`. */
export async function runGuidance(c: GoldenCase): Promise<void> {
  const { timestep, inner_iterations, cfg, runs } = c.attributes;
  const unet = c.own(await loadUnet(c.backend, await c.weights()));
  const [z0, cond, uncond] = [
    await c.upload("input.z0"),
    await c.uploadSwapped("input.text_cond"),
    await c.uploadSwapped("input.text_uncond"),
  ];
  const noises = await c.floats("input.noises");
  const all = ddim(SCHEDULE, 50);
  const at = all.timesteps.indexOf(timestep);
  const abar = alphasCumprod(SCHEDULE)[timestep]!;
  const setting: Setting = {
    c,
    unet,
    z0,
    cond,
    uncond,
    noises: Array.from(
      { length: inner_iterations },
      (_, k) => noises.subarray(k * z0.size, (k + 1) * z0.size),
    ),
    scheduler: {
      prediction: all.prediction,
      timesteps: [timestep],
      alphaBar: () => all.alphaBar(at),
      coefficients: () => all.coefficients(at),
    },
    abar,
  };
  c.expect("abar", [abar]);
  const u = c.own(unetForward(unet, z0, timestep, { states: uncond }));
  const e = c.own(unetForward(unet, z0, timestep, { states: cond }));
  using both = stackBatch([u, e]);
  // With these coefficients the step gives the guided prediction itself.
  const { next, clean } = guidedStep(z0, both, cfg, { a: 0, b: 1, c: 1, d: 0 });
  clean.dispose();
  c.expect("iter0.eps_uncond", u);
  c.expect("iter0.eps_cond", e);
  c.expect("iter0.eps_cfg", c.own(next));
  for (const [energy, score] of runs) await langevinRun(setting, energy, score);
  const backward = c.expected().map((n) => n.match(/^bg\.(.*)\.energy$/)?.[1]);
  for (const heads of backward) if (heads) await backwardRun(setting, heads);
}

/** The sampler's own step, with a method that lets everything be seen. */
async function langevinRun(
  setting: Setting,
  name: string,
  score: WinWinLayOptions["score"],
): Promise<void> {
  const { c, unet, z0, noises, scheduler, abar } = setting;
  const { rho, r, inner_iterations: iterations, cfg } = c.attributes;
  const { options } = variantOf(`naef.${name}`)!;
  const choices: WinWinLayOptions = {
    ...WINWINLAY_DEFAULTS,
    ...options,
    score,
    snr: r,
    rho: [rho, rho],
    steps: 1,
    iterations,
  };
  const method = winwinlay(choices);
  const silent = winwinlay({ ...choices, noise: "never" });
  using zero = c.backend.upload(new Float32Array(z0.size), z0.shape);
  const key = `${name}.${score}`;
  const drifts: Tensor[] = [];
  let last = z0;
  const watched: GuidanceMethod = {
    ...method,
    update(z, eps, grad, noise, context) {
      const iter = `${key}.iter${context.iteration}`;
      const noiseLevel = Math.sqrt(1 - context.alphaBar);
      c.expect(
        `${iter}.score`,
        c.own(eps.retain()),
        (values) => values.map((v) => -v / noiseLevel),
      );
      c.expect(`${iter}.gradE`, c.own(grad.retain()));
      // From 0 and without noise the update is xi g.
      drifts.push(c.own(silent.update(zero, eps, grad, noise, context)));
      const next = method.update(z, eps, grad, noise, context);
      last = c.own(next.retain());
      c.expect(`${iter}.z_next`, last);
      return next;
    },
  };
  using energy = method.energy(contextOf(setting));
  const final = await sample(unet, {
    cond: { states: setting.cond },
    uncond: { states: setting.uncond },
    guidanceScale: cfg,
    scheduler,
    noise: {
      initial: () => z0.retain(),
      langevin: (shape, _, k) => c.backend.upload(noises[k]!, shape),
      ancestral: () => {
        throw new Error("DDIM asks for none");
      },
    },
    shape: z0.shape,
    measure: undefined,
    guide: { method: watched, energy },
    onStep: async ({ inner, clean }) => {
      for (const [k, { energy, nu, xi }] of inner.entries()) {
        const iter = `${key}.iter${k}`;
        c.expect(`${iter}.energy`, [energy]);
        c.expect(`${iter}.nu`, [nu]);
        c.expect(`${iter}.xi`, [xi]);
        c.expect(
          `${iter}.g`,
          drifts[k]!,
          (values) => values.map((v) => v / xi),
        );
      }
      // The step gives x0, and x0 = (z - sqrt(1 - abar) eps) / sqrt(abar).
      const [x0, z] = await c.backend.read([clean, last]);
      c.expect(
        `${key}.final.eps_cfg`,
        z!.map((v, i) => (v - Math.sqrt(abar) * x0![i]!) / Math.sqrt(1 - abar)),
      );
    },
  });
  c.expect(`${key}.final.z_prev`, c.own(final));
}

/** One update of backward guidance: the energy of shares alone, a plain gradient step. */
async function backwardRun(
  setting: Setting,
  heads: string,
): Promise<void> {
  const { c, unet, z0, cond, abar } = setting;
  const { options } = variantOf(`aef.${heads}`)!;
  const { timestep, eta } = c.attributes;
  const method = winwinlay({
    ...WINWINLAY_DEFAULTS,
    ...options,
    energy: "aef",
    update: "backprop",
    eta,
  });
  using energy = method.energy(contextOf(setting));
  const at = { step: 0, steps: 1, iteration: 0 };
  const { output, grad, terms, report } = await energyGradient(
    unet,
    z0,
    timestep,
    { states: cond },
    { energy, at },
  );
  for (const x of [output, grad, ...terms]) c.own(x);
  const { energy: value } = report(await c.backend.read(terms));
  c.expect(`bg.${heads}.energy`, [value]);
  c.expect(`bg.${heads}.gradE`, grad);
  const sigma2 = c.own(combine(z0, 1, grad, -eta * (1 - abar) / abar));
  c.expect(`bg.${heads}.z_next_sigma2`, sigma2);
  using state = c.backend.upload(new Float32Array(6), [1, 6]);
  const context = { ...at, iterations: 1, alphaBar: abar, state };
  const next = c.own(method.update(z0, output, grad, z0, context));
  c.expect(`bg.${heads}.z_next_official`, next);
}

/** What the methods are told of a case. */
function contextOf({ c, unet, z0, cond }: Setting): EnergyContext {
  const [, , height = 0, width = 0] = z0.shape;
  return {
    backend: c.backend,
    config: unet.config,
    subjects: subjectsOf(c),
    image: [8 * width, 8 * height],
    grid: [height, width],
    textLength: cond.shape[2]!,
    promptLength: cond.shape[2]!,
    seed: 0,
  };
}
