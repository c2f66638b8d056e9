/** Golden cases of kind `scheduler`: timesteps and trajectory on a linear model. */
import type { Tensor } from "../../kernels/backend.ts";
import { combine } from "../../kernels/combine.ts";
import { stackBatch } from "../../kernels/concat.ts";
import {
  alphasCumprod,
  type ScheduleConfig,
  scheduleConfig,
} from "../../pipeline/schedule_config.ts";
import {
  ddim,
  dpmSolver,
  euler,
  eulerAncestral,
  type Scheduler,
} from "../../pipeline/scheduler.ts";
import { schedulerStep } from "../../pipeline/scheduler_step.ts";
import type { GoldenCase } from "./case.ts";

/** By diffusers' class, which the case's oracle names. */
const SAMPLERS: Readonly<
  Record<string, (config: ScheduleConfig, steps: number) => Scheduler>
> = {
  DDIMScheduler: ddim,
  DPMSolverMultistepScheduler: dpmSolver,
  EulerDiscreteScheduler: euler,
  EulerAncestralDiscreteScheduler: eulerAncestral,
};

/** Runs a case of kind `scheduler` on `eps(x, t) = a scale_model_input(x) + b`. */
export async function runScheduler(c: GoldenCase): Promise<void> {
  const { steps, a, scheduler_config } = c.attributes;
  const name = String(c.entry.oracle).split(" ").at(-1)!;
  const config = scheduleConfig(
    { _class_name: name, ...scheduler_config },
    c.entry.id,
  );
  const scheduler = SAMPLERS[name]!(config, steps);
  // diffusers' Euler samplers keep x = z sqrt(1 + sigma^2), all others z.
  const inSigma = name.startsWith("Euler");
  const sigma = (step: number): number => {
    if (step === steps) return 0;
    const abar = scheduler.alphaBar(step);
    return Math.sqrt((1 - abar) / abar);
  };
  const scale = (step: number): number =>
    inSigma ? Math.sqrt(1 + sigma(step) ** 2) : 1;
  c.expect("alphas_cumprod", alphasCumprod(config));
  c.expect("timesteps", scheduler.timesteps);
  const initial = scheduler.initialScale ?? 1;
  c.expect("init_noise_sigma", [initial * scale(0)]);
  if (c.has("expected.sigmas")) {
    c.expect("sigmas", Array.from({ length: steps + 1 }, (_, i) => sigma(i)));
  }
  const b = await c.upload("input.b");
  const noise = await c.upload("input.noise");
  const fresh = c.has("input.step_noises")
    ? await c.floats("input.step_noises")
    : undefined;
  const latents: Tensor[] = [c.own(combine(noise, initial, noise, 0))];
  const cleans: Tensor[] = [];
  for (let step = 0; step < steps; step++) {
    const z = latents.at(-1)!;
    using eps = combine(z, a, b, 1);
    using outputs = stackBatch([eps, eps]);
    const { next, clean } = schedulerStep(z, scheduler.coefficients(step), {
      outputs,
      guidanceScale: 1,
      previous: cleans.at(-1),
      noise: () =>
        c.backend.upload(
          fresh!.subarray(step * z.size, (step + 1) * z.size),
          z.shape,
        ),
    });
    latents.push(c.own(next));
    cleans.push(c.own(clean));
  }
  const trajectory = latents.map((z, step) =>
    c.own(combine(z, scale(step), z, 0))
  );
  c.expect("trajectory", trajectory);
  if (c.has("expected.pred_original")) c.expect("pred_original", cleans);
  c.expect("model_inputs", latents.slice(0, -1)); // scaled, they are z
}
