/** latent -> the model's output, the layout energy, and the energy's gradient on the latent, in one pass. */
import type { Tensor } from "../kernels/backend.ts";
import { Tape } from "../kernels/tape.ts";
import type { Conditioning } from "./conditioning.ts";
import type { EvaluatedMap, LayoutEnergy } from "./energy.ts";
import { type Unet, unetForward } from "./unet.ts";

/** What guides a pass. */
export interface EnergyRequest {
  /** The energy. */
  readonly energy: LayoutEnergy;
  /** Attention sites it acts on. */
  readonly sites: ReadonlySet<string>;
  /** Weight of the prior. */
  readonly rho: number;
  /** Subjects whose `(1 - share)^2` is below it stop pushing; costs one more wait (A17). */
  readonly floor?: number | undefined;
  /**
   * Run transformer blocks again on the way back instead of keeping what they made: a tenth of the
   * memory for half as much more time. Default false.
   */
  readonly recompute?: boolean | undefined;
}

/** What a guided pass gives. */
export interface EnergyGradient {
  /** The model's output, from the same forward. */
  readonly output: Tensor;
  /** dE / d latent. */
  readonly grad: Tensor;
  /** Energy terms per site, for `LayoutEnergy.report`. */
  readonly terms: readonly Tensor[];
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
  { energy, sites, rho, floor, recompute }: EnergyRequest,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<EnergyGradient> {
  using tape = new Tape(unet.backend, [z]);
  const maps: Tensor[] = [];
  // The tape ends inside the last block, which therefore is not one to run again.
  const last = [...sites].at(-1) ?? "";
  const output = tape.run(() =>
    unetForward(unet, z, timestep, conditioning, {
      probe: (site) => sites.has(site) ? energy.probe : undefined,
      onProbe: (_, logProbs) => {
        maps.push(energy.reduce(logProbs));
        if (maps.length === sites.size) tape.stop();
      },
      recompute: recompute ? (block) => !last.startsWith(block) : undefined,
    })
  );
  let evaluated = maps.map((map) => energy.evaluate(map, rho));
  if (floor !== undefined) {
    const { subjects } = energy.report(
      await unet.backend.read(evaluated.map((e) => e.terms), options),
      rho,
    );
    if (energy.gate(subjects.map((s) => s.aef >= floor))) {
      free(evaluated);
      evaluated = maps.map((map) => energy.evaluate(map, rho));
    }
  }
  const [grad] = tape.backward(evaluated.map((e) => [e.map, e.h]));
  for (const e of evaluated) e.h.dispose();
  for (const map of maps) map.dispose();
  return { output, grad: grad!, terms: evaluated.map((e) => e.terms) };
}

function free(evaluated: readonly EvaluatedMap[]): void {
  for (const { h, terms } of evaluated) {
    h.dispose();
    terms.dispose();
  }
}
