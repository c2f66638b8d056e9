/** Standard normal noise from a counter, the same on every device. */
import wgsl from "./normal.wgsl" with { type: "text" };
import {
  type Backend,
  elementGroups,
  type Kernel,
  type Tensor,
} from "./backend.ts";
import { normalRef } from "./normal_ref.ts";

const KERNEL: Kernel = {
  name: "normal",
  wgsl,
  bindings: "w",
  params: ["count", "key0", "key1", "stream0", "stream1", "stream2"],
  ref: normalRef,
};

/**
 * Independent N(0, 1) numbers that depend on seed, stream and position alone.
 *
 * @param backend Where to make them.
 * @param shape Of the result.
 * @param seed A whole number from 0 to 2^53 - 1.
 * @param stream Three whole numbers below 2^32 that name the use.
 */
export function normal(
  backend: Backend,
  shape: readonly number[],
  seed: number,
  stream: readonly [number, number, number],
): Tensor {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(
      `Cannot make noise: the seed must be a whole number from 0 to 2^53 - 1: current ${seed}`,
    );
  }
  const out = backend.alloc(shape);
  backend.dispatch(KERNEL, {
    bind: [out],
    params: {
      count: out.size,
      key0: seed % 2 ** 32,
      key1: Math.floor(seed / 2 ** 32),
      stream0: stream[0],
      stream1: stream[1],
      stream2: stream[2],
    },
    groups: elementGroups(Math.ceil(out.size / 4)),
  });
  return out;
}
