/**
 * A picture of where a region should be: grey levels -> runs that a request can carry -> shares of cells.
 *
 * @module
 */
import { type Box, checkGrid, type RasterMode } from "./raster.ts";

/** White where a region should be, black elsewhere; as large as the picture, or the same proportions. */
export interface Mask {
  /** In mask pixels. */
  readonly width: number;
  /** In mask pixels. */
  readonly height: number;
  /**
   * `[height * width]` grey levels, row-major, 0 to 255: inside from 128. Or the same as text, which is
   * how a request keeps it: lengths of the runs outside, inside, outside, ..., such as `"5 3 8"`.
   */
  readonly data: ArrayLike<number> | string;
}

/** A checked mask. */
export interface PackedMask extends Mask {
  /** Runs. */
  readonly data: string;
}

const INSIDE = 128; // half of 255, rounded up
const MOST_PIXELS = 2 ** 24; // 4096 x 4096, the largest picture
const MOST_RUNS = 2 ** 20; // a few MB in the PNG
const LEAST = 2 ** -24; // shares are rounded to it: edges between cells give no slivers

/**
 * Checks a mask and packs it.
 *
 * @param name What an error calls it, such as `region 0 "red car"`.
 * @param image `[width, height]` of the picture, whose proportions it must have to within a pixel.
 * @throws {TypeError} If something has the wrong type.
 * @throws {RangeError} If the size or the number of values is wrong, or nothing is inside.
 */
export function checkMask(
  value: unknown,
  name: string,
  image?: readonly [width: number, height: number],
): PackedMask {
  const fail = (Kind: typeof TypeError, why: string, current: unknown): Error =>
    new Kind(`Cannot use mask of ${name}: ${why}: current ${current}`);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw fail(
      TypeError,
      "it must be {width, height, data}",
      typeof value === "string" ? JSON.stringify(value) : typeof value,
    );
  }
  const unknown = Object.keys(value).find((key) =>
    !["width", "height", "data"].includes(key)
  );
  if (unknown !== undefined) {
    throw fail(TypeError, "keys must be width, height, data", `"${unknown}"`);
  }
  const { width, height, data } = value as Record<string, unknown>;
  const whole = (v: unknown): v is number =>
    Number.isInteger(v) && Number(v) > 0;
  if (!whole(width) || !whole(height) || width * height > MOST_PIXELS) {
    throw fail(
      RangeError,
      "both sides must be whole numbers above 0, at most 2^24 pixels",
      `${width}x${height}`,
    );
  }
  if (image !== undefined) {
    const [w, h] = image;
    if (
      height !== Math.round(width * h / w) &&
      width !== Math.round(height * w / h)
    ) {
      throw fail(
        RangeError,
        `it must have the proportions of the picture, ${w}x${h}`,
        `${width}x${height}`,
      );
    }
  }
  const count = width * height;
  let inside: Uint8Array;
  let brightest = 0;
  if (typeof data === "string") inside = readRuns(data, count, fail);
  else {
    const list = data as ArrayLike<unknown>;
    if (!Array.isArray(data) && !ArrayBuffer.isView(data)) {
      throw fail(TypeError, "data must be grey levels or runs", typeof data);
    }
    if (list.length !== count) {
      throw fail(RangeError, `data must have ${count} values`, list.length);
    }
    inside = new Uint8Array(count);
    for (let i = 0; i < count; i++) {
      const level = list[i];
      if (!(typeof level === "number" && level >= 0 && level <= 255)) {
        throw fail(RangeError, "grey levels must be 0 to 255", level);
      }
      inside[i] = Number(level >= INSIDE);
      brightest = Math.max(brightest, level);
    }
  }
  if (!inside.includes(1)) {
    throw fail(
      RangeError,
      `some of it must be white, which is ${INSIDE} to 255`,
      typeof data === "string" ? "none is" : `brightest is ${brightest}`,
    );
  }
  const runs = writeRuns(inside);
  if (runs.length > MOST_RUNS) {
    throw fail(
      RangeError,
      `it must have at most ${MOST_RUNS} runs of black or white, so that a PNG can carry it`,
      runs.length,
    );
  }
  return { width, height, data: runs.join(" ") };
}

/**
 * The pixels of a mask.
 *
 * @returns `[height * width]`: 1 inside, 0 outside.
 */
export function maskPixels(
  { width, height, data }: PackedMask,
): Uint8Array<ArrayBuffer> {
  return readRuns(
    data,
    width * height,
    (Kind, why, current) =>
      new Kind(`Cannot read mask: ${why}: current ${current}`),
  );
}

/** The smallest box around a mask, in fractions of the picture. */
export function maskBox(mask: PackedMask): Box {
  const { width, height } = mask;
  const inside = maskPixels(mask);
  let [x0, y0, x1, y1] = [width, height, 0, 0];
  for (let i = inside.indexOf(1); i >= 0; i = inside.indexOf(1, i + 1)) {
    const [x, y] = [i % width, Math.floor(i / width)];
    [x0, y0] = [Math.min(x0, x), Math.min(y0, y)];
    [x1, y1] = [Math.max(x1, x + 1), y + 1];
  }
  return [x0 / width, y0 / height, x1 / width, y1 / height];
}

/**
 * A mask on a grid: with `coverage` the covered share of each cell, else 1 where that is at least a half.
 *
 * @param width Grid width in cells.
 * @param height Grid height in cells.
 * @returns `[height * width]`, row-major, in `[0, 1]`. All zero where no cell is covered.
 */
export function rasterizeMask(
  mask: PackedMask,
  width: number,
  height: number,
  mode: RasterMode = "nearest",
): Float64Array<ArrayBuffer> {
  checkGrid(width, height);
  const inside = maskPixels(mask);
  const columns = shares(mask.width, width);
  const rows = shares(mask.height, height);
  const out = new Float64Array(width * height);
  for (let y = 0; y < mask.height; y++) {
    const line = new Float64Array(width);
    for (let x = 0; x < mask.width; x++) {
      if (!inside[y * mask.width + x]) continue;
      for (const [cell, share] of columns[x]!) line[cell]! += share;
    }
    for (const [cell, share] of rows[y]!) {
      for (let x = 0; x < width; x++) {
        out[cell * width + x]! += share * line[x]!;
      }
    }
  }
  return out.map((v) => {
    const share = Math.round(v / LEAST) * LEAST;
    return mode === "coverage" ? share : Number(share >= 0.5);
  });
}

/** Per pixel of an axis: the cells that it lies in, and the share of each that it fills. */
function shares(
  pixels: number,
  cells: number,
): (readonly [cell: number, share: number])[][] {
  return Array.from({ length: pixels }, (_, i) => {
    const [from, to] = [i * cells / pixels, (i + 1) * cells / pixels];
    const list: [number, number][] = [];
    for (let cell = Math.floor(from); cell < to && cell < cells; cell++) {
      list.push([cell, Math.min(to, cell + 1) - Math.max(from, cell)]);
    }
    return list;
  });
}

function writeRuns(inside: Uint8Array): number[] {
  const runs: number[] = [];
  let [at, value] = [0, 0];
  while (at < inside.length) {
    const next = inside.indexOf(1 - value, at);
    const end = next < 0 ? inside.length : next;
    runs.push(end - at);
    [at, value] = [end, 1 - value];
  }
  return runs;
}

function readRuns(
  text: string,
  count: number,
  fail: (Kind: typeof TypeError, why: string, current: unknown) => Error,
): Uint8Array<ArrayBuffer> {
  if (!/^\d{1,8}(?: \d{1,8})*$/.test(text)) {
    throw fail(
      RangeError,
      "runs must be whole numbers with single spaces",
      JSON.stringify(text.slice(0, 40)),
    );
  }
  const inside = new Uint8Array(count);
  let at = 0;
  text.split(" ").forEach((run, i) => {
    const end = at + Number(run);
    if (i % 2) inside.fill(1, at, Math.min(end, count));
    at = end;
  });
  if (at !== count) throw fail(RangeError, `runs must add up to ${count}`, at);
  return inside;
}
