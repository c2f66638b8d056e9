/** The algorithm box: refine the latent by the layout, predict the noise, step, repeat. */
import type { Backend, Floats, Tensor } from "../kernels/backend.ts";
import { combine } from "../kernels/combine.ts";
import { sliceBatch, stackBatch } from "../kernels/concat.ts";
import { dotInto } from "../kernels/dot.ts";
import { LANGEVIN_STATE } from "../kernels/langevin.ts";
import type { SiteMaps } from "./attention_maps.ts";
import {
  type Conditioning,
  heldConditioning,
  repeatedConditioning,
  stackConditioning,
} from "./conditioning.ts";
import type { LayoutEnergy } from "./energy.ts";
import type {
  Energy,
  EnergyReport,
  ForwardEdit,
  GuidanceMethod,
} from "./guidance/method.ts";
import type { NoiseSource } from "./noise.ts";
import type { Scheduler } from "./scheduler.ts";
import { schedulerStep } from "./scheduler_step.ts";
import {
  timestepWave,
  type Unet,
  unetForward,
  type UnetHooks,
} from "./unet.ts";
import { type GradientPass, gradientPass } from "./unet_grad.ts";

/** One inner iteration, for people and tests. */
export interface InnerReport extends EnergyReport {
  /** L2 norm of the energy's gradient on the latent. */
  readonly gradient: number;
  /** Balance of the forces; 0 where the update has none. */
  readonly nu: number;
  /** Adaptive step size; 0 where the update has none. */
  readonly xi: number;
}

/** A method at work on one picture. */
export interface Guide {
  /** The method. */
  readonly method: GuidanceMethod;
  /** Its energy. */
  readonly energy: Energy;
  /** What it changes in the denoising passes. */
  readonly edit?: ForwardEdit | undefined;
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
  /** Measures the regions' shares in every denoising pass, guided or not. */
  readonly measure: LayoutEnergy | undefined;
  /** Moves the latent; without it this is plain sampling. */
  readonly guide: Guide | undefined;
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
    measure,
    onStep,
  } = options;
  const method = options.guide?.method;
  const { timesteps } = scheduler;
  using both = options.together === false
    ? undefined
    : heldConditioning(stackConditioning(uncond, cond));
  using state = unet.backend.upload(new Float32Array(LANGEVIN_STATE), [
    1,
    LANGEVIN_STATE,
  ]);
  const denoise = denoisePass(unet, options, both);
  const gradient = options.guide && gradientPass(unet, cond, {
    energy: options.guide.energy,
    recompute: options.recompute,
    output: method!.score === "cond" || method!.score === "cfg",
  });
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
        if (!gradient) return;
        inner.push(
          ...await refineLatent(unet, options, {
            gradient,
            z,
            set: (next) => z = next,
            at,
            step,
            state,
          }),
        );
      };
      if (method?.placement === "before_step") await refine(step);

      options.signal?.throwIfAborted();
      const { outputs, terms, maps } = denoise(z, step);
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
      const numbers = await readOnce(
        unet.backend,
        [...terms, ...maps],
        [z],
        options,
      ); // the wait of this pass
      checkFinite(numbers.pop()!, `the latent after step ${step + 1}`);
      options.onPass?.();

      if (method?.placement === "after_step" && step + 1 < timesteps.length) {
        await refine(step + 1);
      }
      const attention = maps.map(({ shape }, i): SiteMaps => ({
        shape,
        logProbs: numbers[terms.length + i]!,
      }));
      numbers.length = terms.length;
      const shares = measure && numbers.length
        ? measure.report(numbers, 0).subjects.map((s) => s.share)
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

/**
 * The inner iterations of a denoising step at a timestep, its own or the next; hands each new latent to
 * `set`, which owns it.
 */
async function refineLatent(
  unet: Unet,
  options: SampleOptions,
  { gradient: pass, z, set, at, step, state }: {
    gradient: GradientPass;
    z: Tensor;
    set: (z: Tensor) => void;
    at: number;
    step: number;
    state: Tensor;
  },
): Promise<InnerReport[]> {
  const { guide, scheduler, noise, signal } = options;
  if (!guide) return [];
  const { method, energy } = guide;
  const steps = scheduler.timesteps.length;
  const timestep = scheduler.timesteps[at]!;
  const alphaBar = scheduler.alphaBar(at);
  // All iterations take the same memory: a plan needs one.
  const most = unet.backend.kind === "plan" ? 1 : Infinity;
  const iterations = Math.min(most, method.iterations(step, steps));
  const reports: InnerReport[] = [];
  for (let iteration = 0; iteration < iterations; iteration++) {
    const point = { step, steps, iteration };
    if (energy.goOn?.(point) === false) break;
    signal?.throwIfAborted();
    const { terms, report, ...made } = await pass(z, timestep, point, {
      signal,
    });
    using grad = made.grad;
    using output = scoreOutput(unet, options, made.output, z, timestep);
    using eps = method.score === "none"
      ? output.retain()
      : noiseOf(output, z, alphaBar, scheduler.prediction);
    using n = noise.langevin(z.shape, at, iteration);
    dotInto(grad, grad, state, { slot: 1, stride: LANGEVIN_STATE });
    const next = method.update(z, eps, grad, n, {
      ...point,
      iterations,
      alphaBar,
      state,
    });
    using _before = z; // freed with this iteration; `set` hands the next one over
    z = next;
    set(next);
    const numbers = await readOnce(unet.backend, terms, [state], options); // the wait of this pass
    const [, grad2 = 0, , , nu = 0, xi = 0] = numbers.pop()!;
    const gradient = Math.sqrt(grad2);
    const energies = report(numbers);
    options.onPass?.();
    if (!Number.isFinite(energies.energy) || !Number.isFinite(gradient)) {
      throw new Error(
        `Cannot guide step ${step + 1}, iteration ${
          iteration + 1
        }: energy and gradient must be finite: current ${energies.energy}, |gradient| ${gradient}`,
      );
    }
    reports.push({ ...energies, gradient, nu, xi });
  }
  return reports;
}

/** What a denoising pass gives. */
interface Denoised {
  /** Unconditional and conditional. */
  readonly outputs: Tensor;
  /** Share terms per measured site. */
  readonly terms: readonly Tensor[];
  /** Attention maps per measured site, where asked for. */
  readonly maps: readonly Tensor[];
}

/**
 * Both branches of classifier-free guidance, in one pass if `both` is given, else one after the other;
 * and the share terms and attention maps of the conditional one.
 */
function denoisePass(
  unet: Unet,
  { measure, guide, scheduler, cond, uncond, attention }: SampleOptions,
  both: Conditioning | undefined,
): (z: Tensor, step: number) => Denoised {
  const branches = (z: Tensor, wave: Tensor, edits: UnetHooks): Denoised => {
    const terms: Tensor[] = [];
    const maps: Tensor[] = [];
    const hooks: UnetHooks = {
      ...edits,
      probe: (site) =>
        measure?.sites.includes(site) ? measure.probe : undefined,
      onProbe: (_, logProbs) => {
        using all = logProbs;
        const one = sliceBatch(all, all.shape[0]! - 1, 1);
        if (attention) maps.push(measure!.mapsOf(one));
        using map = measure!.reduce(one);
        const evaluated = measure!.evaluate(map, 0);
        evaluated.h.dispose();
        terms.push(evaluated.terms);
      },
    };
    if (both) {
      using pair = stackBatch([z, z]);
      return {
        outputs: unetForward(unet, pair, wave, both, hooks),
        terms,
        maps,
      };
    }
    using u = unetForward(unet, z, wave, uncond, edits);
    using c = unetForward(unet, z, wave, cond, hooks);
    return { outputs: stackBatch([u, c]), terms, maps };
  };
  const again = unet.backend.repeated(([z, wave]) => {
    const { outputs, terms, maps } = branches(z!, wave!, {});
    return [outputs, ...terms, ...maps];
  });
  const sites = measure?.sites.length ?? 0;
  const edit = guide?.edit;
  return (z, step) => {
    using wave = timestepWave(unet, scheduler.timesteps[step]!, both ?? cond);
    if (edit) { // other runs in each step
      return branches(z, wave, { edit: (site) => edit.at(site, step) });
    }
    const [outputs, ...others] = again([z, wave]);
    return {
      outputs: outputs!,
      terms: others.slice(0, sites),
      maps: others.slice(sites),
    };
  };
}

/** Reads tensors that are not needed any more, whatever comes of it, and others after them. */
async function readOnce(
  backend: Backend,
  gone: readonly Tensor[],
  kept: readonly Tensor[],
  { signal }: Pick<SampleOptions, "signal">,
): Promise<Floats[]> {
  try {
    return await backend.read([...gone, ...kept], { signal });
  } finally {
    for (const x of gone) x.dispose();
  }
}

/** The prediction that stands for the score (A9); empty where the method takes none. Consumes `cond`. */
function scoreOutput(
  unet: Unet,
  { guide, uncond, guidanceScale }: SampleOptions,
  cond: Tensor,
  z: Tensor,
  timestep: number,
): Tensor {
  const score = guide?.method.score ?? "cond";
  if (score === "cond" || score === "none") return cond;
  using conditional = cond;
  const unconditional = unetForward(unet, z, timestep, uncond);
  if (score === "uncond") return unconditional;
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
