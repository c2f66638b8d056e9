/** What a guidance method is: an energy over attention maps, and an update rule for the latent. */
import type { Tensor } from "../../kernels/backend.ts";
import type { EnergyOptions } from "../energy.ts";
import type { UnetConfig } from "../unet.ts";

/** Where in the sampler an update happens. */
export interface UpdateContext {
  /** Denoising step, from 0. */
  readonly step: number;
  /** Inner iteration, from 0. */
  readonly iteration: number;
  /** Inner iterations of this step. */
  readonly iterations: number;
  /** `abar` of the step's timestep. */
  readonly alphaBar: number;
  /** `[1, 6]` numbers that live through the run; see `langevinStep`. */
  readonly state: Tensor;
}

/** A training-free guidance method. The sampler owns the network, the noise and the tracing. */
export interface GuidanceMethod {
  /** Denoising steps that are guided, from the first. */
  readonly steps: number;
  /** Updates per guided step. */
  readonly iterations: number;
  /** Before each of the first `steps` denoising steps, or after it at the next timestep. */
  readonly placement: "before_step" | "after_step";
  /** How the energy is read. */
  readonly energy: EnergyOptions;
  /** Which prediction the update takes as eps. */
  readonly score: "cond" | "uncond" | "cfg";
  /** No more iterations in a step once the energy is below it. */
  readonly stopBelow: number | undefined;
  /** Subjects whose `(1 - share)^2` is below it stop pushing. */
  readonly energyFloor: number | undefined;
  /** Attention sites of the energy. */
  sites(config: UnetConfig): string[];
  /** Weight of the prior at a step of `total`. */
  rho(step: number, total: number): number;
  /** The new latent from the predicted noise, the energy's gradient and N(0, 1) noise. */
  update(
    z: Tensor,
    eps: Tensor,
    grad: Tensor,
    noise: Tensor,
    context: UpdateContext,
  ): Tensor;
}
