/**
 * Convolutions of the gpu family: one matrix product that gathers its right side from the image, so
 * that weights stay as checkpoints have them and nothing is held besides input and output.
 * By matrix units it reads copies of the image in 16 bits instead, and on the way back one of the weights.
 */
import wgsl from "./conv_tiled.wgsl" with { type: "text" };
import type { Kernel, Tensor } from "./backend.ts";
import { convTiledRef } from "./conv_tiled_ref.ts";
import { halveTaps, turnedWeight } from "./halve.ts";
import { largest } from "./largest.ts";
import { matrixProduct } from "./matrix_product.ts";
import { splitSum } from "./split_sum.ts";
import { isLong, tiledKernel } from "./tiled.ts";
import { cutOn, tileGroups } from "./tiles.ts";

const KERNEL: Kernel = {
  name: "conv_tiled",
  wgsl,
  bindings: "rrrrrw",
  params: [
    "M",
    "N",
    "K",
    "channels",
    "height",
    "width",
    "toWidth",
    "toCells",
    "top",
    "left",
    "shiftStride",
    "shiftFirst",
    "parts",
    "each",
  ],
  ref: convTiledRef,
  flops: ({ M, N, K }) => 2 * M! * N! * K!,
};

/** A convolution's kernel and where it starts. */
export interface Geometry {
  /** Side of the kernel. */
  readonly kernel: number;
  /** Step between outputs. */
  readonly stride: number;
  /** Rows of zeros above the image. */
  readonly top: number;
  /** Columns of zeros to its left. */
  readonly left: number;
}

/** The same, perhaps of a larger image. */
export interface DoubledGeometry extends Geometry {
  /** The image is doubled by nearest neighbours first. */
  readonly doubled?: boolean;
}

/** What is added to the result. */
export interface Added {
  /** `[channels]`. */
  readonly bias?: Tensor | undefined;
  /** Of each batch element a number per channel, from `shiftFirst` on. */
  readonly shift?: Tensor | undefined;
  /** Distance between those of the batch elements; 0, the default, shares them. */
  readonly shiftStride?: number;
  /** Default 0. */
  readonly shiftFirst?: number;
  /** Like the result. */
  readonly residual?: Tensor | undefined;
}

/**
 * The convolution.
 *
 * @param x `[batch, in, height, width]`.
 * @param weight `[out, in, kernel, kernel]`, f32 or f16.
 * @param to `[out, outHeight, outWidth]`.
 * @returns `[batch, out, outHeight, outWidth]`.
 */
export function convTiled(
  x: Tensor,
  weight: Tensor,
  to: readonly [number, number, number],
  geometry: DoubledGeometry,
  added: Added = {},
): Tensor {
  return run(x, weight, to, geometry, added, false);
}

/**
 * Its transpose.
 *
 * @param g Gradient on the result, `[batch, out, outHeight, outWidth]`.
 * @param to `[in, height, width]`.
 * @returns Gradient on x, `[batch, in, height, width]`.
 */
export function convTiledGrad(
  g: Tensor,
  weight: Tensor,
  to: readonly [number, number, number],
  geometry: Geometry,
): Tensor {
  return run(g, weight, to, geometry, {}, true);
}

function run(
  x: Tensor,
  weight: Tensor,
  [channels, toHeight, toWidth]: readonly [number, number, number],
  geometry: DoubledGeometry,
  added: Added,
  grad: boolean,
): Tensor {
  const { kernel, stride, top, left, doubled = false } = geometry;
  const { bias, shift, shiftStride = 0, shiftFirst = 0, residual } = added;
  const [batch = 0, from = 0, height = 0, width = 0] = x.shape;
  const toCells = toHeight * toWidth;
  const [M, N, K] = [channels, batch * toCells, from * kernel * kernel];
  const { backend } = x;
  const y = backend.alloc([batch, channels, toHeight, toWidth]);
  if (takesMatrix(x, geometry, toWidth, toCells)) {
    using turned = grad ? turnedWeight(weight) : undefined;
    using peaks = grad ? largest(x) : undefined;
    using halves = halveTaps(x, doubled, peaks);
    matrixProduct(
      backend.matrix!,
      [M, toCells, K],
      { tensor: turned ?? weight, stride: K },
      { tensor: halves, peaks, width: toWidth },
      { tensor: y, stride: toCells, batchStride: M * toCells },
      {
        batch,
        bias,
        shift: shift &&
          { tensor: shift, first: shiftFirst, stride: shiftStride },
        residual,
      },
    );
    return y;
  }
  const { tile, parts, each } = cutOn(backend, M, toCells, K);
  using sums = parts > 1
    ? backend.alloc([batch, parts, M, toCells])
    : undefined;
  const found = tiledKernel(KERNEL, tile, weight);
  backend.dispatch(found.kernel, {
    bind: [weight, x, bias ?? x, shift ?? x, residual ?? x, sums ?? y],
    params: {
      M,
      N,
      K,
      channels: from,
      height,
      width,
      toWidth,
      toCells,
      top,
      left,
      shiftStride,
      shiftFirst,
      parts,
      each,
    },
    constants: {
      ...found.constants,
      LONG: isLong(K),
      A_LINES: Number(!grad && K % 4 === 0),
      FOURS: Number(toWidth % 4 === 0),
      SIDE: kernel,
      STRIDE: stride,
      GRAD: Number(grad),
      DOUBLED: Number(doubled),
      BIAS: Number(!sums && bias !== undefined),
      SHIFT: Number(!sums && shift !== undefined),
      RESIDUAL: Number(!sums && residual !== undefined),
      SPLIT: Number(sums !== undefined),
    },
    groups: [...tileGroups(tile, M, N), parts],
  });
  if (sums) {
    splitSum(sums, {
      c: y,
      ldc: toCells,
      sc: M * toCells,
      oc: 0,
      alpha: 1,
      bias,
      shift,
      shiftStride,
      shiftFirst,
      residual,
    });
  }
  return y;
}

/** Whether matrix units do a convolution: those of networks, of images that are not small. */
function takesMatrix(
  { backend, shape: [, channels = 0] }: Tensor,
  { kernel, stride, top, left }: Geometry,
  width: number,
  cells: number,
): boolean {
  return backend.halfProducts && backend.matrix !== undefined &&
    kernel === 3 && stride === 1 && top === 1 && left === 1 &&
    channels % 8 === 0 && width % 4 === 0 && cells > 32;
}
