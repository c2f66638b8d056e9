/** Golden cases of kind `scheduler`: timesteps and trajectory on a linear model. */
import type { Tensor } from "../../kernels/backend.ts";
import { combine } from "../../kernels/combine.ts";
import { stackBatch } from "../../kernels/concat.ts";
import { guidedStep } from "../../kernels/guided_step.ts";
import {
  alphasCumprod,
  ddim,
  scheduleConfig,
} from "../../pipeline/scheduler.ts";
import type { GoldenCase } from "./case.ts";

/** Runs a case of kind `scheduler`: DDIM on `eps(x, t) = a x + b`. */
export async function runScheduler(c: GoldenCase): Promise<void> {
  const { steps, a, scheduler_config } = c.attributes;
  const config = scheduleConfig(scheduler_config, c.entry.id);
  const scheduler = ddim(config, steps);
  c.expect("alphas_cumprod", alphasCumprod(config));
  c.expect("timesteps", scheduler.timesteps);
  c.expect("init_noise_sigma", [1]); // DDIM starts from the noise as it is
  const b = await c.upload("input.b");
  const trajectory: Tensor[] = [await c.upload("input.noise")];
  const cleans: Tensor[] = [];
  for (let step = 0; step < steps; step++) {
    const z = trajectory.at(-1)!;
    using eps = combine(z, a, b, 1);
    using both = stackBatch([eps, eps]);
    const { next, clean } = guidedStep(
      z,
      both,
      1,
      scheduler.coefficients(step),
    );
    trajectory.push(c.own(next));
    cleans.push(c.own(clean));
  }
  c.expect("trajectory", trajectory);
  c.expect("pred_original", cleans);
  c.expect("model_inputs", trajectory.slice(0, -1)); // DDIM does not scale them
}
