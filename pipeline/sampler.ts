/** The algorithm box: refine the latent by the layout, predict the noise, step, repeat. */
import type { Tensor } from "../kernels/backend.ts";
import { combine } from "../kernels/combine.ts";
import { sliceBatch, stackBatch } from "../kernels/concat.ts";
import { LANGEVIN_STATE } from "../kernels/langevin.ts";
import type { SiteMaps } from "./attention_maps.ts";
import {
  type Conditioning,
  heldConditioning,
  repeatedConditioning,
  stackConditioning,
} from "./conditioning.ts";
import type { EnergyReport, LayoutEnergy } from "./energy.ts";
import type { GuidanceMethod } from "./guidance/method.ts";
import type { NoiseSource } from "./noise.ts";
import type { Scheduler } from "./scheduler.ts";
import { schedulerStep } from "./scheduler_step.ts";
import { type Unet, unetForward, type UnetHooks } from "./unet.ts";
import { energyGradient } from "./unet_grad.ts";

/** One inner iteration, for people and tests. */
export interface InnerReport extends EnergyReport {
  /** Weight of the prior. */
  readonly rho: number;
  /** Balance of the forces. */
  readonly nu: number;
  /** Step size. */
  readonly xi: number;
}

/** What a finished denoising step tells. */
export interface SampledStep {
  /** From 0. */
  readonly step: number;
  /** Train timestep. */
  readonly timestep: number;
  /** Its inner iterations; empty where the step was not guided. */
  readonly inner: readonly InnerReport[];
  /** Share of each region's attention that lies in its boxes, in the denoising pass. */
  readonly shares: readonly number[];
  /** Where asked for: the regions' maps in the denoising pass, per guided site. */
  readonly attention: readonly SiteMaps[];
  /** The predicted clean latent. Lives until the callback returns. */
  readonly clean: Tensor;
  /** The latent after the step. Lives until the callback returns. */
  readonly latent: Tensor;
}

/** A sampler run. */
export interface SampleOptions {
  /** Of the prompt, batch 1. */
  readonly cond: Conditioning;
  /** Of the empty or negative prompt. */
  readonly uncond: Conditioning;
  /** Classifier-free guidance scale. */
  readonly guidanceScale: number;
  /** Timesteps and steps. */
  readonly scheduler: Scheduler;
  /** Where noise comes from. */
  readonly noise: NoiseSource;
  /** Shape of the latent, `[1, 4, height, width]`. */
  readonly shape: readonly number[];
  /** The layout's energy, if there are regions. Shares are measured with it also where nothing is guided. */
  readonly energy: LayoutEnergy | undefined;
  /** Sites of the energy. */
  readonly sites: ReadonlySet<string>;
  /** Moves the latent; without it, or without an energy, this is plain sampling. */
  readonly method: GuidanceMethod | undefined;
  /** Both branches of classifier-free guidance in one pass, which is faster and needs twice the memory. Default true. */
  readonly together?: boolean | undefined;
  /** See `EnergyRequest`. */
  readonly recompute?: boolean | undefined;
  /** Hand out attention maps. Default false. */
  readonly attention?: boolean | undefined;
  /** Stops before the next network pass. */
  readonly signal?: AbortSignal | undefined;
  /** Called after each step; a promise is waited for. */
  readonly onStep?: ((step: SampledStep) => void | Promise<void>) | undefined;
  /** Called after each network pass of a step. */
  readonly onPass?: (() => void) | undefined;
}

/**
 * Samples one latent.
 *
 * @returns The final latent, `shape`.
 * @see WinWinLay, arXiv:2506.15563, section 4.2.
 */
export async function sample(
  unet: Unet,
  given: SampleOptions,
): Promise<Tensor> {
  using cond = repeatedConditioning(given.cond);
  using uncond = repeatedConditioning(given.uncond);
  const options = { ...given, cond, uncond };
  const {
    guidanceScale,
    scheduler,
    noise,
    shape,
    method,
    onStep,
  } = options;
  const { timesteps } = scheduler;
  using both = options.together === false
    ? undefined
    : heldConditioning(stackConditioning(uncond, cond));
  using state = unet.backend.upload(new Float32Array(LANGEVIN_STATE), [
    1,
    LANGEVIN_STATE,
  ]);
  let z = noise.initial(shape);
  let previous: Tensor | undefined;
  try {
    if (scheduler.initialScale !== undefined && scheduler.initialScale !== 1) {
      using whole = z;
      z = combine(whole, scheduler.initialScale, whole, 0);
    }
    for (const [step, timestep] of timesteps.entries()) {
      const inner: InnerReport[] = [];
      const refine = async (at: number): Promise<void> => {
        for (
          const report of await refineLatent(unet, options, {
            z,
            set: (next) => z = next,
            at,
            state,
          })
        ) inner.push(report);
      };
      if (method?.placement === "before_step" && step < method.steps) {
        await refine(step);
      }

      options.signal?.throwIfAborted();
      const { outputs, terms, maps } = denoise(
        unet,
        options,
        z,
        timestep,
        both,
      );
      const { next, clean } = schedulerStep(z, scheduler.coefficients(step), {
        outputs,
        guidanceScale,
        previous,
        noise: () => noise.ancestral(shape, step),
      });
      outputs.dispose();
      z.dispose();
      z = next;
      previous?.dispose();
      previous = clean;
      const numbers = await unet.backend.read([...terms, ...maps, z], options); // the wait of this pass
      for (const x of [...terms, ...maps]) x.dispose();
      checkFinite(numbers.pop()!, `the latent after step ${step + 1}`);
      options.onPass?.();

      if (
        method?.placement === "after_step" && step < method.steps &&
        step + 1 < timesteps.length
      ) await refine(step + 1);
      const attention = maps.map(({ shape }, i): SiteMaps => ({
        shape,
        logProbs: numbers[terms.length + i]!,
      }));
      numbers.length = terms.length;
      const shares = options.energy && numbers.length
        ? options.energy.report(numbers, 0).subjects.map((s) => s.share)
        : [];
      await onStep?.({
        step,
        timestep,
        inner,
        shares,
        attention,
        clean,
        latent: z,
      });
    }
    return z;
  } catch (error) {
    z.dispose();
    throw error;
  } finally {
    previous?.dispose();
  }
}

/** The inner iterations at one timestep; hands each new latent to `set`, which owns it. */
async function refineLatent(
  unet: Unet,
  options: SampleOptions,
  { z, set, at, state }: {
    z: Tensor;
    set: (z: Tensor) => void;
    at: number;
    state: Tensor;
  },
): Promise<InnerReport[]> {
  const { method, energy, scheduler, noise, sites, signal } = options;
  if (!method || !energy) return [];
  const timestep = scheduler.timesteps[at]!;
  const alphaBar = scheduler.alphaBar(at);
  const first = method.placement === "before_step" ? at : at - 1;
  const rho = method.rho(first, scheduler.timesteps.length);
  const reports: InnerReport[] = [];
  for (let k = 0; k < method.iterations; k++) {
    signal?.throwIfAborted();
    const pass = await energyGradient(unet, z, timestep, options.cond, {
      energy,
      sites,
      rho,
      floor: method.energyFloor,
      recompute: options.recompute,
    }, { signal });
    using grad = pass.grad;
    using output = scoreOutput(unet, options, pass.output, z, timestep);
    using eps = noiseOf(output, z, alphaBar, scheduler.prediction);
    using n = noise.langevin(z.shape, at, k);
    const next = method.update(z, eps, grad, n, {
      step: at,
      iteration: k,
      iterations: method.iterations,
      alphaBar,
      state,
    });
    using _before = z; // freed with this iteration; `set` hands the next one over
    z = next;
    set(next);
    const numbers = await unet.backend.read([state, ...pass.terms], { signal }); // the wait of this pass
    for (const x of pass.terms) x.dispose();
    const [, grad2 = 0, , , nu = 0, xi = 0] = numbers.shift()!;
    const report = { ...energy.report(numbers, rho), rho, nu, xi };
    options.onPass?.();
    if (!Number.isFinite(report.energy) || !Number.isFinite(grad2)) {
      throw new Error(
        `Cannot guide step ${at + 1}, iteration ${
          k + 1
        }: energy and gradient must be finite: current ${report.energy}, |gradient|^2 ${grad2}`,
      );
    }
    reports.push(report);
    if (method.stopBelow !== undefined && report.energy < method.stopBelow) {
      break;
    }
  }
  return reports;
}

/**
 * Both branches of classifier-free guidance, in one pass if `both` is given, else one after the other;
 * and the share terms and attention maps of the conditional one.
 */
function denoise(
  unet: Unet,
  { energy, sites, cond, uncond, attention }: SampleOptions,
  z: Tensor,
  timestep: number,
  both: Conditioning | undefined,
): { outputs: Tensor; terms: Tensor[]; maps: Tensor[] } {
  const terms: Tensor[] = [];
  const maps: Tensor[] = [];
  const hooks: UnetHooks = {
    probe: (site) => energy && sites.has(site) ? energy.probe : undefined,
    onProbe: (_, logProbs) => {
      using all = logProbs;
      const one = sliceBatch(all, all.shape[0]! - 1, 1);
      if (attention) maps.push(energy!.mapsOf(one));
      using map = energy!.reduce(one);
      const evaluated = energy!.evaluate(map, 0);
      evaluated.h.dispose();
      terms.push(evaluated.terms);
    },
  };
  if (both) {
    using pair = stackBatch([z, z]);
    const outputs = unetForward(unet, pair, timestep, both, hooks);
    return { outputs, terms, maps };
  }
  using u = unetForward(unet, z, timestep, uncond);
  using c = unetForward(unet, z, timestep, cond, hooks);
  return { outputs: stackBatch([u, c]), terms, maps };
}

/** The prediction that stands for the score (A9). Consumes `cond`. */
function scoreOutput(
  unet: Unet,
  { method, uncond, guidanceScale }: SampleOptions,
  cond: Tensor,
  z: Tensor,
  timestep: number,
): Tensor {
  if (!method || method.score === "cond") return cond;
  using conditional = cond;
  const unconditional = unetForward(unet, z, timestep, uncond);
  if (method.score === "uncond") return unconditional;
  using u = unconditional;
  return combine(u, 1 - guidanceScale, conditional, guidanceScale);
}

/** eps from the model's output; a v-prediction is `sqrt(abar) v + sqrt(1 - abar) z`. */
function noiseOf(
  output: Tensor,
  z: Tensor,
  alphaBar: number,
  prediction: Scheduler["prediction"],
): Tensor {
  return prediction === "epsilon"
    ? output.retain()
    : combine(output, Math.sqrt(alphaBar), z, Math.sqrt(1 - alphaBar));
}

function checkFinite(numbers: ArrayLike<number>, what: string): void {
  for (let i = 0; i < numbers.length; i++) {
    if (!Number.isFinite(numbers[i])) {
      throw new Error(
        `Cannot go on sampling: ${what} must be finite: current value ${i} is ${
          numbers[i]
        }`,
      );
    }
  }
}
