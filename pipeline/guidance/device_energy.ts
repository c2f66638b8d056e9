/** `LayoutEnergy` as the energy of a method: all of it on the device, with no wait of its own unless subjects stop. */
import type { Tensor } from "../../kernels/backend.ts";
import type { EvaluatedMap, LayoutEnergy } from "../energy.ts";
import type {
  Energy,
  EnergyReport,
  EvaluatedEnergy,
  GuidancePoint,
} from "./method.ts";

/** What a method decides about the energy while it runs. */
export interface DeviceEnergyOptions {
  /** Weight of the prior. */
  readonly rho: (at: GuidancePoint) => number;
  /** Subjects whose `(1 - share)^2` is below it stop pushing; costs one more wait (A17). */
  readonly floor?: number | undefined;
  /** Whether to go on, by the last evaluation of the run. */
  readonly goOn?:
    | ((at: GuidancePoint, last: EnergyReport | undefined) => boolean)
    | undefined;
}

/** Makes it; the energy is disposed with it. */
export function deviceEnergy(
  layout: LayoutEnergy,
  { rho, floor, goOn }: DeviceEnergyOptions,
): Energy {
  let last: EnergyReport | undefined;
  let weight = 0;
  const prepare = (at: GuidancePoint): void => {
    weight = rho(at);
    layout.weigh(weight);
  };
  const evaluated = (maps: readonly Tensor[]): EvaluatedMap[] =>
    maps.map((map) => layout.evaluate(map, weight));
  const given = (made: readonly EvaluatedMap[]): EvaluatedEnergy => ({
    seeds: made.map((e) => [e.map, e.h] as const),
    terms: made.map((e) => e.terms),
    report: (terms) => last = { ...layout.report(terms, weight), rho: weight },
  });
  return {
    probes: new Map(layout.sites.map((site) => [site, layout.probe])),
    reduce: (logProbs) => layout.reduce(logProbs),
    ...(floor === undefined
      ? {
        prepare,
        evaluate: (maps, at) => {
          prepare(at);
          return given(evaluated(maps));
        },
      }
      : {
        async evaluate(maps, at, options) {
          prepare(at);
          const made = evaluated(maps);
          let numbers;
          try {
            numbers = await layout.backend.read(
              made.map((e) => e.terms),
              options,
            );
          } catch (error) {
            free(made);
            throw error;
          }
          const { subjects } = layout.report(numbers, weight);
          if (!layout.gate(subjects.map((s) => s.aef >= floor))) {
            return given(made);
          }
          free(made);
          return given(evaluated(maps));
        },
      }),
    ...(goOn ? { goOn: (at: GuidancePoint) => goOn(at, last) } : {}),
    [Symbol.dispose]: () => layout[Symbol.dispose](),
  };
}

function free(evaluated: readonly EvaluatedMap[]): void {
  for (const { h, terms } of evaluated) {
    h.dispose();
    terms.dispose();
  }
}
