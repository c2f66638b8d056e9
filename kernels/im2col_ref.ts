/** Float64 definitions of `im2col` and its transpose. */
import type { Params } from "./backend.ts";

/** Calls `visit(column index, pixel index or -1)` for the columns of some planes and output cells. */
function walk(
  p: Params,
  [from, to]: readonly [number, number],
  visit: (column: number, pixel: number) => void,
): void {
  const {
    height = 1,
    width = 1,
    outWidth = 1,
    kernel = 1,
    stride = 1,
    top = 0,
    left = 0,
    plane = 0,
    planes = 1,
  } = p;
  let column = 0;
  for (let i = plane; i < plane + planes; i++) {
    for (let ky = 0; ky < kernel; ky++) {
      for (let kx = 0; kx < kernel; kx++) {
        for (let cell = from; cell < to; cell++) {
          const y = Math.floor(cell / outWidth) * stride + ky - top;
          const x = cell % outWidth * stride + kx - left;
          const inside = y >= 0 && y < height && x >= 0 && x < width;
          visit(column++, inside ? (i * height + y) * width + x : -1);
        }
      }
    }
  }
}

/** Bindings x, columns. */
export function im2colRef(
  [x, columns]: readonly Float64Array[],
  p: Params,
): void {
  const { first = 0, cells = 1 } = p;
  walk(
    p,
    [first, first + cells],
    (column, pixel) => columns![column] = pixel < 0 ? 0 : x![pixel]!,
  );
}

/** Bindings columns, x. */
export function col2imRef(
  [columns, x]: readonly Float64Array[],
  p: Params,
): void {
  const { plane = 0, planes = 1, height = 1, width = 1 } = p;
  const { outHeight = 1, outWidth = 1 } = p;
  x!.fill(0, plane * height * width, (plane + planes) * height * width);
  walk(p, [0, outHeight * outWidth], (column, pixel) => {
    if (pixel >= 0) x![pixel] = x![pixel]! + columns![column]!;
  });
}
