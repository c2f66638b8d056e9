/** Which kernels attention takes, by a plan. */
import { strict as assert } from "node:assert";
import {
  attention,
  type AttentionOptions,
  selfAttention,
} from "../../kernels/attention.ts";
import type { Tensor } from "../../kernels/backend.ts";
import type { Plan } from "../../kernels/plan.ts";
import { Tape } from "../../kernels/tape.ts";

/** Sizes of one attention. */
export interface AttentionSizes {
  readonly batch?: number;
  readonly heads: number;
  readonly width: number;
  readonly queries: number;
  readonly keys: number;
  /** Queries, keys and values in one tensor. */
  readonly packed?: boolean;
}

/** Options of attention, and of which inputs gradients are wanted; default all. */
export interface AttentionWishes extends Partial<AttentionOptions> {
  readonly wrt?: readonly number[];
}

/** Names of the kernels that run, there and back. What is edited has no way back. */
export function attentionKernels(
  plan: Plan,
  { batch = 1, heads, width, queries, keys, packed = false }: AttentionSizes,
  { wrt = packed ? [0] : [0, 1, 2], ...options }: AttentionWishes = {},
): { readonly there: string[]; readonly back: string[] } {
  const names: string[] = [];
  const dispatch = plan.dispatch.bind(plan);
  plan.dispatch = (kernel, what) => {
    names.push(kernel.name);
    dispatch(kernel, what);
  };
  const cells = packed ? [queries] : [queries, keys, keys];
  const channels = (packed ? 3 : 1) * heads * width;
  const inputs = cells.map((n) => plan.alloc([batch, channels, n]));
  const run = (): Tensor[] => {
    const [q, k, v] = inputs as [Tensor, Tensor, Tensor];
    const given = { heads, ...options };
    const { out, logProbs } = packed
      ? selfAttention(q, given)
      : attention(q, k, v, given);
    return logProbs ? [out, logProbs] : [out];
  };
  const leaves = options.edit ? [] : wrt.map((i) => inputs[i]!);
  using tape = new Tape(plan, leaves);
  const outputs = options.edit ? run() : tape.run(run);
  const there = names.splice(0);
  if (leaves.length) {
    const seeds = outputs.map((y) => [y, plan.alloc(y.shape)] as const);
    for (const grad of tape.backward(seeds)) grad.dispose();
    for (const [, seed] of seeds) seed.dispose();
  }
  for (const x of [...inputs, ...outputs]) x.dispose();
  assert.equal(plan.memory.liveBytes, 0);
  plan.dispatch = dispatch;
  return { there, back: names };
}
