/** Float64 definition of `transpose`. */
import type { Params } from "./backend.ts";

/** Bindings x, out; see `transpose.wgsl`. */
export function transposeRef(
  [x, out]: readonly Float64Array[],
  { batch = 0, rows = 1, columns = 1, sx = 0, so = 0, ox = 0, oo = 0 }: Params,
): void {
  for (let z = 0; z < batch; z++) {
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        out![oo + z * so + c * rows + r] = x![ox + z * sx + r * columns + c]!;
      }
    }
  }
}
