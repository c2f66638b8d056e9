/** Which train timesteps and sigmas a run visits; names and rules are diffusers'. */
import type { ScheduleConfig, Spacing } from "./schedule_config.ts";

/** Timesteps with the sigma of each, and the sigma after the last. */
export interface SigmaLadder {
  /** Noisiest first. */
  readonly timesteps: readonly number[];
  /** One more than timesteps. */
  readonly sigmas: readonly number[];
  /** See `Scheduler`. */
  readonly initialScale: number;
}

/**
 * Whole timesteps, noisiest first.
 *
 * @param more One interval more than steps, whose lowest end is left out, as DPM-Solver has it.
 * @throws {RangeError} If the offset leads past the training schedule.
 */
export function spread(
  { trainSteps, offset }: ScheduleConfig,
  steps: number,
  spacing: Spacing,
  more: 0 | 1 = 0,
): number[] {
  const index = [...Array(steps).keys()];
  if (spacing === "leading") {
    const stride = Math.floor(trainSteps / (steps + more));
    const list = index.map((i) => (i + more) * stride + offset).toReversed();
    if (list[0]! >= trainSteps) {
      throw new RangeError(
        `Cannot sample: ${steps} steps with offset ${offset} must end below ${trainSteps}: current first timestep is ${
          list[0]
        }`,
      );
    }
    return list;
  }
  if (spacing === "trailing") {
    return index.map((i) => roundEven(trainSteps - i * trainSteps / steps) - 1);
  }
  const count = Math.max(1, steps - 1 + more);
  return index.map((i) => roundEven((i + more) * (trainSteps - 1) / count))
    .toReversed();
}

/** Euler's timesteps: with `linspace` not rounded. */
export function sigmaTimesteps(
  config: ScheduleConfig,
  steps: number,
): number[] {
  if (config.spacing !== "linspace") {
    return spread(config, steps, config.spacing);
  }
  const most = config.trainSteps - 1;
  // float32, as diffusers has it
  return Array.from(
    { length: steps },
    (_, i) => Math.fround(i * most / Math.max(1, steps - 1)),
  ).toReversed();
}

/** numpy's rounding: half to even. */
function roundEven(x: number): number {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + low % 2 : Math.round(x);
}

/** Linear interpolation in a table at 0, 1, 2, ... */
export function interpolate(table: readonly number[], at: number): number {
  const low = Math.min(Math.max(0, Math.floor(at)), table.length - 1);
  const high = Math.min(low + 1, table.length - 1);
  return table[low]! + (table[high]! - table[low]!) * (at - low);
}

const RHO = 7;

/**
 * Sigmas evenly spread in their seventh root, and the timesteps they belong to.
 *
 * @param all Sigma of every train timestep, rising.
 * @param range Sigmas whose first and last are the ends. Default: all, falling.
 * @see Karras et al. 2022, arXiv:2206.00364, eq. 5.
 */
export function karras(
  all: readonly number[],
  steps: number,
  range: readonly number[] = all.toReversed(),
): { sigmas: number[]; timesteps: number[] } {
  const most = range[0]! ** (1 / RHO), least = range.at(-1)! ** (1 / RHO);
  const sigmas = Array.from(
    { length: steps },
    (_, i) => (most + i / Math.max(1, steps - 1) * (least - most)) ** RHO,
  );
  const logs = all.map(Math.log);
  return { sigmas, timesteps: sigmas.map((sigma) => timestepOf(logs, sigma)) };
}

/** The timestep of a sigma, linear in its logarithm. */
function timestepOf(logs: readonly number[], sigma: number): number {
  const log = Math.log(Math.max(sigma, 1e-10));
  let low = 0;
  while (low < logs.length - 2 && logs[low + 1]! <= log) low++;
  const share = (logs[low]! - log) / (logs[low]! - logs[low + 1]!);
  return low + Math.min(1, Math.max(0, share));
}
