/** The update of plain backward guidance: down the energy's gradient. */
import { combine } from "../../kernels/combine.ts";
import type { UpdateContext, UpdateRule } from "./method.ts";

/**
 * `z' = z - size grad`. A method with this update has the score `none`; its reports have 0 for nu and xi.
 *
 * @param size Of the step, by where it is in the run.
 */
export function gradientStep(
  size: (context: UpdateContext) => number,
): UpdateRule {
  return (z, _eps, grad, _noise, context) =>
    combine(z, 1, grad, -size(context));
}
