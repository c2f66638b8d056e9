/** latent, both predictions -> the next latent: one step of any sampler, on the device. */
import type { Tensor } from "../kernels/backend.ts";
import { combine } from "../kernels/combine.ts";
import { guidedStep } from "../kernels/guided_step.ts";
import type { SchedulerStep } from "./scheduler.ts";

/** What a step reads besides the latent. */
export interface StepInputs {
  /** The model's outputs `[2, 4, height, width]`: without and with the prompt. */
  readonly outputs: Tensor;
  /** Classifier-free guidance scale. */
  readonly guidanceScale: number;
  /** The clean latent of the step before, if there was one. */
  readonly previous: Tensor | undefined;
  /** Fresh noise like the latent; asked for only where the sampler adds some. */
  readonly noise: () => Tensor;
}

/**
 * Takes one step.
 *
 * @param z `[1, 4, height, width]`.
 * @returns The latent after it and the predicted clean latent; the caller disposes both.
 */
export function schedulerStep(
  z: Tensor,
  step: SchedulerStep,
  { outputs, guidanceScale, previous, noise }: StepInputs,
): { readonly next: Tensor; readonly clean: Tensor } {
  let { next, clean } = guidedStep(z, outputs, guidanceScale, step);
  const add = (x: Tensor, factor: number): void => {
    using before = next;
    next = combine(before, 1, x, factor);
  };
  if (step.previous && previous) add(previous, step.previous);
  if (step.noise) {
    using fresh = noise();
    add(fresh, step.noise);
  }
  return { next, clean };
}
