/** Nearest-neighbour upsampling. */
import wgsl from "./upsample.wgsl" with { type: "text" };
import { elementGroups, type Kernel, record, type Tensor } from "./backend.ts";
import { upsampleRef } from "./upsample_ref.ts";

const KERNEL: Kernel = {
  name: "upsample",
  wgsl,
  bindings: "rw",
  params: ["count", "height", "width", "outHeight", "outWidth"],
  ref: upsampleRef,
};

/**
 * Repeats the nearest cell.
 *
 * @param x `[batch, channels, height, width]`.
 * @param size `[outHeight, outWidth]`, at least the input's; twice it in most networks, one less where
 *   the level below rounded up.
 * @returns `[batch, channels, outHeight, outWidth]`. Differentiable; saves nothing.
 */
export function upsampleNearest(
  x: Tensor,
  [outHeight, outWidth]: readonly [number, number],
): Tensor {
  const [batch = 0, channels = 0, height = 0, width = 0] = x.shape;
  if (x.shape.length !== 4 || outHeight < height || outWidth < width) {
    throw new RangeError(
      `Cannot run upsample: [${outHeight}, ${outWidth}] must not be smaller than x: current shape is [${x.shape}]`,
    );
  }
  const y = x.backend.alloc([batch, channels, outHeight, outWidth]);
  run(x, y, 0);
  record([y], [x], [], ([g]) => [upsampleGrad(g!, [height, width])]);
  return y;
}

/**
 * The vjp of `upsampleNearest`: sums over the cells that repeat one.
 *
 * @param g Gradient on the result, `[batch, channels, outHeight, outWidth]`.
 * @param size `[height, width]` of what was enlarged.
 */
export function upsampleGrad(
  g: Tensor,
  [height, width]: readonly [number, number],
): Tensor {
  const [batch = 0, channels = 0] = g.shape;
  const dx = g.backend.alloc([batch, channels, height, width]);
  run(g, dx, 1);
  return dx;
}

/** From `x` to `y`, the larger of which is the enlarged one. */
function run(x: Tensor, y: Tensor, GRAD: 0 | 1): void {
  const [small, large] = GRAD ? [y, x] : [x, y];
  const [batch = 0, channels = 0, height = 0, width = 0] = small.shape;
  const [, , outHeight = 0, outWidth = 0] = large.shape;
  const planes = batch * channels;
  x.backend.dispatch(KERNEL, {
    bind: [x, y],
    params: { planes, height, width, outHeight, outWidth, count: y.size },
    constants: { GRAD },
    groups: elementGroups(y.size),
  });
}
