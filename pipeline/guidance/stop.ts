/** When a method is content. */
import type { EnergyReport, GuidancePoint } from "./method.ts";

/**
 * Goes on while the last energy is above a threshold. The first pass of a step is made anyway, unless
 * `stale` carries the energy over from the step before, as the codes of Layout-Control and R&B do: once
 * it has fallen below, guidance never comes back.
 *
 * @param threshold Null to go on always.
 */
export function whileAbove(
  threshold: number | null,
  stale = false,
): (at: GuidancePoint, last: EnergyReport | undefined) => boolean {
  return (at, last) =>
    threshold === null || last === undefined ||
    (at.iteration === 0 && !stale) || last.energy > threshold;
}
