/** `LayoutEnergy` as the energy of a method: all of it on the device, with no wait of its own. */
import type { EvaluatedMap, LayoutEnergy } from "../energy.ts";
import type { Energy, EnergyReport, GuidancePoint } from "./method.ts";

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
  return {
    probes: new Map(layout.sites.map((site) => [site, layout.probe])),
    reduce: (logProbs) => layout.reduce(logProbs),
    async evaluate(maps, at, options) {
      const weight = rho(at);
      let evaluated = maps.map((map) => layout.evaluate(map, weight));
      if (floor !== undefined) {
        const terms = evaluated.map((e) => e.terms);
        let numbers;
        try {
          numbers = await layout.backend.read(terms, options);
        } catch (error) {
          free(evaluated);
          throw error;
        }
        const { subjects } = layout.report(numbers, weight);
        if (layout.gate(subjects.map((s) => s.aef >= floor))) {
          free(evaluated);
          evaluated = maps.map((map) => layout.evaluate(map, weight));
        }
      }
      return {
        seeds: evaluated.map((e) => [e.map, e.h] as const),
        terms: evaluated.map((e) => e.terms),
        report: (terms) =>
          last = { ...layout.report(terms, weight), rho: weight },
      };
    },
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
