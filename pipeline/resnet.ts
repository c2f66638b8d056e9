/** The convolutional blocks of UNet and VAE: resnets, down- and upsampling. */
import type { Tensor } from "../kernels/backend.ts";
import { conv, conv3x3 } from "../kernels/conv.ts";
import { linear } from "../kernels/linear.ts";
import { upsampleNearest } from "../kernels/upsample.ts";
import type { Affine, Layer, Parameters } from "./parameters.ts";
import type { TimeLayers } from "./time_layers.ts";

/** Frees `x` and returns what `f` made of it. */
export function into(x: Tensor, f: (x: Tensor) => Tensor): Tensor {
  using old = x;
  return f(old);
}

/** GroupNorm, SiLU, conv, shift by the time embedding, GroupNorm, SiLU, conv, plus the input. */
export interface Resnet {
  /** GroupNorm groups. */
  readonly groups: number;
  /** GroupNorm eps. */
  readonly eps: number;
  /** First GroupNorm. */
  readonly norm1: Affine;
  /** First convolution. */
  readonly conv1: Layer;
  /** Which of the shifts by the time embedding is its first channel's. */
  readonly firstShift: number | undefined;
  /** Second GroupNorm. */
  readonly norm2: Affine;
  /** Second convolution. */
  readonly conv2: Layer;
  /** 1x1, where the channels change. */
  readonly shortcut: Layer | undefined;
}

/** Sizes of a resnet. */
export interface ResnetSize {
  /** Channels in. */
  readonly from: number;
  /** Channels out. */
  readonly to: number;
  /** Where its layer of the time embedding goes; none in the VAE. */
  readonly time?: TimeLayers | undefined;
  /** GroupNorm groups. */
  readonly groups: number;
  /** GroupNorm eps: 1e-5 in the UNet, 1e-6 in the VAE. */
  readonly eps: number;
}

/** Asks for the weights of diffusers' `ResnetBlock2D`. */
export function resnetParameters(
  p: Parameters,
  name: string,
  { from, to, time, groups, eps }: ResnetSize,
): Resnet {
  return {
    groups,
    eps,
    norm1: p.affine(`${name}norm1`, from),
    conv1: p.conv3x3(`${name}conv1`, to, from),
    firstShift: time?.add(`${name}time_emb_proj`, to),
    norm2: p.affine(`${name}norm2`, to),
    conv2: p.conv3x3(`${name}conv2`, to, to),
    shortcut: from === to
      ? undefined
      : p.linear(`${name}conv_shortcut`, to, from),
  };
}

/**
 * Runs a resnet.
 *
 * @param x `[batch, from, height, width]`, or the first of these channels.
 * @param shifts What the time embedding adds to the channels of all resnets, of `timeShifts`.
 * @param skip The other channels, which a skip connection brings; they are never copied to those of `x`.
 * @returns `[batch, to, height, width]`.
 */
export function resnet(
  r: Resnet,
  x: Tensor,
  shifts?: Tensor,
  skip?: Tensor,
): Tensor {
  const { groups, eps } = r;
  const shape = { groups, eps, silu: true };
  using hidden = conv3x3(x, r.conv1.weight, {
    norm: { ...r.norm1, ...shape, beside: skip },
    bias: r.conv1.bias,
    shift: shifts,
    shiftFirst: r.firstShift,
  });
  using residual = r.shortcut
    ? linear(x, r.shortcut.weight, { bias: r.shortcut.bias, beside: skip })
    : x.retain();
  return conv3x3(hidden, r.conv2.weight, {
    norm: { ...r.norm2, ...shape },
    bias: r.conv2.bias,
    residual,
  });
}

/**
 * Halves the grid: 3x3 convolution with stride 2.
 *
 * @param padding `same` pads 1 on each side (UNet), `end` pads 1 right and below (VAE encoder).
 */
export function downsample(
  layer: Layer,
  x: Tensor,
  padding: "same" | "end",
): Tensor {
  return conv(x, layer.weight, {
    bias: layer.bias,
    kernel: 3,
    stride: 2,
    padding: padding === "same" ? [1, 1, 1, 1] : [0, 1, 0, 1],
  });
}

/** Grows the grid to `size` by nearest neighbours, then a 3x3 convolution. */
export function upsample(
  layer: Layer,
  x: Tensor,
  size: readonly [number, number],
): Tensor {
  const { weight, bias } = layer;
  const doubled = size.every((n, i) => n === 2 * x.shape[2 + i]!);
  if (doubled) return conv3x3(x, weight, { bias, doubled });
  using large = upsampleNearest(x, size);
  return conv3x3(large, weight, { bias });
}
