/** Concatenation and slices along batch and channels. */
import wgsl from "./copy_channels.wgsl" with { type: "text" };
import {
  channelMajor,
  expectShape,
  type Kernel,
  record,
  runGroups,
  type Tensor,
} from "./backend.ts";
import { copyChannelsRef } from "./copy_channels_ref.ts";

const KERNEL: Kernel = {
  name: "copy_channels",
  wgsl,
  bindings: "rw",
  params: ["batch", "run", "xStride", "outStride", "from_", "to_"],
  ref: copyChannelsRef,
};

interface Run {
  readonly batch: number;
  readonly run: number;
  readonly xStride: number;
  readonly outStride: number;
  readonly from: number;
  readonly to: number;
}

function copy(
  x: Tensor,
  out: Tensor,
  { batch, run, xStride, outStride, from, to }: Run,
): void {
  x.backend.dispatch(KERNEL, {
    bind: [x, out],
    params: { batch, run, xStride, outStride, from_: from, to_: to },
    groups: runGroups(batch, run),
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
  const [batch, channels, cells] = channelMajor(x, "concat");
  const [otherBatch, others, otherCells] = channelMajor(y, "concat");
  if (batch !== otherBatch || cells !== otherCells) {
    throw new RangeError(
      `Cannot run concat: batch and space must agree: current shapes are [${x.shape}] and [${y.shape}]`,
    );
  }
  const total = (channels + others) * cells;
  const out = x.backend.alloc([batch, channels + others, ...x.shape.slice(2)]);
  const first = {
    batch,
    run: channels * cells,
    xStride: channels * cells,
    outStride: total,
    from: 0,
    to: 0,
  };
  const second = {
    batch,
    run: others * cells,
    xStride: others * cells,
    outStride: total,
    from: 0,
    to: channels * cells,
  };
  copy(x, out, first);
  copy(y, out, second);
  record([out], [x, y], [], ([g], needs) =>
    [first, second].map((run, i) => {
      if (!needs[i]) return undefined;
      const grad = x.backend.alloc((i ? y : x).shape);
      copy(g!, grad, {
        batch,
        run: run.run,
        xStride: total,
        outStride: run.run,
        from: run.to,
        to: 0,
      });
      return grad;
    }));
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
    copy(x, out, {
      batch: 1,
      run: x.size,
      xStride: x.size,
      outStride: out.size,
      from: 0,
      to: i * x.size,
    })
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
  copy(x, out, {
    batch: 1,
    run: count * item,
    xStride: x.size,
    outStride: out.size,
    from: start * item,
    to: 0,
  });
  return out;
}
