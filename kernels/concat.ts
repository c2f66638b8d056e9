/** Concatenation and slices along batch and channels. */
import {
  channelMajor,
  type CopyRange,
  expectShape,
  record,
  type Tensor,
} from "./backend.ts";

/**
 * `[x, y]` along the channels.
 *
 * @param x `[batch, channels, ...space]`.
 * @param y `[batch, others, ...space]`.
 * @returns `[batch, channels + others, ...space]`. Differentiable in both.
 */
export function concatChannels(x: Tensor, y: Tensor): Tensor {
  const [batch, channels, cells] = channelMajor(x, "concat");
  const [otherBatch, others, otherCells] = channelMajor(y, "concat");
  if (batch !== otherBatch || cells !== otherCells) {
    throw new RangeError(
      `Cannot run concat: batch and space must agree: current shapes are [${x.shape}] and [${y.shape}]`,
    );
  }
  const [first, second] = [channels * cells, others * cells];
  const out = x.backend.alloc([batch, channels + others, ...x.shape.slice(2)]);
  /** Where the items of a part go. */
  const ranges = (count: number, behind: number): CopyRange[] =>
    Array.from({ length: batch }, (_, b) => ({
      first: b * count,
      at: b * (first + second) + behind,
      count,
    }));
  const { backend } = x;
  const parts = [[x, ranges(first, 0)], [y, ranges(second, first)]] as const;
  for (const [part, ranges] of parts) {
    for (const range of ranges) backend.copy(part, out, range);
  }
  record(
    [out],
    [x, y],
    [],
    ([g], needs) =>
      parts.map(([{ shape }, ranges], i) => {
        if (!needs[i]) return undefined;
        const grad = backend.alloc(shape);
        for (const { first, at, count } of ranges) {
          backend.copy(g!, grad, { first: at, at: first, count });
        }
        return grad;
      }),
  );
  return out;
}

/** Stacks tensors of one shape along the batch. Not differentiable. */
export function stackBatch(parts: readonly Tensor[]): Tensor {
  const [first] = parts;
  if (!first) {
    throw new RangeError("Cannot stack tensors: at least one must be given");
  }
  const [batch = 1, ...rest] = first.shape;
  for (const x of parts) expectShape(x, first.shape, "stack");
  const out = first.backend.alloc([batch * parts.length, ...rest]);
  parts.forEach((x, i) =>
    x.backend.copy(x, out, { first: 0, at: i * x.size, count: x.size })
  );
  return out;
}

/** Items `start` to `start + count` of the batch, copied. Not differentiable. */
export function sliceBatch(x: Tensor, start: number, count: number): Tensor {
  const [batch = 0, ...rest] = x.shape;
  if (start < 0 || count < 1 || start + count > batch) {
    throw new RangeError(
      `Cannot slice [${x.shape}]: items ${start} to ${
        start + count
      } must lie in the batch`,
    );
  }
  const out = x.backend.alloc([count, ...rest]);
  const item = x.size / batch;
  x.backend.copy(x, out, { first: start * item, at: 0, count: count * item });
  return out;
}
