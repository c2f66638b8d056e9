/** Concatenation and slices along batch and channels. */
import {
  channelMajor,
  type CopyRange,
  expectShape,
  record,
  type Tensor,
} from "./backend.ts";

/**
 * Shape of two tensors side by side, along the channels.
 *
 * @param x `[batch, channels, ...space]`.
 * @param y `[batch, others, ...space]`.
 * @returns `[batch, channels + others, ...space]`.
 * @throws {RangeError} If batch or space differ.
 */
export function besideShape(x: Tensor, y: Tensor, what: string): number[] {
  const [batch, channels, cells] = channelMajor(x, what);
  const [otherBatch, others, otherCells] = channelMajor(y, what);
  if (batch !== otherBatch || cells !== otherCells) {
    throw new RangeError(
      `Cannot run ${what}: batch and space must agree: current shapes are [${x.shape}] and [${y.shape}]`,
    );
  }
  return [batch, channels + others, ...x.shape.slice(2)];
}

/** Where the items of tensors lie if they are side by side; batch and space are those of all. */
function rangesOf(parts: readonly Tensor[]): CopyRange[][] {
  const batch = parts[0]!.shape[0]!;
  const counts = parts.map((x) => x.size / batch);
  const all = counts.reduce((sum, n) => sum + n, 0);
  let behind = 0;
  return counts.map((count) => {
    const before = behind;
    behind += count;
    return Array.from({ length: batch }, (_, b) => ({
      first: b * count,
      at: b * all + before,
      count,
    }));
  });
}

/**
 * `[x, y]` along the channels.
 *
 * @param x `[batch, channels, ...space]`.
 * @param y `[batch, others, ...space]`.
 * @returns `[batch, channels + others, ...space]`. Differentiable in both.
 */
export function concatChannels(x: Tensor, y: Tensor): Tensor {
  const { backend } = x;
  const out = backend.alloc(besideShape(x, y, "concat"));
  const parts = [x, y];
  rangesOf(parts).forEach((ranges, i) => {
    for (const range of ranges) backend.copy(parts[i]!, out, range);
  });
  record(
    [out],
    parts,
    [],
    ([g], needs) => splitChannels(g!, parts, needs),
  );
  return out;
}

/**
 * What belongs to each of the tensors that lie side by side in `x`: the vjp of `concatChannels`.
 *
 * @param x `[batch, channels of all, ...space]`. Not consumed.
 * @param like Tensors of the wanted shapes.
 * @param needs Which of them are wanted.
 * @returns Like `like`; of one tensor all of `x`, undefined where not wanted. Not differentiable.
 */
export function splitChannels(
  x: Tensor,
  like: readonly Tensor[],
  needs: readonly boolean[],
): (Tensor | undefined)[] {
  const { backend } = x;
  if (like.length === 1) return [needs[0] ? x.retain() : undefined];
  return rangesOf(like).map((ranges, i) => {
    if (!needs[i]) return undefined;
    const part = backend.alloc(like[i]!.shape);
    for (const { first, at, count } of ranges) {
      backend.copy(x, part, { first: at, at: first, count });
    }
    return part;
  });
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
