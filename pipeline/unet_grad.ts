/** latent -> the model's output, a layout energy, and the energy's gradient on the latent, in one pass. */
import type { Tensor } from "../kernels/backend.ts";
import { Tape } from "../kernels/tape.ts";
import type { Conditioning } from "./conditioning.ts";
import type {
  Energy,
  EvaluatedEnergy,
  GuidancePoint,
} from "./guidance/method.ts";
import { timestepWave, type Unet, unetForward } from "./unet.ts";

/** What guides passes. */
export interface GradientOptions {
  /** The energy. */
  readonly energy: Energy;
  /**
   * Run transformer blocks again on the way back instead of keeping what they made: a tenth of the
   * memory for half as much more time. Default false.
   */
  readonly recompute?: boolean | undefined;
  /** Without the model's output the pass ends with the last guided site. Default true. */
  readonly output?: boolean | undefined;
}

/** What guides one pass. */
export interface EnergyRequest extends GradientOptions {
  /** Where in the run this is. */
  readonly at: GuidancePoint;
}

/** What a guided pass gives. */
export interface EnergyGradient
  extends Pick<EvaluatedEnergy, "terms" | "report"> {
  /** The model's output, from the same forward; empty if it was not asked for. */
  readonly output: Tensor;
  /** dE / d latent. */
  readonly grad: Tensor;
}

/**
 * A pass that is done many times: at a latent `[1, 4, height, width]`, a train timestep and a point of the run.
 * Gives new tensors; the caller disposes them.
 */
export type GradientPass = (
  z: Tensor,
  timestep: number,
  at: GuidancePoint,
  options?: { signal?: AbortSignal | undefined },
) => Promise<EnergyGradient>;

/**
 * Conditional passes with their energy gradient. The tape ends at the last guided site; the rest of the
 * network runs untaped and gives the output.
 *
 * @param conditioning The prompt's, batch 1.
 */
export function gradientPass(
  unet: Unet,
  conditioning: Conditioning,
  options: GradientOptions,
): GradientPass {
  const { energy } = options;
  if (!energy.prepare) { // it waits for the device between the ways there and back
    return async (z, timestep, at, { signal } = {}) => {
      using wave = timestepWave(unet, timestep, conditioning);
      using pass = new TapedPass(unet, z, wave, conditioning, options);
      return pass.back(await energy.evaluate(pass.maps, at, { signal }));
    };
  }
  let point: GuidancePoint;
  let report: EvaluatedEnergy["report"];
  const work = unet.backend.repeated(([z, wave]) => {
    using pass = new TapedPass(unet, z!, wave!, conditioning, options);
    const evaluated = energy.evaluate(pass.maps, point);
    if (evaluated instanceof Promise) {
      throw new TypeError(
        "Cannot guide: an energy with `prepare` must evaluate without a promise",
      );
    }
    const made = pass.back(evaluated);
    report = made.report;
    return [made.output, made.grad, ...made.terms];
  });
  return (z, timestep, at) => {
    using wave = timestepWave(unet, timestep, conditioning);
    point = at;
    energy.prepare!(at);
    const [output, grad, ...terms] = work([z, wave]);
    return Promise.resolve({ output: output!, grad: grad!, terms, report });
  };
}

/** One pass of `gradientPass`. */
export async function energyGradient(
  unet: Unet,
  z: Tensor,
  timestep: number,
  conditioning: Conditioning,
  { at, ...options }: EnergyRequest,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<EnergyGradient> {
  const pass = gradientPass(unet, conditioning, options);
  return await pass(z, timestep, at, { signal });
}

/** The way there, recorded as far as the last map. */
class TapedPass implements Disposable {
  /** What the energy made of its probes, in order. */
  readonly maps: Tensor[] = [];
  readonly #tape: Tape;
  readonly #output: Tensor;
  #done = false;

  constructor(
    unet: Unet,
    z: Tensor,
    wave: Tensor,
    conditioning: Conditioning,
    { energy, recompute, output: whole = true }: GradientOptions,
  ) {
    const { probes } = energy;
    const { maps } = this;
    const tape = this.#tape = new Tape(unet.backend, [z]);
    // The tape ends inside the last block, which therefore is not one to run again.
    const sites = [...probes.keys()];
    const last = sites.at(-1) ?? "";
    try {
      this.#output = tape.run(() =>
        unetForward(unet, z, wave, conditioning, {
          probe: (site) => probes.get(site),
          onProbe: (site, logProbs) => {
            if (site !== sites[maps.length]) {
              logProbs.dispose();
              throw new RangeError(
                `Cannot guide: probes must be in the order of execution: current ${
                  sites[maps.length]
                } comes after ${site}`,
              );
            }
            maps.push(energy.reduce(logProbs, site));
            if (maps.length === probes.size) tape.stop();
          },
          recompute: recompute ? (block) => !last.startsWith(block) : undefined,
          until: whole ? undefined : last.replace(/transformer_blocks.*/, ""),
        })
      );
    } catch (error) {
      this.#free();
      throw error;
    }
  }

  /** The way back; consumes the seeds. */
  back({ seeds, terms, report }: EvaluatedEnergy): EnergyGradient {
    const [grad] = this.#tape.backward(seeds);
    for (const [, h] of seeds) h.dispose();
    this.#done = true;
    return { output: this.#output, grad: grad!, terms, report };
  }

  /** Frees what is not handed out. */
  [Symbol.dispose](): void {
    if (!this.#done) this.#output.dispose();
    this.#free();
  }

  #free(): void {
    this.#tape[Symbol.dispose]();
    for (const map of this.maps) map.dispose();
  }
}
