/**
 * Convolutions of the software family whose images, kernels or steps Winograd's form does not suit: the
 * patches of the image as columns, and one matrix product.
 */
import col2imWgsl from "./col2im.wgsl" with { type: "text" };
import im2colWgsl from "./im2col.wgsl" with { type: "text" };
import {
  elementGroups,
  foldGroups,
  type Kernel,
  type Tensor,
} from "./backend.ts";
import type { Added, Geometry } from "./conv_tiled.ts";
import { gemm } from "./gemm.ts";
import { col2imRef, im2colRef } from "./im2col_ref.ts";
import { atMost } from "./winograd.ts";

const GEOMETRY = ["outWidth", "kernel", "stride", "top", "left", "plane"];
const IM2COL: Kernel = {
  name: "im2col",
  wgsl: im2colWgsl,
  bindings: "rw",
  params: ["lines", "height", "width", ...GEOMETRY, "first", "cells"],
  ref: im2colRef,
};
const COL2IM: Kernel = {
  name: "col2im",
  wgsl: col2imWgsl,
  bindings: "rw",
  params: [
    "count",
    "height",
    "width",
    "outHeight",
    ...GEOMETRY,
    "down",
    "across",
  ],
  ref: col2imRef,
};

/** Threads of a workgroup of `im2col`, and cells of each. */
const THREADS = 8;
const RUN = 256;
/** Columns of a convolution stay below this. */
const COLUMN_BYTES = 32 * 2 ** 20;

/** What is added to the result, and how it is cut. */
export interface ColumnOptions extends Added {
  /** Most bytes of columns held at once. */
  readonly workBytes?: number | undefined;
}

/**
 * A convolution by columns of the input and a matrix product: several images at once where they fit, else
 * some cells of one.
 *
 * @param x `[batch, channels, height, width]`.
 * @param weight `[out, channels, kernel, kernel]`, f32 or f16.
 * @param size Channels, height and width of the result.
 */
export function convColumns(
  x: Tensor,
  weight: Tensor,
  [out, outHeight, outWidth]: readonly [number, number, number],
  geometry: Geometry,
  options: ColumnOptions = {},
): Tensor {
  const { bias, shift, shiftStride = 0, shiftFirst = 0, residual } = options;
  const { workBytes = COLUMN_BYTES } = options;
  const [batch = 0, channels = 0, height = 0, width = 0] = x.shape;
  const { backend } = x;
  const depth = channels * geometry.kernel ** 2;
  const cells = outHeight * outWidth;
  const y = backend.alloc([batch, out, outHeight, outWidth]);
  const images = Math.floor(workBytes / (4 * depth * cells)) || 1;
  const chunk = images > 1 ? cells : atMost(workBytes / (4 * depth), cells);
  for (let b = 0; b < batch; b += images) {
    const many = Math.min(images, batch - b);
    for (let first = 0; first < cells; first += chunk) {
      const here = Math.min(chunk, cells - first);
      using columns = backend.alloc([many, depth, here]);
      backend.dispatch(IM2COL, {
        bind: [x, columns],
        params: {
          ...geometry,
          height,
          width,
          outWidth,
          lines: many * depth,
          plane: b * channels,
          planes: many * channels,
          first,
          cells: here,
        },
        groups: foldGroups(
          Math.ceil(many * depth * Math.ceil(here / RUN) / THREADS),
        ),
      });
      gemm(
        [out, here, depth],
        { tensor: weight, stride: depth },
        { tensor: columns, stride: here, batchStride: depth * here },
        {
          tensor: y,
          stride: cells,
          batchStride: out * cells,
          offset: b * out * cells + first,
        },
        {
          batch: many,
          bias,
          shift: shift && {
            tensor: shift,
            first: shiftFirst + b * shiftStride,
            stride: shiftStride,
          },
          residual,
          work: out * cells * depth,
        },
      );
    }
  }
  return y;
}

/**
 * The transpose of `convColumns`: columns by a matrix product, and each to where it came from.
 *
 * @param g Like the result of `convColumns`.
 * @param size Channels, height and width of its input.
 */
export function convColumnsGrad(
  g: Tensor,
  weight: Tensor,
  [channels, height, width]: readonly [number, number, number],
  geometry: Geometry,
  workBytes = COLUMN_BYTES,
): Tensor {
  const [batch = 0, out = 0, outHeight = 0, outWidth = 0] = g.shape;
  const { backend } = g;
  const taps = geometry.kernel ** 2;
  const depth = channels * taps;
  const cells = outHeight * outWidth;
  const dx = backend.alloc([batch, channels, height, width]);
  const images = Math.floor(workBytes / (4 * depth * cells)) || 1;
  const slice = images > 1
    ? channels
    : atMost(workBytes / (4 * taps * cells), channels);
  for (let b = 0; b < batch; b += images) {
    const many = Math.min(images, batch - b);
    for (let channel = 0; channel < channels; channel += slice) {
      const here = Math.min(slice, channels - channel);
      using back = backend.alloc([many, here * taps, cells]);
      gemm(
        [here * taps, cells, out],
        { tensor: weight, stride: depth, offset: channel * taps },
        {
          tensor: g,
          stride: cells,
          batchStride: out * cells,
          offset: b * out * cells,
        },
        { tensor: back, stride: cells, batchStride: here * taps * cells },
        { batch: many, a: "column", work: depth * cells * out },
      );
      const down = Math.ceil((height + geometry.top) / geometry.stride);
      const across = Math.ceil((width + geometry.left) / geometry.stride);
      const count = many * here * down * across;
      backend.dispatch(COL2IM, {
        bind: [back, dx],
        params: {
          ...geometry,
          height,
          width,
          outHeight,
          outWidth,
          down,
          across,
          count,
          plane: b * channels + channel,
          planes: many * here,
        },
        groups: elementGroups(count),
      });
    }
  }
  return dx;
}
