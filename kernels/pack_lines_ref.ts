/** Float64 definition of `pack_lines`. */
import type { Params } from "./backend.ts";

/** Bindings x, y, out; see `pack_lines.wgsl`. */
export function packLinesRef(
  [x, y, out]: readonly Float64Array[],
  p: Params,
): void {
  const { count = 0, width = 1, cells = 1 } = p;
  const { xPitch = 1, xFirst = 0, yPitch = 1, yFirst = 0 } = p;
  const line = 4 * Math.ceil(cells / 4);
  for (let row = 0; row * line < 4 * count; row++) {
    const z = Math.floor(row / (2 * width));
    const d = row % width;
    const from = row % (2 * width) < width
      ? x!.subarray((z * xPitch + xFirst + d) * cells)
      : y!.subarray((z * yPitch + yFirst + d) * cells);
    for (let j = 0; j < line; j++) {
      out![row * line + j] = j < cells ? from[j]! : 0;
    }
  }
}
