/** Float64 definition of `conv_tiled`: the sums as they are written. */
import type { Params } from "./backend.ts";

/** Bindings w, x, bias, shift, residual, y; see `conv_tiled.wgsl`. */
export function convTiledRef(
  bind: readonly Float64Array[],
  p: Params,
  flags: Params,
): void {
  const [w, x, bias, shift, residual, y] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { M = 1, N = 1, channels = 1, height = 1, width = 1 } = p;
  const { toWidth = 1, toCells = 1, top = 0, left = 0 } = p;
  const { shiftStride = 0, shiftFirst = 0 } = p;
  const { SIDE = 1, STRIDE = 1, GRAD = 0, DOUBLED = 0 } = flags;
  /** Where a tap reads along one axis; -1 outside. */
  const source = (to: number, tap: number, before: number, size: number) => {
    let at = GRAD ? (to + before - tap) / STRIDE : to * STRIDE + tap - before;
    if (DOUBLED) at = Math.floor(at / 2);
    return Number.isInteger(at) && at >= 0 && at < size ? at : -1;
  };
  for (let n = 0; n < N; n++) {
    const b = Math.floor(n / toCells);
    const row = Math.floor(n % toCells / toWidth);
    const column = n % toCells % toWidth;
    for (let m = 0; m < M; m++) {
      let sum = 0;
      for (let ky = 0; ky < SIDE; ky++) {
        const i = source(row, ky, top, height);
        for (let kx = 0; kx < SIDE; kx++) {
          const j = source(column, kx, left, width);
          if (i < 0 || j < 0) continue;
          for (let c = 0; c < channels; c++) {
            const pair = GRAD ? c * M + m : m * channels + c;
            sum += w[(pair * SIDE + ky) * SIDE + kx]! *
              x[((b * channels + c) * height + i) * width + j]!;
          }
        }
      }
      const at = (b * M + m) * toCells + n % toCells;
      if (flags.BIAS) sum += bias[m]!;
      if (flags.SHIFT) sum += shift[shiftFirst + b * shiftStride + m]!;
      if (flags.RESIDUAL) sum += residual[at]!;
      y[at] = sum;
    }
  }
}
