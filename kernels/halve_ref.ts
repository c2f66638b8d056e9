/** Float64 definitions of the copies in 16 bits: their numbers are rounded as the device rounds them. */
import type { Params } from "./backend.ts";
import { halfToNumber, numberToHalf } from "./half.ts";

/** The nearest number of 16 bits. */
export function rounded(x: number): number {
  return halfToNumber(numberToHalf(Math.min(65504, Math.max(-65504, x))));
}

/** See half_scale.wgsl. */
export function halfScale(peaks: Float64Array): number {
  const most = Math.fround(
    peaks.subarray(0, 64).reduce((a, b) => Math.max(a, b)),
  );
  const exponent = Math.floor(Math.log2(most));
  return most >= 2 ** -126 && most < Infinity
    ? 2 ** Math.min(126, 6 - exponent)
    : 1;
}

/** Bindings x, peaks, y. */
export function halveRef(
  [x, peaks, y]: readonly Float64Array[],
  p: Params,
  { SCALED }: Params,
): void {
  const { octets = 0, wide = 1, N = 0, K = 1, ldx = 0, sx = 0, first = 0 } = p;
  const scale = SCALED ? halfScale(peaks!) : 1;
  for (let i = 0; i < 8 * octets; i++) {
    const line = Math.floor(i / wide), n = i % wide;
    const at = first + Math.floor(line / K) * sx + line % K * ldx + n;
    y![i] = n < N ? rounded(scale * x![at]!) : 0;
  }
}

/** Bindings x, peaks, y. */
export function halveTapsRef(
  [x, peaks, y]: readonly Float64Array[],
  p: Params,
  { SCALED, DOUBLED }: Params,
): void {
  const { planes = 0, height = 0, width = 0, wide = 0 } = p;
  const scale = SCALED ? halfScale(peaks!) : 1;
  const by = DOUBLED ? 2 : 1;
  let i = 0;
  for (let kx = 0; kx < 3; kx++) {
    for (let c = 0; c < planes; c++) {
      for (let row = -1; row <= height; row++) {
        for (let n = 0; n < wide; n++) {
          const column = n + kx - 1;
          const inside = row >= 0 && row < height && column >= 0 &&
            column < width;
          const line = c * (height / by) + Math.floor(row / by);
          const at = line * (width / by) + Math.floor(column / by);
          y![i++] = inside ? rounded(scale * x![at]!) : 0;
        }
      }
    }
  }
}

/** Bindings w, y. */
export function turnedWeightRef(
  [w, y]: readonly Float64Array[],
  { outs = 0, channels = 0 }: Params,
): void {
  for (let c = 0; c < channels; c++) {
    for (let o = 0; o < outs; o++) {
      for (let tap = 0; tap < 9; tap++) {
        y![(c * outs + o) * 9 + tap] = rounded(
          w![(o * channels + c) * 9 + 8 - tap]!,
        );
      }
    }
  }
}
