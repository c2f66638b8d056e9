/** Float64 definition of `transpose`. */
import type { Params } from "./backend.ts";

/** Bindings x, out; see `transpose.wgsl`. */
export function transposeRef(
  [x, out]: readonly Float64Array[],
  { batch = 0, rows = 1, columns = 1 }: Params,
): void {
  for (let z = 0; z < batch; z++) {
    const start = z * rows * columns;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        out![start + c * rows + r] = x![start + r * columns + c]!;
      }
    }
  }
}
