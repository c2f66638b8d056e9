/**
 * 3x3 convolutions with stride 1 by Winograd F(2x2, 3x3): transform the input's tiles, one batched
 * matrix product, transform back. In pieces, so that what lies between stays small: tiles of the
 * image, and output channels where the weights are transformed on the way.
 *
 * @see Lavin and Gray 2016, arXiv:1509.09308.
 */
import doubledWgsl from "./winograd_doubled.wgsl" with { type: "text" };
import inputWgsl from "./winograd_input.wgsl" with { type: "text" };
import inputFoursWgsl from "./winograd_input_fours.wgsl" with { type: "text" };
import inputOnesWgsl from "./winograd_input_ones.wgsl" with { type: "text" };
import outputWgsl from "./winograd_output.wgsl" with { type: "text" };
import outputFoursWgsl from "./winograd_output_fours.wgsl" with {
  type: "text",
};
import outputOnesWgsl from "./winograd_output_ones.wgsl" with { type: "text" };
import normWgsl from "./winograd_norm.wgsl" with { type: "text" };
import stripWgsl from "./winograd_norm_strip.wgsl" with { type: "text" };
import planeWgsl from "./winograd_plane.wgsl" with { type: "text" };
import tilesWgsl from "./winograd_tiles.wgsl" with { type: "text" };
import weightWgsl from "./winograd_weight.wgsl" with { type: "text" };
import { elementGroups, type Kernel, type Tensor } from "./backend.ts";
import { gemm } from "./gemm.ts";
import { bothSources, type Norm, NORM_WGSL } from "./group_norm.ts";
import {
  winogradDoubledRef,
  winogradInputRef,
  winogradNormRef,
  winogradOutputRef,
  winogradWeightRef,
} from "./winograd_ref.ts";

/** Sizes of the image and of its tiles. */
const IMAGE = ["channels", "height", "width", "rows", "columns", "tiles"];
const TILES = ["count", ...IMAGE, "first", "all"];
const WEIGHT: Kernel = {
  name: "winograd_weight",
  wgsl: planeWgsl + weightWgsl,
  bindings: "rw",
  params: ["count", "width", "stride", "first", "planes"],
  ref: winogradWeightRef,
};
const INPUT: Kernel = {
  name: "winograd_input",
  wgsl: planeWgsl + tilesWgsl + inputWgsl + inputOnesWgsl,
  bindings: "rw",
  params: [...TILES, "flip"],
  ref: winogradInputRef,
};
/** For images that whole tiles cover, four of them side by side. */
const INPUT_FOURS: Kernel = {
  ...INPUT,
  name: "winograd_input_fours",
  wgsl: planeWgsl + tilesWgsl + inputWgsl + inputFoursWgsl,
};
const NORM: Kernel = {
  name: "winograd_norm",
  wgsl: NORM_WGSL + planeWgsl + tilesWgsl + bothSources(stripWgsl) + normWgsl,
  bindings: "rrrrww",
  params: ["count", "cells", "groups", "own", "eps:f", ...IMAGE, "flip"],
  ref: winogradNormRef,
};
const DOUBLED: Kernel = {
  name: "winograd_doubled",
  wgsl: planeWgsl + doubledWgsl,
  bindings: "rw",
  params: ["count", "channels", "rows", "columns", "tiles", "first", "all"],
  ref: winogradDoubledRef,
};
const OUTPUT: Kernel = {
  name: "winograd_output",
  wgsl: planeWgsl + outputWgsl + outputOnesWgsl,
  bindings: "rrrrw",
  params: [
    ...TILES,
    "slice",
    "firstChannel",
    "shiftStride",
    "shiftFirst",
    "planes",
    "flip",
    "bias",
    "shift",
  ],
  ref: winogradOutputRef,
};
/** For the same images. */
const OUTPUT_FOURS: Kernel = {
  ...OUTPUT,
  name: "winograd_output_fours",
  wgsl: planeWgsl + outputWgsl + outputFoursWgsl,
};

/** Transformed tiles before and after the product stay below this. */
const WORK_BYTES = 64 * 2 ** 20;

/** What is added to the result, how it is cut, and whether the image is doubled. */
export interface WinogradOptions {
  /** Double the image by nearest neighbours first, which leaves 9 of 16 products. Not with `flip`. */
  readonly doubled?: boolean;
  /** Normalises the image first, the first source being `x`; only where `winogradTakesNorm`. */
  readonly norm?: Norm | undefined;
  /** `[to]`. */
  readonly bias?: Tensor | undefined;
  /** Of each batch element `to` numbers, from `shiftFirst` on. */
  readonly shift?: Tensor | undefined;
  /** Distance between those of the batch elements; 0, the default, shares them. */
  readonly shiftStride?: number;
  /** Default 0. */
  readonly shiftFirst?: number;
  /** Like the result. */
  readonly residual?: Tensor | undefined;
  /** Most bytes of transformed tiles held at once, and twice those of weights; to test the cutting. */
  readonly workBytes?: number | undefined;
}

/** Part of a 3x3 kernel `[out, in, 3, 3]`: all of it, or some output or input channels. */
export interface KernelPart {
  /** First output channel. */
  readonly out: number;
  /** Number of output channels. */
  readonly outs: number;
  /** First input channel. */
  readonly channel: number;
  /** Number of input channels. */
  readonly channels: number;
}

/** Transforms a part of `weight` `[out, in, 3, 3]` into `planes` of `u` `[16, part.outs, part.channels]`. */
export function transformWeight(
  weight: Tensor,
  u: Tensor,
  { out, outs, channel, channels }: KernelPart,
  planes: 9 | 16 = 16,
): void {
  const stride = weight.shape[1]!;
  const count = outs * channels;
  weight.backend.dispatch(WEIGHT, {
    bind: [weight, u],
    params: {
      count,
      width: channels,
      stride,
      first: out * stride + channel,
      planes,
    },
    constants: { HALF: Number(weight.type === "f16") },
    groups: elementGroups(count),
  });
}

/**
 * The convolution, or with `flip` its transpose, which is one with the flipped kernel.
 *
 * @param x `[batch, from, height, width]`, or where it is normalised the first of its channels.
 * @param weight `[16, out, in]`, or `[out, in, 3, 3]`, which is transformed piece by piece.
 * @param channels From how many to how many; with `flip` from `out` to `in`.
 * @returns `[batch, to, height, width]`; twice `height` and `width` where it is doubled.
 */
export function winograd(
  x: Tensor,
  weight: Tensor,
  [from, to]: readonly [number, number],
  flip: boolean,
  options: WinogradOptions,
): Tensor {
  const { norm, bias, shift, residual, doubled = false } = options;
  const { shiftStride = 0, shiftFirst = 0 } = options;
  const { backend } = x;
  const raw = weight.shape.length === 4;
  const { batch, height, width, rows, columns, all, fours, slice, chunk } =
    sizesOf(x, raw, [from, to], options);
  const [input, output] = fours ? [INPUT_FOURS, OUTPUT_FOURS] : [INPUT, OUTPUT];
  const planes = doubled ? 9 : 16;
  const work = planes * from * to * rows * columns; // of one batch element
  const y = backend.alloc([batch, to, height, width]);
  for (let channel = 0; channel < to; channel += slice) {
    const here = Math.min(slice, to - channel);
    // The transposed product reads U by columns.
    const lines = flip ? here : from;
    using u = raw
      ? backend.alloc([16, flip ? from : here, lines])
      : weight.retain();
    if (raw) {
      transformWeight(
        weight,
        u,
        flip
          ? { out: 0, outs: from, channel, channels: here }
          : { out: channel, outs: here, channel: 0, channels: from },
        planes,
      );
    }
    for (let first = 0; first < all; first += chunk) {
      // Products take fours; past the last tile it is repeated.
      const tiles = Math.ceil(Math.min(chunk, all - first) / 4) * 4;
      const size = {
        height,
        width,
        rows,
        columns,
        tiles,
        first,
        all,
        flip: Number(flip),
      };
      // Of 16 planes, too, if 9 are used: of buffers of one size the pool needs fewer.
      using v = backend.alloc([16, from, tiles]);
      if (norm) {
        backend.dispatch(NORM, {
          bind: [
            x,
            norm.sources[1] ?? x,
            norm.weight,
            norm.bias,
            norm.stats,
            v,
          ],
          params: { ...size, ...norm.params, channels: from },
          constants: norm.constants,
          groups: [norm.params.blocks, 1, 1],
        });
      } else {
        backend.dispatch(doubled ? DOUBLED : input, {
          bind: [x, v],
          params: { ...size, count: from * tiles / 4, channels: from },
          constants: doubled ? { FOURS: Number(columns % 4 === 0) } : {},
          groups: elementGroups(from * tiles / 4),
        });
      }
      using m = backend.alloc([16, here, tiles]);
      gemm(
        [here, tiles, from],
        { tensor: u, stride: lines, batchStride: from * here },
        { tensor: v, stride: tiles, batchStride: from * tiles },
        { tensor: m, stride: tiles, batchStride: here * tiles },
        {
          batch: planes,
          a: flip ? "column" : "row",
          work,
        },
      );
      backend.dispatch(output, {
        bind: [m, bias ?? m, shift ?? m, residual ?? m, y],
        params: {
          ...size,
          count: here * tiles / 4,
          channels: to,
          slice: here,
          firstChannel: channel,
          planes,
          shiftStride,
          shiftFirst,
          bias: Number(!!bias),
          shift: Number(!!shift),
        },
        constants: { RESIDUAL: Number(!!residual) },
        groups: elementGroups(here * tiles / 4),
      });
    }
  }
  return y;
}

/** Whether the convolution of an image can normalise it on the way: where tiles come in fours and in one piece. */
export function winogradTakesNorm(
  x: Tensor,
  weight: Tensor,
  channels: readonly [number, number],
  options: WinogradOptions,
): boolean {
  const { fours, slice, chunk, all } = sizesOf(
    x,
    weight.shape.length === 4,
    channels,
    options,
  );
  return x.backend.family === "software" && !options.doubled && fours &&
    slice === channels[1] && chunk === all;
}

/** Sizes of the result, its tiles, and how they are cut: output channels and tiles at once. */
function sizesOf(
  x: Tensor,
  raw: boolean,
  [from, to]: readonly [number, number],
  { doubled, workBytes = WORK_BYTES }: WinogradOptions,
) {
  const scale = doubled ? 2 : 1;
  const [batch = 0, , height = 0, width = 0] = x.shape.map((n, i) =>
    i < 2 ? n : scale * n
  );
  const rows = Math.ceil(height / 2), columns = Math.ceil(width / 2);
  const all = batch * rows * columns;
  const slice = raw ? atMost(workBytes / 2 / (64 * from), to) : to;
  return {
    batch,
    height,
    width,
    rows,
    columns,
    all,
    /** Whether whole tiles cover the image, four of them side by side. */
    fours: height % 2 === 0 && width % 8 === 0,
    slice,
    chunk: atMost(workBytes / (64 * (from + slice)), all),
  };
}

/** How many of `all` are done at once: a multiple of 4, so that matrix products may use vec4, or all. */
export function atMost(count: number, all: number): number {
  return Math.min(all, Math.max(4, Math.floor(count / 4) * 4));
}
