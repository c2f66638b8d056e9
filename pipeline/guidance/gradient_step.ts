/** The update of plain backward guidance: down the energy's gradient. */
import { combine } from "../../kernels/combine.ts";
import { dotInto } from "../../kernels/dot.ts";
import { LANGEVIN_STATE } from "../../kernels/langevin.ts";
import type { UpdateContext, UpdateRule } from "./method.ts";

/**
 * `z' = z - size grad`. Reports of such steps have 0 for nu and xi.
 *
 * @param size Of the step, by where it is in the run.
 */
export function gradientStep(
  size: (context: UpdateContext) => number,
): UpdateRule {
  return (z, _eps, grad, _noise, context) => {
    dotInto(grad, grad, context.state, { slot: 1, stride: LANGEVIN_STATE });
    return combine(z, 1, grad, -size(context));
  };
}
