/** Float64 definitions of `im2col` and its transpose. */
import type { Params } from "./backend.ts";

/** Calls `visit(column index, pixel index or -1)` for every number of the columns. */
function walk(
  planes: number,
  p: Params,
  visit: (column: number, pixel: number) => void,
): void {
  const {
    height = 1,
    width = 1,
    outHeight = 1,
    outWidth = 1,
    kernel = 1,
    stride = 1,
    top = 0,
    left = 0,
  } = p;
  let column = 0;
  for (let plane = 0; plane < planes; plane++) {
    for (let ky = 0; ky < kernel; ky++) {
      for (let kx = 0; kx < kernel; kx++) {
        for (let oy = 0; oy < outHeight; oy++) {
          for (let ox = 0; ox < outWidth; ox++) {
            const y = oy * stride + ky - top, x = ox * stride + kx - left;
            const inside = y >= 0 && y < height && x >= 0 && x < width;
            visit(column++, inside ? (plane * height + y) * width + x : -1);
          }
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
  walk(
    p.planes!,
    p,
    (column, pixel) => columns![column] = pixel < 0 ? 0 : x![pixel]!,
  );
}

/** Bindings columns, x. */
export function col2imRef(
  [columns, x]: readonly Float64Array[],
  p: Params,
): void {
  x!.fill(0, 0, p.count);
  walk(p.planes!, p, (column, pixel) => {
    if (pixel >= 0) x![pixel] = x![pixel]! + columns![column]!;
  });
}
