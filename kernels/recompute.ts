/**
 * Trades time for memory on a tape: a part of a network keeps only its inputs, and is run again on the
 * way back.
 *
 * @see Chen et al. 2016, arXiv:1604.06174.
 */
import { record, type Tensor } from "./backend.ts";
import { Tape } from "./tape.ts";

/**
 * Runs `forward` so that a tape keeps `inputs` alone of it.
 *
 * @param inputs What the gradient goes back to. Everything else that `forward` reads must be constant.
 * @param forward Returns new tensors, the same each time it is called; called once more for each way
 *   back, on a tape of its own.
 * @returns What `forward` returned. Differentiable in `inputs`.
 */
export function recompute(
  inputs: readonly [Tensor, ...Tensor[]],
  forward: () => readonly Tensor[],
): readonly Tensor[] {
  const { backend } = inputs[0];
  const { tape } = backend;
  if (!tape) return forward();
  backend.tape = undefined;
  let outputs: readonly Tensor[];
  try {
    outputs = forward();
  } finally {
    backend.tape = tape;
  }
  record(outputs, inputs, inputs, (grads, needs) => {
    using inner = new Tape(backend, inputs.filter((_, i) => needs[i]));
    const again = inner.run(forward);
    const seeds = again.flatMap((y, i) => {
      const grad = grads[i];
      return grad && inner.tracks(y) ? [[y, grad] as const] : [];
    });
    const found = inner.backward(seeds);
    for (const y of again) y.dispose();
    return inputs.map((_, i) => needs[i] ? found.shift() : undefined);
  });
  return outputs;
}
