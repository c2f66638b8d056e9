/** Copies in 16 bits, for products by matrix units. */
import scaleWgsl from "./half_scale.wgsl" with { type: "text" };
import wgsl from "./halve.wgsl" with { type: "text" };
import tapsWgsl from "./halve_taps.wgsl" with { type: "text" };
import turnedWgsl from "./turned_weight.wgsl" with { type: "text" };
import { foldGroups, type Kernel, type Tensor, WORKGROUP } from "./backend.ts";
import type { Matrix } from "./gemm.ts";
import { halveRef, halveTapsRef, turnedWeightRef } from "./halve_ref.ts";

const LINES: Kernel = {
  name: "halve",
  wgsl: scaleWgsl + wgsl,
  bindings: "rrw",
  params: ["octets", "wide", "N", "K", "ldx", "sx", "first", "across"],
  ref: halveRef,
};
const TAPS: Kernel = {
  name: "halve_taps",
  wgsl: scaleWgsl + tapsWgsl,
  bindings: "rrw",
  params: ["octets", "planes", "height", "width", "wide", "across"],
  ref: halveTapsRef,
};
const TURNED: Kernel = {
  name: "turned_weight",
  wgsl: turnedWgsl,
  bindings: "rw",
  params: ["outs", "channels"],
  ref: turnedWeightRef,
};

/** Side of the square of channels that a workgroup turns, as in the kernel. */
const SQUARE = 16;

/** How long lines of so many numbers are that are read in eights. */
export function inEights(count: number): number {
  return 8 * Math.ceil(count / 8);
}

/** Workgroups for a thread per eight numbers, and how many threads lie along x. */
function eights(octets: number) {
  const groups = foldGroups(Math.ceil(octets / WORKGROUP));
  return { groups, across: groups[0] * WORKGROUP };
}

/**
 * Matrices in 16 bits.
 *
 * @param matrices Where they lie.
 * @param size Number of matrices, rows and columns.
 * @param peaks From `largest`: they are multiplied by a power of two that brings these to 64 to 128.
 * @returns `[batch, K, N8]`: lines of multiples of 8, ended by zeros. What is beyond 65504 becomes that.
 */
export function halve(
  { tensor, stride, batchStride = 0, offset = 0 }: Matrix,
  [batch, K, N]: readonly [number, number, number],
  peaks?: Tensor,
): Tensor {
  const wide = inEights(N);
  const y = tensor.backend.alloc([batch, K, wide], "f16");
  const octets = y.size / 8;
  const { groups, across } = eights(octets);
  tensor.backend.dispatch(LINES, {
    bind: [tensor, peaks ?? tensor, y],
    params: {
      octets,
      wide,
      N,
      K,
      ldx: stride,
      sx: batchStride,
      first: offset,
      across,
    },
    constants: { SCALED: Number(peaks !== undefined) },
    groups,
  });
  return y;
}

/**
 * What a 3x3 convolution of stride 1 and padding 1 reads, in 16 bits: a copy for each column of its kernel, with
 * rows of zeros above and below, so that each tap is a matrix whose lines begin at multiples of 8.
 *
 * @param x `[batch, channels, height, width]`.
 * @param doubled Of x doubled by nearest neighbours.
 * @param peaks See `halve`.
 * @returns `[3, batch channels, height + 2, wide]` with the height of the double and its width in eights.
 */
export function halveTaps(
  x: Tensor,
  doubled: boolean,
  peaks?: Tensor,
): Tensor {
  const [batch = 0, channels = 0, h = 0, w = 0] = x.shape;
  const [height, width] = doubled ? [2 * h, 2 * w] : [h, w];
  const planes = batch * channels;
  const wide = inEights(width);
  const y = x.backend.alloc([3, planes, height + 2, wide], "f16");
  const octets = y.size / 8;
  const { groups, across } = eights(octets);
  x.backend.dispatch(TAPS, {
    bind: [x, peaks ?? x, y],
    params: { octets, planes, height, width, wide, across },
    constants: {
      SCALED: Number(peaks !== undefined),
      DOUBLED: Number(doubled),
    },
    groups,
  });
  return y;
}

/**
 * The weight of the 3x3 convolution that is another one's gradient.
 *
 * @param weight `[out, in, 3, 3]`, f32 or f16; `out` is even.
 * @returns `[in, out, 3, 3]` in 16 bits.
 */
export function turnedWeight(weight: Tensor): Tensor {
  const [outs = 0, channels = 0] = weight.shape;
  const y = weight.backend.alloc([channels, outs, 3, 3], "f16");
  weight.backend.dispatch(TURNED, {
    bind: [weight, y],
    params: { outs, channels },
    constants: { HALF: Number(weight.type === "f16") },
    groups: [Math.ceil(channels / SQUARE), Math.ceil(outs / SQUARE), 1],
  });
  return y;
}
