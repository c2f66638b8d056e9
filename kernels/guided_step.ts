/** Classifier-free guidance and a linear sampler step. */
import wgsl from "./guided_step.wgsl" with { type: "text" };
import {
  elementGroups,
  expectSize,
  type Kernel,
  type Tensor,
} from "./backend.ts";
import { guidedStepRef } from "./guided_step_ref.ts";

const KERNEL: Kernel = {
  name: "guided_step",
  wgsl,
  bindings: "rrww",
  params: ["count", "scale:f", "a:f", "b:f", "c0:f", "d:f"],
  ref: guidedStepRef,
};

/** Coefficients of a linear step: `next = a z + b e`, `clean = c z + d e`, e the model's guided output. */
export interface StepCoefficients {
  /** Of the latent in the next latent. */
  readonly a: number;
  /** Of the model's output in the next latent. */
  readonly b: number;
  /** Of the latent in the predicted clean latent. */
  readonly c: number;
  /** Of the model's output in the predicted clean latent. */
  readonly d: number;
}

/**
 * `e = u + scale (c - u)`, then `next` and `clean` as the coefficients say.
 *
 * @param z Latent, `[batch, ...]`.
 * @param outputs Model outputs `[2 batch, ...]`: unconditional first, conditional second.
 * @returns The next latent and the predicted clean latent.
 * @see Ho and Salimans 2022, arXiv:2207.12598; Song et al. 2021, arXiv:2010.02502.
 */
export function guidedStep(
  z: Tensor,
  outputs: Tensor,
  scale: number,
  { a, b, c, d }: StepCoefficients,
): { readonly next: Tensor; readonly clean: Tensor } {
  expectSize(outputs, 2 * z.size, "guided_step");
  const next = z.backend.alloc(z.shape);
  const clean = z.backend.alloc(z.shape);
  z.backend.dispatch(KERNEL, {
    bind: [z, outputs, next, clean],
    params: { count: z.size, scale, a, b, c0: c, d },
    groups: elementGroups(z.size),
  });
  return { next, clean };
}
