/**
 * What a guidance method is: an energy over attention maps, and an update rule for the latent. The
 * sampler owns the network, the way back through it, the noise and the tracing.
 */
import type { Backend, Tensor } from "../../kernels/backend.ts";
import type { Subject } from "../energy.ts";
import type { UnetConfig } from "../unet_config.ts";
import type { RasterMode } from "../raster.ts";
import type { OptionTable } from "./options.ts";

/** Where in a run a guided pass is. */
export interface GuidancePoint {
  /** Denoising step, from 0. */
  readonly step: number;
  /** Denoising steps in all. */
  readonly steps: number;
  /** Inner iteration of the step, from 0. */
  readonly iteration: number;
}

/** What an energy is made for: one picture. */
export interface EnergyContext {
  /** Where the maps live. */
  readonly backend: Backend;
  /** The network's shape. */
  readonly config: UnetConfig;
  /** What should be where. */
  readonly subjects: readonly Subject[];
  /** `[width, height]` of the picture in pixels. */
  readonly image: readonly [number, number];
  /** `[height, width]` of the latent in cells. */
  readonly grid: readonly [number, number];
  /** Positions of the text states, padding included: 77 for CLIP. */
  readonly textLength: number;
  /** How many of them belong to the prompt, its begin and end marks included. */
  readonly promptLength: number;
  /** Of the picture's noise. */
  readonly seed: number;
}

/** Numbers of one evaluation, on the host. */
export interface EnergyReport {
  /** The value whose gradient moves the latent. */
  readonly energy: number;
  /** Weight of the prior, where there is one. */
  readonly rho?: number;
  /** Per subject: terms of the energy by name, before weights. */
  readonly subjects: readonly Readonly<Record<string, number>>[];
}

/** One evaluation, numbers still on the backend where the energy left them there. */
export interface EvaluatedEnergy {
  /** Maps and the energy's gradient on them: `dE/d log p = p dE/dp`. The caller disposes the gradients. */
  readonly seeds: readonly (readonly [map: Tensor, gradient: Tensor])[];
  /** Read together with the pass; the caller disposes them. */
  readonly terms: readonly Tensor[];
  /** The numbers, once `terms` are read. Called once. */
  report(terms: readonly ArrayLike<number>[]): EnergyReport;
}

/** A differentiable number made of attention maps: how far the picture is from its layout. */
export interface Energy extends Disposable {
  /** Attention sites and the key positions wanted there, in the order of execution. */
  readonly probes: ReadonlyMap<string, readonly number[]>;
  /**
   * Makes smaller maps of a site's log-probabilities, such as their mean over heads; recorded on the tape.
   *
   * @param logProbs `[1, heads, keys, height, width]`. Consumed.
   */
  reduce(logProbs: Tensor, site: string): Tensor;
  /**
   * Terms and gradient.
   *
   * @param maps What `reduce` made, in the order of `probes`. Not consumed.
   */
  evaluate(
    maps: readonly Tensor[],
    at: GuidancePoint,
    options?: { readonly signal?: AbortSignal | undefined },
  ): EvaluatedEnergy | Promise<EvaluatedEnergy>;
  /**
   * Hands the device what depends on the point. With it, `evaluate` gives no promise, and runs the same kernels
   * whatever the point: its report is that of the last `prepare`. Left out by energies that wait for the device.
   */
  prepare?(at: GuidancePoint): void;
  /** Whether to go on; asked before each pass. Left out: always. */
  goOn?(at: GuidancePoint): boolean;
}

/** What an update rule knows besides its tensors. */
export interface UpdateContext extends GuidancePoint {
  /** Most inner iterations of this step. */
  readonly iterations: number;
  /** `abar` of the timestep. */
  readonly alphaBar: number;
  /** `[1, 6]` numbers that live through the run: the second is |grad|^2, the fifth and sixth are reported as nu and xi. */
  readonly state: Tensor;
}

/**
 * The new latent from the predicted noise (empty where the method's `score` is `none`), the energy's gradient
 * and N(0, 1) noise.
 */
export type UpdateRule = (
  z: Tensor,
  eps: Tensor,
  grad: Tensor,
  noise: Tensor,
  context: UpdateContext,
) => Tensor;

/**
 * Changes attention weights in place; the sum over the keys must stay as it is.
 *
 * @param weights Some queries' of all heads, `[batch heads, keys, queries]`.
 * @param first The first of the queries.
 */
export type AttentionEdit = (weights: Tensor, first: number) => void;

/** Changes attention in the denoising passes, in both branches of classifier-free guidance. */
export interface ForwardEdit extends Disposable {
  /** What to do at a site in a step, if anything. */
  at(site: string, step: number): AttentionEdit | undefined;
}

/** A training-free guidance method. */
export interface GuidanceMethod {
  /** Before each guided denoising step, or after it at the next timestep. */
  readonly placement: "before_step" | "after_step";
  /** Which prediction the update takes as eps; with `none` it takes none, and passes end at the last map. */
  readonly score: "cond" | "uncond" | "cfg" | "none";
  /** Most updates at a step; 0 where it is not guided. */
  iterations(step: number, steps: number): number;
  /**
   * Checks the method's choices against a network.
   *
   * @throws {RangeError} If it names an attention site that is not there.
   */
  check(config: UnetConfig): void;
  /** Where regions become cells, and how; left out by energies that are made of boxes and take no masks. */
  readonly shapes?: {
    sites(config: UnetConfig): readonly string[];
    readonly raster: RasterMode;
  };
  /** The energy of one picture. */
  energy(context: EnergyContext): Energy;
  /** How the latent moves. */
  readonly update: UpdateRule;
  /** What else it changes, for one picture. */
  edit?(context: EnergyContext): ForwardEdit | undefined;
}

/** A method with a name: what request, command line and help know of it. */
// deno-lint-ignore no-explicit-any -- without a type of its own it is that of any method
export interface MethodSpec<O extends object = any> {
  /** Of lower-case letters, digits and dashes. */
  readonly name: string;
  /** One line for the help. */
  readonly about: string;
  /** Where it comes from. */
  readonly source: string;
  /** Every choice it offers, with the values of its paper or code. */
  readonly options: OptionTable<O>;
  /** Other values for a family of networks, such as SDXL. */
  defaultsFor?(config: UnetConfig): Partial<O>;
  /** The method with the given choices. */
  make(options: O): GuidanceMethod;
}
