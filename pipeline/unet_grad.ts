/** latent -> the model's output, a layout energy, and the energy's gradient on the latent, in one pass. */
import type { Tensor } from "../kernels/backend.ts";
import { Tape } from "../kernels/tape.ts";
import type { Conditioning } from "./conditioning.ts";
import type {
  Energy,
  EvaluatedEnergy,
  GuidancePoint,
} from "./guidance/method.ts";
import { type Unet, unetForward } from "./unet.ts";

/** What guides a pass. */
export interface EnergyRequest {
  /** The energy. */
  readonly energy: Energy;
  /** Where in the run this is. */
  readonly at: GuidancePoint;
  /**
   * Run transformer blocks again on the way back instead of keeping what they made: a tenth of the
   * memory for half as much more time. Default false.
   */
  readonly recompute?: boolean | undefined;
  /** Without the model's output the pass ends with the last guided site. Default true. */
  readonly output?: boolean | undefined;
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
 * One conditional pass with its energy gradient. The tape ends at the last guided site; the rest of
 * the network runs untaped and gives the output.
 *
 * @param z `[1, 4, height, width]`.
 * @param conditioning The prompt's, batch 1.
 * @returns New tensors; the caller disposes them.
 */
export async function energyGradient(
  unet: Unet,
  z: Tensor,
  timestep: number,
  conditioning: Conditioning,
  { energy, at, recompute, output: whole = true }: EnergyRequest,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<EnergyGradient> {
  using tape = new Tape(unet.backend, [z]);
  const { probes } = energy;
  const maps: Tensor[] = [];
  // The tape ends inside the last block, which therefore is not one to run again.
  const sites = [...probes.keys()];
  const last = sites.at(-1) ?? "";
  const output = tape.run(() =>
    unetForward(unet, z, timestep, conditioning, {
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
  try {
    const { seeds, terms, report } = await energy.evaluate(maps, at, options);
    const [grad] = tape.backward(seeds);
    for (const [, h] of seeds) h.dispose();
    return { output, grad: grad!, terms, report };
  } catch (error) {
    output.dispose();
    throw error;
  } finally {
    for (const map of maps) map.dispose();
  }
}
