/** Boxes as lists of cells. */
import { type Box, cellRange, type RasterMode } from "../../raster.ts";
import type { Grid } from "./mapped.ts";

/**
 * The cells `[x0, x1) x [y0, y1)` of a box. One that has none in the given mode, where the codes divide
 * by zero, has those of `nearest`.
 */
export function boxRange(
  box: Box,
  [height, width]: Grid,
  raster: RasterMode,
): Box {
  const range = cellRange(box, width, height, raster);
  const [x0, y0, x1, y1] = range;
  return x0 < x1 && y0 < y1 ? range : cellRange(box, width, height, "nearest");
}

/** Whether each cell lies in one of the boxes. */
export function inBoxes(
  boxes: readonly Box[],
  grid: Grid,
  raster: RasterMode,
): boolean[] {
  const [height, width] = grid;
  const inside = Array<boolean>(height * width).fill(false);
  for (const box of boxes) {
    const [x0, y0, x1, y1] = boxRange(box, grid, raster);
    for (let y = y0; y < y1; y++) {
      inside.fill(true, y * width + x0, y * width + x1);
    }
  }
  return inside;
}

/** Positions of the cells for which a mask is as wanted. */
export function cellsWhere(mask: readonly boolean[], wanted = true): number[] {
  return mask.flatMap((inside, u) => inside === wanted ? [u] : []);
}
