/** Float64 definitions of the Winograd transforms, as the matrices say. */
import type { Params } from "./backend.ts";
import { groupNormWholeRef } from "./group_norm_ref.ts";

// Row-major.
const G = Float64Array.of(1, 0, 0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0, 0, 1);
// deno-fmt-ignore
const B_TRANSPOSED = Float64Array.of(1, 0, -1, 0,  0, 1, 1, 0,  0, -1, 1, 0,  0, 1, 0, -1);
const A_TRANSPOSED = Float64Array.of(1, 1, 1, 0, 0, 1, -1, -1);
const FLIPPED = [3, 1, 2, 0];
/** Planes of the numbers of a 4x4 matrix; see `plane` in WGSL. */
const PLANES = [0, 1, 9, 2, 3, 4, 10, 5, 12, 13, 15, 14, 6, 7, 11, 8];
/** How many hold what is not 0 for an image that was doubled. */
const DOUBLED = 9;

/** The plane of number z; `flip` says of which transform. */
function planeOf(z: number, flip: number | undefined): number {
  return PLANES[flip ? FLIPPED[z >> 2]! * 4 + FLIPPED[z & 3]! : z]!;
}

const half = new Float64Array(16);

/** `left d left^T`; `left` has 2 or 4 rows, d is `size x size`. */
function sandwich(
  left: Float64Array,
  d: Float64Array,
  size: number,
  out: Float64Array,
): void {
  const rows = left.length / size | 0;
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < size; j++) {
      let sum = 0;
      for (let i = 0; i < size; i++) {
        sum += left[r * size + i]! * d[i * size + j]!;
      }
      half[r * size + j] = sum;
    }
  }
  for (let r = 0; r < rows; r++) {
    for (let s = 0; s < rows; s++) {
      let sum = 0;
      for (let j = 0; j < size; j++) {
        sum += half[r * size + j]! * left[s * size + j]!;
      }
      out[r * rows + s] = sum;
    }
  }
}

/** `U = G w G^T`; bindings weight, u. */
export function winogradWeightRef(
  [weight, u]: readonly Float64Array[],
  { count = 0, width = 1, stride = 1, first = 0, planes = 16 }: Params,
): void {
  const out = new Float64Array(16);
  for (let i = 0; i < count; i++) {
    const at = 9 * (first + Math.floor(i / width) * stride + i % width);
    sandwich(G, weight!.subarray(at, at + 9), 3, out);
    for (let z = 0; z < 16; z++) {
      if (PLANES[z]! < planes) u![PLANES[z]! * count + i] = out[z]!;
    }
  }
}

/** `V = B^T d B`; bindings x, v; `count` fours of tiles. */
export function winogradInputRef(
  [x, v]: readonly Float64Array[],
  p: Params,
): void {
  input(x!, v!, p, [p.height!, p.width!], 1);
}

/** The same of the normalised image; bindings x, weight, bias, stats, v. */
export function winogradNormRef(
  bind: readonly Float64Array[],
  p: Params,
  constants: Params,
): void {
  const [x, beside, weight, bias, stats, v] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const normed = new Float64Array(p.blocks! * p.count!);
  groupNormWholeRef(
    [x, beside, weight, bias, x, stats, normed],
    p,
    constants,
  );
  const { channels = 1, tiles = 1 } = p;
  winogradInputRef([normed, v], { ...p, count: channels * tiles / 4 });
}

/** The same of the doubled image, planes that are not 0. */
export function winogradDoubledRef(
  [x, v]: readonly Float64Array[],
  p: Params,
): void {
  input(x!, v!, p, [p.rows!, p.columns!], 2);
}

/** The transform of an image whose cells are `scale` large. */
function input(
  x: Float64Array,
  v: Float64Array,
  p: Params,
  [height, width]: readonly [number, number],
  scale: number,
): void {
  const { count = 0, channels = 1, rows = 1, columns = 1 } = p;
  const { tiles = 1, first = 0, all = 1, flip } = p;
  const planes = scale === 2 ? DOUBLED : 16;
  const patch = new Float64Array(16);
  const out = new Float64Array(16);
  const plane = channels * tiles | 0;
  for (let i = 0; i < 4 * count; i++) {
    const c = Math.floor(i / tiles);
    const t = Math.min(first + i % tiles, all - 1);
    const base = (Math.floor(t / (rows * columns)) * channels + c) * height *
      width;
    const y0 = Math.floor(t % (rows * columns) / columns) * 2 - 1;
    const x0 = t % columns * 2 - 1;
    for (let dy = 0; dy < 4; dy++) {
      const y = Math.floor((y0 + dy) / scale);
      for (let dx = 0; dx < 4; dx++) {
        const k = Math.floor((x0 + dx) / scale);
        const inside = y >= 0 && y < height && k >= 0 && k < width;
        patch[dy * 4 + dx] = inside ? x[base + y * width + k]! : 0;
      }
    }
    sandwich(B_TRANSPOSED, patch, 4, out);
    for (let z = 0; z < 16; z++) {
      const at = planeOf(z, flip);
      if (at < planes) v[at * plane + i] = out[z]!;
    }
  }
}

/** `A^T m A + bias + shift + residual`; bindings m, bias, shift, residual, out; `count` fours of tiles. */
export function winogradOutputRef(
  bind: readonly Float64Array[],
  p: Params,
  { RESIDUAL = 0 }: Params,
): void {
  const [m, bias, shift, residual, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const {
    count = 0,
    channels = 1,
    height = 1,
    width = 1,
    rows = 1,
    columns = 1,
    tiles = 1,
    first = 0,
    all = 1,
    slice = 1,
    firstChannel = 0,
    planes = 16,
    shiftStride = 0,
    shiftFirst = 0,
  } = p;
  const values = new Float64Array(16);
  const square = new Float64Array(4);
  const plane = slice * tiles | 0;
  for (let i = 0; i < 4 * count; i++) {
    const o = firstChannel + Math.floor(i / tiles);
    const t = first + i % tiles;
    if (t >= all) continue;
    const b = Math.floor(t / (rows * columns));
    for (let z = 0; z < 16; z++) {
      const at = planeOf(z, p.flip);
      values[z] = at < planes ? m[at * plane + i]! : 0;
    }
    sandwich(A_TRANSPOSED, values, 4, square);
    const add = (p.bias ? bias[o]! : 0) +
      (p.shift ? shift[shiftFirst + b * shiftStride + o]! : 0);
    const y0 = Math.floor(t % (rows * columns) / columns) * 2;
    const x0 = t % columns * 2;
    for (let s = 0; s < 4; s++) {
      const y = y0 + (s >> 1), x = x0 + (s & 1);
      if (y >= height || x >= width) continue;
      const at = ((b * channels + o) * height + y) * width + x;
      out[at] = square[s]! + add + (RESIDUAL ? residual[at]! : 0);
    }
  }
}
