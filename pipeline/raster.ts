/**
 * Boxes -> cells, masks and priors on a grid.
 *
 * Boxes are fractions of the image, origin top left. Grids are row-major: cell `(x, y)` is
 * `y * width + x`, its centre `((x + 0.5) / width, (y + 0.5) / height)`.
 *
 * @module
 */

/** `[x0, y0, x1, y1]` in fractions of the image, `x0 < x1` and `y0 < y1`. */
export type Box = readonly [x0: number, y0: number, x1: number, y1: number];

/** How an edge becomes a cell; see {@linkcode cellRange}. */
export type RasterMode = "nearest" | "trunc" | "half_even_512" | "coverage";

/** Choices of {@linkcode logPrior}. */
export interface PriorOptions {
  /** How peaked, 0 or more; its unit follows `units`. */
  readonly lambda: number;
  /** Unit of the distance: the image (default), grid cells, or pixels. */
  readonly units?: "unit" | "cells" | "pixels";
  /** `dx^2/W + dy^2/H` (default), or `(dx/W)^2 + (dy/H)^2`, which no unit changes. */
  readonly distance?: "paper" | "scale_invariant";
  /** Image width in pixels, for `units: "pixels"`. */
  readonly imageWidth?: number;
  /** Image height in pixels, for `units: "pixels"`. */
  readonly imageHeight?: number;
}

const MAX_GRID = 2 ** 24; // cells
const MIN_LOG = -80; // exp(-80) is still a normal float32

/**
 * The cells `[x0, x1) x [y0, y1)` of a box.
 *
 * | mode | edge `v` on a grid of `n` | empty |
 * | --- | --- | --- |
 * | `nearest` (rule R1) | `floor(v n + 0.5)`, at least one cell | never |
 * | `trunc` (Layout-Control, R&B, AttRe) | `floor(v n)` | possible |
 * | `half_even_512` (BoxDiff, CSG) | pixels of 512, rounded half to even | possible |
 * | `coverage` | every cell the box touches | never |
 *
 * @param box Fractions; what is outside the image is cut off first.
 * @param width Grid width in cells.
 * @param height Grid height in cells.
 * @param mode See the table.
 * @returns Whole numbers `[x0, y0, x1, y1]`; `x0 >= x1` or `y0 >= y1` means no cell.
 * @throws {RangeError} If the box or the grid is not valid.
 */
export function cellRange(
  box: Box,
  width: number,
  height: number,
  mode: RasterMode = "nearest",
): Box {
  checkGrid(width, height);
  const [x0, y0, x1, y1] = clampBox(box);
  const [c0, c1] = edges(x0, x1, width, mode);
  const [r0, r1] = edges(y0, y1, height, mode);
  return [c0, r0, c1, r1];
}

/**
 * A box as a mask: 1 in its cells, 0 outside; with `coverage` the covered share of each cell.
 *
 * `trunc` and `half_even_512` may give an empty mask for a thin box, as the codes they copy do:
 * this is returned as it is, and the energy must treat it (E = 1, no gradient).
 *
 * @param box Fractions; what is outside the image is cut off first.
 * @param width Grid width in cells.
 * @param height Grid height in cells.
 * @param mode See {@linkcode cellRange}.
 * @returns `[height * width]`, row-major, in `[0, 1]`.
 * @throws {RangeError} If the box or the grid is not valid.
 */
export function rasterize(
  box: Box,
  width: number,
  height: number,
  mode: RasterMode = "nearest",
): Float64Array<ArrayBuffer> {
  const [c0, r0, c1, r1] = cellRange(box, width, height, mode);
  const [x0, y0, x1, y1] = clampBox(box);
  const mask = new Float64Array(width * height);
  for (let y = r0; y < r1; y++) {
    const tall = mode === "coverage" ? overlap(y0, y1, y, height) : 1;
    for (let x = c0; x < c1; x++) {
      mask[y * width + x] = mode === "coverage"
        ? tall * overlap(x0, x1, x, width)
        : 1;
    }
  }
  return mask;
}

/**
 * Several boxes as one mask: the largest value of each cell.
 *
 * With `coverage` this is a lower bound where boxes share a cell without overlapping.
 *
 * @param boxes At least one box.
 * @param width Grid width in cells.
 * @param height Grid height in cells.
 * @param mode See {@linkcode cellRange}.
 * @returns `[height * width]`, row-major, in `[0, 1]`.
 * @throws {RangeError} If there is no box, or a box or the grid is not valid.
 */
export function rasterizeUnion(
  boxes: readonly Box[],
  width: number,
  height: number,
  mode: RasterMode = "nearest",
): Float64Array<ArrayBuffer> {
  if (boxes.length === 0) {
    throw new RangeError("Cannot rasterize: there must be a box: current 0");
  }
  const masks = boxes.map((box) => rasterize(box, width, height, mode));
  return masks.reduce((all, mask) =>
    all.map((v, i) => Math.max(v, mask[i] as number))
  );
}

/**
 * Non-local attention prior of a box, as logarithms.
 *
 * `log tau_u = -lambda d_u - logsumexp_S(-lambda d)`, `d_u = (ux - cx)^2 / W + (uy - cy)^2 / H`,
 * over the cells S of the mask. Centre and size are those of the box itself cut to the image,
 * not of its cells. On an `n x n` grid `lambda` in `unit` is `n` times `lambda` in `cells`;
 * pixels are the unit square times the image size. 4 in `unit` and 2 for `scale_invariant` are
 * the recommended values.
 *
 * @param box Fractions.
 * @param mask `[height * width]` of {@linkcode rasterize}; S is where it is above 0.
 * @param width Grid width in cells.
 * @param height Grid height in cells.
 * @param options Strength and unit.
 * @returns `[height * width]`: at least -80 on S, `-Infinity` elsewhere (everywhere if S is
 * empty). Its exponentials sum to 1 unless the bound of -80 acts.
 * @throws {RangeError} If the box, grid, mask length, lambda or image size is not valid.
 * @see WinWinLay, arXiv:2506.15563, eq. 12, tau.
 */
export function logPrior(
  box: Box,
  mask: ArrayLike<number>,
  width: number,
  height: number,
  options: PriorOptions,
): Float64Array<ArrayBuffer> {
  checkGrid(width, height);
  const { lambda, units = "unit", distance = "paper" } = options;
  if (mask.length !== width * height) {
    throw new RangeError(
      `Cannot make the prior: the mask must have ${
        width * height
      } cells: current ${mask.length}`,
    );
  }
  if (!(lambda >= 0 && lambda < Infinity)) {
    throw new RangeError(
      `Cannot make the prior: lambda must be 0 or more: current ${lambda}`,
    );
  }
  const [x0, y0, x1, y1] = clampBox(box);
  const [unitX, unitY] = unitSize(units, width, height, options);
  const [w, h] = [x1 - x0, y1 - y0];
  // A squared length over a length: one factor of the unit stays. The other distance has none.
  const weightX = distance === "paper" ? unitX / w : 1 / w ** 2;
  const weightY = distance === "paper" ? unitY / h : 1 / h ** 2;
  const out = new Float64Array(mask.length).fill(-Infinity);
  let max = -Infinity;
  for (let u = 0; u < out.length; u++) {
    if (!((mask[u] as number) > 0)) continue;
    const dx = (u % width + 0.5) / width - (x0 + x1) / 2;
    const dy = (Math.floor(u / width) + 0.5) / height - (y0 + y1) / 2;
    out[u] = -lambda * (dx ** 2 * weightX + dy ** 2 * weightY);
    max = Math.max(max, out[u] as number);
  }
  if (max === -Infinity) return out;
  const total = max +
    Math.log(out.reduce((sum, v) => sum + Math.exp(v - max), 0));
  return out.map((v) => v === -Infinity ? v : Math.max(v - total, MIN_LOG));
}

function unitSize(
  units: "unit" | "cells" | "pixels",
  width: number,
  height: number,
  { imageWidth, imageHeight }: PriorOptions,
): [number, number] {
  if (units === "unit") return [1, 1];
  if (units === "cells") return [width, height];
  if (
    !(imageWidth !== undefined && imageWidth > 0) ||
    !(imageHeight !== undefined && imageHeight > 0)
  ) {
    throw new RangeError(
      `Cannot make the prior: units "pixels" must come with imageWidth and imageHeight: current ${imageWidth} x ${imageHeight}`,
    );
  }
  return [imageWidth, imageHeight];
}

function edges(
  v0: number,
  v1: number,
  n: number,
  mode: RasterMode,
): [number, number] {
  if (mode === "trunc") return [Math.floor(v0 * n), Math.floor(v1 * n)];
  if (mode === "half_even_512") {
    return [halfEven(v0 * 512 / (512 / n)), halfEven(v1 * 512 / (512 / n))];
  }
  if (mode === "coverage") {
    return [
      Math.min(Math.floor(v0 * n), n - 1),
      Math.max(Math.ceil(v1 * n), 1),
    ];
  }
  const c0 = Math.min(Math.floor(v0 * n + 0.5), n - 1);
  return [c0, Math.max(c0 + 1, Math.min(Math.floor(v1 * n + 0.5), n))];
}

/** Python's `round`: halves to the even one. */
export function halfEven(v: number): number {
  const low = Math.floor(v);
  if (v - low !== 0.5) return Math.round(v);
  return low % 2 === 0 ? low : low + 1;
}

/** Share of cell `[i, i + 1) / n` that `[v0, v1)` covers. */
function overlap(v0: number, v1: number, i: number, n: number): number {
  return Math.max(0, Math.min(v1 * n, i + 1) - Math.max(v0 * n, i));
}

/**
 * Refuses grids without a cell, and those that are too large.
 *
 * @throws {RangeError} Naming the grid.
 */
export function checkGrid(width: number, height: number): void {
  const fits = Number.isInteger(width) && Number.isInteger(height) &&
    width > 0 && height > 0 &&
    width * height <= MAX_GRID;
  if (!fits) {
    throw new RangeError(
      `Cannot use grid ${width}x${height}: both sides must be whole numbers above 0, at most 2^24 cells: current ${
        width * height
      }`,
    );
  }
}

/**
 * A valid box cut to the image.
 *
 * @param box Any four numbers.
 * @param name How an error calls it.
 * @returns The part inside `[0, 1]` both ways.
 * @throws {RangeError} If a number is not finite, the sides are not in order, or nothing is inside.
 */
export function clampBox(box: Box, name = `box [${box}]`): Box {
  const problem = boxProblem(box);
  if (problem) {
    throw new RangeError(`Cannot use ${name}: ${problem}: current [${box}]`);
  }
  return box.map((v) => Math.min(Math.max(v, 0), 1)) as unknown as Box;
}

function boxProblem([x0, y0, x1, y1]: Box): string | undefined {
  if (![x0, y0, x1, y1].every(Number.isFinite)) {
    return "coordinates must be finite";
  }
  if (!(x0 < x1)) return "x0 must be below x1";
  if (!(y0 < y1)) return "y0 must be below y1";
  if (x0 >= 1 || y0 >= 1 || x1 <= 0 || y1 <= 0) {
    return "it must overlap the image, which is 0 to 1 both ways";
  }
  return undefined;
}
