/**
 * Where a region should be, boxes or a mask, on a grid: what the energies read.
 *
 * @module
 */
import { maskBox, type PackedMask, rasterizeMask } from "./mask.ts";
import {
  type Box,
  cellRange,
  logPrior,
  type PriorOptions,
  rasterizeUnion,
  type RasterMode,
} from "./raster.ts";

/** Boxes, whose union counts, or a mask: one of the two. */
export interface Shape {
  /** Fractions of the image. */
  readonly boxes?: readonly Box[] | undefined;
  /** A picture of it. */
  readonly mask?: PackedMask | undefined;
}

/** The boxes, or the one around the mask. */
export function shapeBoxes({ boxes, mask }: Shape): readonly Box[] {
  return mask === undefined ? boxes ?? [] : [maskBox(mask)];
}

/**
 * A shape as a mask on a grid.
 *
 * @returns `[height * width]`, row-major, in `[0, 1]`.
 * @throws {RangeError} If there is neither box nor mask, or the grid is not valid.
 */
export function rasterizeShape(
  { boxes, mask }: Shape,
  width: number,
  height: number,
  mode: RasterMode = "nearest",
): Float64Array<ArrayBuffer> {
  return mask === undefined
    ? rasterizeUnion(boxes ?? [], width, height, mode)
    : rasterizeMask(mask, width, height, mode);
}

/**
 * A prior per box; for a mask the one of the box around it, kept to the mask's cells.
 *
 * @returns As from `logPrior`; boxes without a cell, which `trunc` and `half_even_512` can make, have none.
 */
export function shapePriors(
  shape: Shape,
  width: number,
  height: number,
  mode: RasterMode,
  options: PriorOptions,
): Float64Array<ArrayBuffer>[] {
  return shapeBoxes(shape).map((box) => {
    const own: Shape = shape.mask === undefined ? { boxes: [box] } : shape;
    const cells = rasterizeShape(own, width, height, mode);
    return logPrior(box, cells, width, height, options);
  }).filter((tau) => tau.some((v) => v > -Infinity));
}

/** Whether a shape has a cell on every one of some grids, each `[width, height]`. */
export function hasCells(
  shape: Shape,
  grids: readonly (readonly [width: number, height: number])[],
  mode: RasterMode,
): boolean {
  return grids.every(([w, h]) =>
    rasterizeShape(shape, w, h, mode).some((v) => v > 0)
  );
}

/**
 * Makes sure that a shape has cells on every map that guides, so that no region is left out unseen.
 *
 * @param name What an error calls the region.
 * @param grids `[width, height]` of the guided attention maps.
 * @returns What to tell about boxes that are smaller than a cell.
 * @throws {RangeError} If a box or the mask covers no cell of one of them.
 */
export function checkCells(
  { boxes = [], mask }: Shape,
  name: string,
  grids: readonly (readonly [width: number, height: number])[],
  mode: RasterMode,
): string[] {
  const notes: string[] = [];
  const sorted = grids.toSorted((a, b) => a[0] * a[1] - b[0] * b[1]);
  for (const [w, h] of sorted) {
    const cell = `${round(1 / w)} x ${round(1 / h)} of the picture`;
    if (
      mask !== undefined && !rasterizeMask(mask, w, h, mode).some((v) => v > 0)
    ) {
      const most = Math.max(...rasterizeMask(mask, w, h, "coverage"));
      throw new RangeError(
        `Cannot guide mask of ${name}: it must cover at least half of a cell of the ${w}x${h} attention map, which is ${cell}: current most is ${
          round(most)
        } of a cell`,
      );
    }
    boxes.forEach((box, i) => {
      const [c0, r0, c1, r1] = cellRange(box, w, h, mode);
      if (c0 < c1 && r0 < r1) return;
      throw new RangeError(
        `Cannot guide box ${i} [${box}] of ${name}: raster "${mode}" must leave it a cell of the ${w}x${h} attention map, as it does for sides of more than ${
          round(1 / w)
        } x ${round(1 / h)}, and raster "nearest" for any: current size is ${
          sizeOf(box)
        }`,
      );
    });
  }
  const [[w, h] = [0, 0]] = sorted; // the coarsest
  boxes.forEach((box, i) => {
    const [across, down] = [(box[2] - box[0]) * w, (box[3] - box[1]) * h];
    // Less than that is lost to rounding anyway, and not worth a word.
    if (mode !== "nearest" || Math.min(across, down) >= 0.5) return;
    notes.push(
      `${name}: box ${i}, ${
        sizeOf(box)
      }, is less than half a cell of the ${w}x${h} attention map (${
        round(1 / w)
      } x ${round(1 / h)} of the picture) ${
        Math.max(across, down) < 0.5 ? "" : across < down ? "across " : "down "
      }and counts as a whole one there; the thing may come out larger than its box`,
    );
  });
  return notes;
}

function sizeOf([x0, y0, x1, y1]: Box): string {
  return `${round(x1 - x0)} x ${round(y1 - y0)}`;
}

function round(v: number): number {
  return Number(v.toPrecision(3));
}
