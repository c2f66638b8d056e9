/**
 * Two-dimensional convolutions: 3x3 with stride 1 by Winograd F(2x2, 3x3), which needs 2.25 times
 * fewer multiplications; every other size by columns and one matrix product.
 */
import col2imWgsl from "./col2im.wgsl" with { type: "text" };
import im2colWgsl from "./im2col.wgsl" with { type: "text" };
import inputWgsl from "./winograd_input.wgsl" with { type: "text" };
import outputWgsl from "./winograd_output.wgsl" with { type: "text" };
import weightWgsl from "./winograd_weight.wgsl" with { type: "text" };
import {
  elementGroups,
  expectSize,
  type Kernel,
  record,
  type Tensor,
} from "./backend.ts";
import { gemm } from "./gemm.ts";
import { col2imRef, im2colRef } from "./im2col_ref.ts";
import {
  winogradInputRef,
  winogradOutputRef,
  winogradWeightRef,
} from "./winograd_ref.ts";

const TILES = [
  "count",
  "channels",
  "height",
  "width",
  "rows",
  "columns",
  "tiles",
];
const COLUMNS = [
  "count",
  "height",
  "width",
  "outHeight",
  "outWidth",
  "kernel",
  "stride",
  "top",
  "left",
];
const WEIGHT: Kernel = {
  name: "winograd_weight",
  wgsl: weightWgsl,
  bindings: "rw",
  params: ["count"],
  ref: winogradWeightRef,
};
const INPUT: Kernel = {
  name: "winograd_input",
  wgsl: inputWgsl,
  bindings: "rw",
  params: TILES,
  ref: winogradInputRef,
};
const OUTPUT: Kernel = {
  name: "winograd_output",
  wgsl: outputWgsl,
  bindings: "rrrrw",
  params: [...TILES, "shiftStride"],
  ref: winogradOutputRef,
};
const IM2COL: Kernel = {
  name: "im2col",
  wgsl: im2colWgsl,
  bindings: "rw",
  params: COLUMNS,
  ref: im2colRef,
};
const COL2IM: Kernel = {
  name: "col2im",
  wgsl: col2imWgsl,
  bindings: "rw",
  params: COLUMNS,
  ref: col2imRef,
};

/** Options of `conv3x3`. */
export interface Conv3x3Options {
  /** `[out]`. */
  readonly bias?: Tensor | undefined;
  /** Added to each channel, `[batch, out]` or `[1, out]` shared by the batch. Differentiable. */
  readonly shift?: Tensor | undefined;
  /** Added to the result; has its shape. Differentiable. */
  readonly residual?: Tensor | undefined;
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
  const count = out * channels;
  weight.backend.dispatch(WEIGHT, {
    bind: [weight, u],
    params: { count },
    groups: elementGroups(count),
  });
  return u;
}

/**
 * 3x3 convolution, stride 1, zero padding 1.
 *
 * @param x `[batch, in, height, width]`.
 * @param weight `[16, out, in]` from `winogradWeight`.
 * @returns `[batch, out, height, width]`. Differentiable in `x`, `shift` and `residual`; saves nothing.
 */
export function conv3x3(
  x: Tensor,
  weight: Tensor,
  options: Conv3x3Options = {},
): Tensor {
  const [batch, channels, height, width] = image(x, "conv3x3");
  const out = weight.shape[1] ?? 0;
  expectSize(weight, 16 * out * channels, "conv3x3");
  const { bias, shift, residual } = options;
  if (shift) {
    expectSize(
      shift,
      shift.shape[0] === 1 ? out : batch * out,
      "conv3x3 shift",
    );
  }
  if (bias) expectSize(bias, out, "conv3x3 bias");
  if (residual) {
    expectSize(residual, batch * out * height * width, "conv3x3 residual");
  }
  const y = winograd(x, weight, [channels, out], false, options);
  const inputs = [
    x,
    ...(shift ? [shift] : []),
    ...(residual ? [residual] : []),
  ];
  record([y], inputs, [], ([g], needs) => {
    const grads: (Tensor | undefined)[] = [
      needs[0] ? winograd(g!, weight, [out, channels], true, {}) : undefined,
    ];
    if (shift) grads.push(needs[1] ? sumCells(g!, shift) : undefined);
    if (residual) grads.push(needs[grads.length] ? g!.retain() : undefined);
    return grads;
  });
  return y;
}

function winograd(
  x: Tensor,
  u: Tensor,
  [from, to]: readonly [number, number],
  flip: boolean,
  { bias, shift, residual }: Conv3x3Options,
): Tensor {
  const [batch, , height, width] = image(x, "conv3x3");
  const backend = x.backend;
  const rows = Math.ceil(height / 2), columns = Math.ceil(width / 2);
  const tiles = batch * rows * columns;
  const size = { height, width, rows, columns, tiles };
  using v = backend.alloc([16, from, tiles]);
  backend.dispatch(INPUT, {
    bind: [x, v],
    params: { ...size, count: from * tiles, channels: from },
    constants: { FLIP: Number(flip) },
    groups: elementGroups(from * tiles),
  });
  using m = backend.alloc([16, to, tiles]);
  gemm(
    [to, tiles, from],
    { tensor: u, stride: flip ? to : from, batchStride: from * to },
    { tensor: v, stride: tiles, batchStride: from * tiles },
    { tensor: m, stride: tiles, batchStride: to * tiles },
    { batch: 16, a: flip ? "column" : "row" },
  );
  const y = backend.alloc([batch, to, height, width]);
  backend.dispatch(OUTPUT, {
    bind: [m, bias ?? m, shift ?? m, residual ?? m, y],
    params: {
      ...size,
      count: to * tiles,
      channels: to,
      shiftStride: shift && shift.shape[0] !== 1 ? to : 0,
    },
    constants: {
      FLIP: Number(flip),
      BIAS: Number(!!bias),
      SHIFT: Number(!!shift),
      RESIDUAL: Number(!!residual),
    },
    groups: elementGroups(to * tiles),
  });
  return y;
}

/** Sums over space (and over the batch if the shift is shared): a product with ones. */
function sumCells(g: Tensor, shift: Tensor): Tensor {
  const [batch, out, height, width] = image(g, "conv3x3 shift");
  const cells = height * width;
  const backend = g.backend;
  const grad = backend.alloc(shift.shape);
  using ones = backend.upload(new Float32Array(cells).fill(1), [cells, 1]);
  const shared = shift.shape[0] === 1;
  for (let b = 0; b < batch; b++) {
    gemm(
      [out, 1, cells],
      { tensor: g, stride: cells, offset: b * out * cells },
      { tensor: ones, stride: 1 },
      { tensor: grad, stride: 1, offset: shared ? 0 : b * out },
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
  const [batch, channels, height, width] = image(x, "conv");
  const {
    bias,
    kernel,
    stride = 1,
    padding: [left, right, top, bottom] = [0, 0, 0, 0],
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
  const backend = x.backend;
  const cells = outHeight * outWidth;
  const params = {
    planes: batch * channels,
    height,
    width,
    outHeight,
    outWidth,
    kernel,
    stride,
    top,
    left,
  };
  using columns = backend.alloc([batch, depth, cells]);
  backend.dispatch(IM2COL, {
    bind: [x, columns],
    params: { ...params, count: columns.size },
    groups: elementGroups(columns.size),
  });
  const y = backend.alloc([batch, out, outHeight, outWidth]);
  gemm(
    [out, cells, depth],
    { tensor: weight, stride: depth },
    { tensor: columns, stride: cells, batchStride: depth * cells },
    { tensor: y, stride: cells, batchStride: out * cells },
    { batch, bias },
  );
  record([y], [x], [], ([g]) => {
    using back = backend.alloc([batch, depth, cells]);
    gemm(
      [depth, cells, out],
      { tensor: weight, stride: depth },
      { tensor: g!, stride: cells, batchStride: out * cells },
      { tensor: back, stride: cells, batchStride: depth * cells },
      { batch, a: "column" },
    );
    const dx = backend.alloc(x.shape);
    backend.dispatch(COL2IM, {
      bind: [back, dx],
      params: { ...params, count: dx.size },
      groups: elementGroups(dx.size),
    });
    return [dx];
  });
  return y;
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
