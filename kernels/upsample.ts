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
  const backend = x.backend;
  const params = {
    planes: batch * channels,
    height,
    width,
    outHeight,
    outWidth,
  };
  const y = backend.alloc([batch, channels, outHeight, outWidth]);
  backend.dispatch(KERNEL, {
    bind: [x, y],
    params: { ...params, count: y.size },
    constants: { GRAD: 0 },
    groups: elementGroups(y.size),
  });
  record([y], [x], [], ([g]) => {
    const dx = backend.alloc(x.shape);
    backend.dispatch(KERNEL, {
      bind: [g!, dx],
      params: { ...params, count: dx.size },
      constants: { GRAD: 1 },
      groups: elementGroups(dx.size),
    });
    return [dx];
  });
  return y;
}
