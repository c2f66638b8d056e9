/**
 * Energies that are computed on the host: the maps come over once per pass, averaged over heads, and
 * their gradients go back. That costs one more wait per pass and lets a loss be written as plain loops
 * in float64.
 */
import { logMean } from "../../../kernels/log_mean.ts";
import type { Floats } from "../../../kernels/backend.ts";
import type {
  Energy,
  EnergyContext,
  EnergyReport,
  GuidancePoint,
} from "../method.ts";
import type { Grid, Mapped } from "./mapped.ts";

/** A site's probabilities, the mean over its heads. */
export interface SiteMap {
  /** Diffusers' path. */
  readonly site: string;
  /** Which keys. */
  readonly keys: readonly number[];
  /** Of the queries. */
  readonly grid: Grid;
  /** `[keys, cells]`. */
  readonly values: Float64Array;
}

/** A loss with its gradient. */
export interface HostLoss extends EnergyReport {
  /** `dE/dp` of each site's map, like its values. */
  readonly gradients: readonly Float64Array[];
}

/** What a method says about an energy of the host. */
export interface HostEnergyOptions {
  /** Attention sites and the keys wanted there, in the order of execution. */
  readonly probes: ReadonlyMap<string, readonly number[]>;
  /** The loss. */
  readonly loss: (maps: readonly SiteMap[], at: GuidancePoint) => HostLoss;
  /** Whether to go on, by the last evaluation of the run. */
  readonly goOn?:
    | ((at: GuidancePoint, last: EnergyReport | undefined) => boolean)
    | undefined;
}

/** Makes the energy. */
export function hostEnergy(
  { backend }: Pick<EnergyContext, "backend">,
  { probes, loss, goOn }: HostEnergyOptions,
): Energy {
  let last: EnergyReport | undefined;
  return {
    probes,
    reduce(logProbs) {
      using all = logProbs;
      return logMean(all, 1);
    },
    async evaluate(tensors, at, options) {
      const read = await backend.read(tensors, options);
      const maps = [...probes].map(([site, keys], i): SiteMap => {
        const [, , , height = 1, width = 1] = tensors[i]!.shape;
        return { site, keys, grid: [height, width], values: exp(read[i]!) };
      });
      const { gradients, ...report } = loss(maps, at);
      const moves = gradients.some((g) => g.some((v) => v !== 0));
      return {
        // dE/d log p = p dE/dp; where nothing is left to do, no way back is walked.
        seeds: !moves ? [] : gradients.map((gradient, i) => {
          const p = maps[i]!.values;
          const h = gradient.map((g, j) => g * p[j]!);
          return [tensors[i]!, backend.upload(h, tensors[i]!.shape)] as const;
        }),
        terms: [],
        report: () => last = report,
      };
    },
    ...(goOn ? { goOn: (at: GuidancePoint) => goOn(at, last) } : {}),
    [Symbol.dispose]() {},
  };
}

/** The mean of maps with the same keys and grid; the way back is to each of them. */
export function siteMean(maps: readonly SiteMap[]): Mapped {
  const values = new Float64Array(maps[0]!.values.length);
  for (const map of maps) {
    for (let i = 0; i < values.length; i++) {
      values[i]! += map.values[i]! / maps.length;
    }
  }
  return { values, back: (gradient) => gradient.map((g) => g / maps.length) };
}

function exp(logs: Floats): Float64Array {
  return Float64Array.from(logs, Math.exp);
}
