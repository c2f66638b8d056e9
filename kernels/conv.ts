/**
 * Two-dimensional convolutions: 3x3 with stride 1 by Winograd F(2x2, 3x3), which needs 2.25 times
 * fewer multiplications; every other size, and images too small for the transforms to pay, by columns
 * and one matrix product. In the gpu family all of them by one tiled kernel.
 */
import { type Backend, expectSize, record, type Tensor } from "./backend.ts";
import { besideShape, splitChannels } from "./concat.ts";
import { convColumns, convColumnsGrad } from "./conv_columns.ts";
import { convTiled, convTiledGrad } from "./conv_tiled.ts";
import { gemm } from "./gemm.ts";
import { upsampleGrad, upsampleNearest } from "./upsample.ts";
import {
  groupNorm,
  type GroupNormOptions,
  normOf,
  runNorm,
} from "./group_norm.ts";
import { transformWeight, winograd, winogradTakesNorm } from "./winograd.ts";

/** Stride 1 and an image of the same size. */
const SAME = { kernel: 3, stride: 1, top: 1, left: 1 };

/**
 * Kernels of at least so many output times input channels stay as checkpoints have them, whatever their
 * storage: most of their work is where images have few cells. Storage must not decide how numbers are added
 * up: pictures with f16 and f32 weights are the same where the checkpoint's numbers have 16 bits.
 */
const LARGE_KERNEL = 2 ** 18;
/**
 * Cells of an image up to which such a kernel goes by columns: transforming it costs more than multiplying
 * with it. Seen on lavapipe with 1280 channels: at 4x4 cells 47 ms against 131, at 8x8 cells 167 against 136.
 */
const FEW_CELLS = 36;

/** A `groupNorm` before a convolution. */
export interface ConvNorm extends GroupNormOptions {
  /** `[in]`. */
  readonly weight: Tensor;
  /** `[in]`. */
  readonly bias: Tensor;
}

/** Options of `conv3x3`. */
export interface Conv3x3Options {
  /** Normalises `x`, and what may lie beside it, first, on the way where that is faster; see `groupNorm`. */
  readonly norm?: ConvNorm | undefined;
  /** `[out]`. */
  readonly bias?: Tensor | undefined;
  /** Added to each channel, `[batch, out]` or `[1, out]` shared by the batch. Differentiable. */
  readonly shift?: Tensor | undefined;
  /** Which of more numbers than `out` in each row of `shift` is the first channel's. */
  readonly shiftFirst?: number | undefined;
  /** Added to the result; has its shape. Differentiable. */
  readonly residual?: Tensor | undefined;
  /** Convolve `x` doubled by nearest neighbours, of which no copy is made. Default false. */
  readonly doubled?: boolean;
  /** Bounds what the convolution holds besides input and output; to test that. */
  readonly workBytes?: number;
  /** How the software family does weights as they are; `auto` goes by their size and the image's. For tests. */
  readonly variant?: "auto" | "columns";
}

/** Whether `conv3x3` is faster on f32 kernels in Winograd form: where they are small, in the software family. */
export function prefersWinograd(
  { family }: Pick<Backend, "family">,
  [out, channels]: readonly [number, number],
): boolean {
  return family === "software" && out * channels < LARGE_KERNEL;
}

/**
 * The Winograd form of a 3x3 kernel, made once at load. It serves the convolution and its vjp.
 *
 * @param weight `[out, in, 3, 3]`. Not consumed.
 * @param u Where to put it; a new tensor if left out.
 * @returns `u`, `[16, out, in]`.
 * @see Lavin and Gray 2016, arXiv:1509.09308.
 */
export function winogradWeight(weight: Tensor, u?: Tensor): Tensor {
  const [out = 0, channels = 0] = weight.shape;
  expectSize(weight, out * channels * 9, "winograd_weight");
  u ??= weight.backend.alloc([16, out, channels]);
  expectSize(u, 16 * out * channels, "winograd_weight");
  transformWeight(weight, u, { out: 0, outs: out, channel: 0, channels });
  return u;
}

/**
 * 3x3 convolution, stride 1, zero padding 1.
 *
 * @param x `[batch, in, height, width]`; where `norm` has something beside it, the first of the channels.
 * @param weight `[16, out, in]` from `winogradWeight`, or `[out, in, 3, 3]` as checkpoints have it, f32
 *   or f16, which is 1.78 times or 3.6 times smaller. The software family does both by Winograd, with the
 *   same numbers, the former faster, but large ones directly on images of up to 36 cells; the gpu family
 *   does the latter always directly, which is faster there.
 * @returns `[batch, out, height, width]`, twice that if `x` is doubled. Differentiable in `x`, `shift` and
 *   `residual`; saves nothing but what `norm` does.
 */
export function conv3x3(
  x: Tensor,
  weight: Tensor,
  options: Conv3x3Options = {},
): Tensor {
  const { doubled = false, norm } = options;
  const { beside } = norm ?? {};
  const [batch, own, ...small] = image(x, "conv3x3");
  const channels = beside ? besideShape(x, beside, "conv3x3")[1]! : own;
  const [height, width] = doubled ? [2 * small[0], 2 * small[1]] : small;
  const raw = weight.shape.length === 4;
  const out = weight.shape[raw ? 0 : 1] ?? 0;
  expectSize(weight, (raw ? 9 : 16) * out * channels, "conv3x3");
  const { bias, shift, shiftFirst, residual, workBytes, variant = "auto" } =
    options;
  if (shift) expectShift(shift, [batch, out], shiftFirst);
  if (bias) expectSize(bias, out, "conv3x3 bias");
  if (residual) {
    expectSize(residual, batch * out * height * width, "conv3x3 residual");
  }
  const added = {
    bias,
    shift,
    shiftStride: shift ? strideOfShift(shift, batch) : 0,
    shiftFirst: shiftFirst ?? 0,
    residual,
    doubled,
  };
  const few = !prefersWinograd(x.backend, [out, channels]) &&
    height * width <= FEW_CELLS;
  const asIs = raw &&
    (x.backend.family === "gpu" || variant === "columns" || few);
  if (doubled && asIs && x.backend.family === "software") {
    using large = upsampleNearest(x, [height, width]);
    return conv3x3(large, weight, { ...options, doubled: false });
  }
  const forms = [channels, out] as const;
  if (
    norm &&
    (asIs || !winogradTakesNorm(x, weight, forms, { ...added, workBytes }))
  ) {
    using normed = groupNorm(x, norm.weight, norm.bias, norm);
    return conv3x3(normed, weight, { ...options, norm: undefined });
  }
  const first = norm && normOf(x, norm.weight, norm.bias, norm);
  using _ = first?.stats;
  const to = [out, height, width] as const;
  const y = !asIs
    ? winograd(x, weight, forms, false, { ...added, workBytes, norm: first })
    : doubled
    ? convTiled(x, weight, to, { ...SAME, doubled }, added)
    : direct(x, weight, to, SAME, { ...added, workBytes });
  const sources = first?.sources ?? [x];
  const inputs = [
    ...sources,
    ...(shift ? [shift] : []),
    ...(residual ? [residual] : []),
  ];
  const saved = first ? [...sources, first.stats] : [];
  record([y], inputs, saved, ([g], needs) => {
    const back = (): Tensor => {
      const size = [channels, height, width] as const;
      const large = asIs
        ? directGrad(g!, weight, size, SAME, workBytes)
        : winograd(g!, weight, [out, channels], true, { workBytes });
      if (!doubled && !first) return large;
      using _ = large;
      return first ? runNorm(first, large) : upsampleGrad(large, small);
    };
    const wanted = sources.some((_, i) => needs[i]);
    using grad = wanted ? back() : undefined;
    const grads = grad
      ? splitChannels(grad, sources, needs)
      : sources.map(() => undefined);
    if (shift) {
      grads.push(
        needs[grads.length] ? sumCells(g!, shift, shiftFirst) : undefined,
      );
    }
    if (residual) grads.push(needs[grads.length] ? g!.retain() : undefined);
    return grads;
  });
  return y;
}

/** Distance between the shifts of a batch; 0 where it shares them. */
function strideOfShift(shift: Tensor, batch: number): number {
  return shift.shape[0] === 1 ? 0 : shift.size / batch;
}

/** Throws unless a shift has a number per channel, of each batch element or of all. */
function expectShift(
  shift: Tensor,
  [batch, out]: readonly [number, number],
  first: number | undefined,
): void {
  const rows = shift.shape[0] === 1 ? 1 : batch;
  if (first === undefined) expectSize(shift, rows * out, "conv3x3 shift");
  else if (
    !(Number.isInteger(first) && first >= 0) || shift.shape[0] !== rows ||
    first + out > shift.size / rows
  ) {
    throw new RangeError(
      `Cannot run conv3x3 shift: ${out} numbers from ${first} on must lie inside each of ${rows} rows: current shape is [${shift.shape}]`,
    );
  }
}

/** Sums over space (and over the batch if the shift is shared): a product with ones. */
function sumCells(g: Tensor, shift: Tensor, first = 0): Tensor {
  const [batch, out, height, width] = image(g, "conv3x3 shift");
  const cells = height * width;
  const backend = g.backend;
  // What other channels are shifted by stays without gradient.
  const grad = backend.upload(new Float32Array(shift.size), shift.shape);
  using ones = backend.upload(new Float32Array(cells).fill(1), [cells, 1]);
  const shared = shift.shape[0] === 1;
  const stride = strideOfShift(shift, batch);
  for (let b = 0; b < batch; b++) {
    gemm(
      [out, 1, cells],
      { tensor: g, stride: cells, offset: b * out * cells },
      { tensor: ones, stride: 1 },
      { tensor: grad, stride: 1, offset: first + b * stride },
      { accumulate: shared && b > 0 },
    );
  }
  return grad;
}

/** Options of `conv`. */
export interface ConvOptions {
  /** `[out]`. */
  readonly bias?: Tensor | undefined;
  /** Side of the kernel. */
  readonly kernel: number;
  /** Step between outputs. Default 1. */
  readonly stride?: number;
  /** Zeros added `[left, right, top, bottom]`. Default none. */
  readonly padding?: readonly [number, number, number, number];
  /** Most bytes of columns held at once, to test the cutting. */
  readonly workBytes?: number;
}

/**
 * Convolution of any square kernel, stride and padding.
 *
 * @param x `[batch, in, height, width]`.
 * @param weight `[out, in, kernel, kernel]`.
 * @returns `[batch, out, outHeight, outWidth]`. Differentiable in `x`; saves nothing.
 * @throws {RangeError} If no output remains.
 */
export function conv(x: Tensor, weight: Tensor, options: ConvOptions): Tensor {
  const [, channels, height, width] = image(x, "conv");
  const {
    bias,
    kernel,
    stride = 1,
    padding: [left, right, top, bottom] = [0, 0, 0, 0],
    workBytes,
  } = options;
  const out = weight.shape[0] ?? 0;
  const depth = channels * kernel * kernel;
  expectSize(weight, out * depth, "conv");
  if (bias) expectSize(bias, out, "conv bias");
  const outHeight = Math.floor((height + top + bottom - kernel) / stride) + 1;
  const outWidth = Math.floor((width + left + right - kernel) / stride) + 1;
  if (outHeight < 1 || outWidth < 1) {
    throw new RangeError(
      `Cannot run conv: the kernel of ${kernel} must fit the padded input: current shape is [${x.shape}]`,
    );
  }
  const geometry = { kernel, stride, top, left };
  const from = [channels, height, width] as const;
  const to = [out, outHeight, outWidth] as const;
  const y = direct(x, weight, to, geometry, { bias, workBytes });
  record([y], [x], [], ([g]) => [
    directGrad(g!, weight, from, geometry, workBytes),
  ]);
  return y;
}

/** With weights as checkpoints have them, as the family does that. Arguments of `convColumns`. */
function direct(...args: Parameters<typeof convColumns>): Tensor {
  const [{ backend }] = args;
  return backend.family === "gpu" ? convTiled(...args) : convColumns(...args);
}

/** The transpose of `direct`. Arguments of `convColumnsGrad`. */
function directGrad(...args: Parameters<typeof convColumnsGrad>): Tensor {
  const [g, weight, size, geometry] = args;
  return g.backend.family === "gpu"
    ? convTiledGrad(g, weight, size, geometry)
    : convColumnsGrad(...args);
}

function image(x: Tensor, what: string): [number, number, number, number] {
  const [batch = 0, channels = 0, height = 0, width = 0] = x.shape;
  if (x.shape.length !== 4 || x.size === 0) {
    throw new RangeError(
      `Cannot run ${what}: x must be [batch, channels, height, width]: current shape is [${x.shape}]`,
    );
  }
  return [batch, channels, height, width];
}
