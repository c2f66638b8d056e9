/**
 * Boxes, labels and contact sheets on RGB [h, w, 3], for people to look at.
 *
 * @module
 */

import {
  ADVANCE,
  BLACK,
  type Colour,
  fillRect,
  GLYPH_HEIGHT,
  LINE,
  type Picture,
  textWidth,
  WHITE,
  wrapText,
  writeText,
} from "./bitmap_font.ts";
import { maskPixels, type PackedMask } from "./mask.ts";
import type { Box } from "./raster.ts";

export type { Picture } from "./bitmap_font.ts";
export type { Box } from "./raster.ts";

/** A box to outline. Boxes with the same label have the same colour. */
export interface LabelledBox {
  /** Fractions of the image. */
  readonly box: Box;
  /** Outlined instead of the box around it. */
  readonly mask?: PackedMask | undefined;
  /** ASCII; other characters are drawn as `?`. */
  readonly label?: string;
  /** Of its own, instead of its label's. */
  readonly colour?: Colour;
}

// Okabe and Ito's palette without black: told apart with any colour vision.
const COLOURS: readonly Colour[] = [
  [230, 159, 0],
  [0, 114, 178],
  [0, 158, 115],
  [204, 121, 167],
  [213, 94, 0],
  [86, 180, 233],
  [240, 228, 66],
];

/**
 * Outline boxes, each with its label on a plate at its top left corner.
 *
 * @param rgb `[height * width * 3]`; not changed.
 * @param width In pixels.
 * @param height In pixels.
 * @param boxes What to draw, in order.
 * @param options `scale` is the size of a font pixel, 1 per 300 pixels if absent; `line` the width of
 * lines, as `scale` if absent.
 * @returns A copy with the boxes drawn.
 * @throws {RangeError} If the size does not fit `rgb`, or scale or line is not a whole number above 0.
 */
export function drawBoxes(
  rgb: Uint8Array,
  width: number,
  height: number,
  boxes: readonly LabelledBox[],
  options: { readonly scale?: number; readonly line?: number } = {},
): Uint8Array<ArrayBuffer> {
  check({ rgb, width, height });
  const { scale = Math.max(1, Math.round(Math.min(width, height) / 300)) } =
    options;
  const { line = scale } = options;
  checkWhole("scale", scale);
  checkWhole("line", line);
  const out = { rgb: Uint8Array.from(rgb), width, height };
  const owners: string[] = []; // a label, or the index of a box without one
  const plates: (() => void)[] = []; // over all lines
  boxes.forEach(({ box, mask, label, colour: own }, i) => {
    const owner = label ?? `\0${i}`;
    if (!owners.includes(owner)) owners.push(owner);
    const colour = own ??
      COLOURS[owners.indexOf(owner) % COLOURS.length] as Colour;
    const [x0, x1] = [box[0], box[2]].map((v) => Math.round(v * width)) as [
      number,
      number,
    ];
    const [y0, y1] = [box[1], box[3]].map((v) => Math.round(v * height)) as [
      number,
      number,
    ];
    if (mask !== undefined) outline(out, mask, line, colour);
    else {
      fillRect(out, x0, y0, x1, y0 + line, colour);
      fillRect(out, x0, y1 - line, x1, y1, colour);
      fillRect(out, x0, y0, x0 + line, y1, colour);
      fillRect(out, x1 - line, y0, x1, y1, colour);
    }
    if (label === undefined) return;
    const plateWidth = (textWidth(label) + 3) * scale;
    const plateHeight = (GLYPH_HEIGHT + 4) * scale;
    const left = Math.max(0, Math.min(x0, width - plateWidth));
    const top = Math.max(0, Math.min(y0, height - plateHeight));
    const light =
      0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120; // Rec. 601 luma
    plates.push(() => {
      fillRect(out, left, top, left + plateWidth, top + plateHeight, colour);
      writeText(
        out,
        label,
        left + 2 * scale,
        top + 2 * scale,
        scale,
        light ? BLACK : WHITE,
      );
    });
  });
  for (const plate of plates) plate();
  return out.rgb;
}

/**
 * Enlarge a picture by a whole factor.
 *
 * @param rgb `[height * width * 3]`.
 * @param width In pixels.
 * @param height In pixels.
 * @param factor 1 or more.
 * @param options `filter`: `nearest` (default) repeats pixels, `bilinear` blends between centres.
 * @returns `[height * factor * width * factor * 3]`.
 * @throws {RangeError} If the size does not fit `rgb` or the factor is not a whole number above 0.
 */
export function enlarge(
  rgb: Uint8Array,
  width: number,
  height: number,
  factor: number,
  options: { readonly filter?: "nearest" | "bilinear" } = {},
): Uint8Array<ArrayBuffer> {
  check({ rgb, width, height });
  checkWhole("factor", factor);
  const smooth = options.filter === "bilinear";
  const [w, h] = [width * factor, height * factor];
  const out = new Uint8Array(w * h * 3);
  for (let y = 0; y < h; y++) {
    const [y0, y1, fy] = taps(y, factor, height, smooth);
    for (let x = 0; x < w; x++) {
      const [x0, x1, fx] = taps(x, factor, width, smooth);
      for (let c = 0; c < 3; c++) {
        const at = (row: number, col: number) =>
          rgb[(row * width + col) * 3 + c] as number;
        const top = at(y0, x0) * (1 - fx) + at(y0, x1) * fx;
        const bottom = at(y1, x0) * (1 - fx) + at(y1, x1) * fx;
        out[(y * w + x) * 3 + c] = Math.round(top * (1 - fy) + bottom * fy);
      }
    }
  }
  return out;
}

/**
 * Pictures in a row on white, tops aligned, each with its caption below.
 *
 * @param images At least one picture.
 * @param options `gap` between and around them in pixels (8); `captions`, broken into lines where
 * they are wider than their picture; `scale`, the size of a font pixel (1).
 * @returns The sheet.
 * @throws {RangeError} If there is no picture, a size does not fit, or there are more captions than pictures.
 */
export function sideBySide(
  images: readonly Picture[],
  options: {
    readonly gap?: number;
    readonly captions?: readonly string[];
    readonly scale?: number;
  } = {},
): { rgb: Uint8Array<ArrayBuffer>; width: number; height: number } {
  const { gap = 8, captions = [], scale = 1 } = options;
  images.forEach(check);
  checkWhole("scale", scale);
  if (
    images.length === 0 || captions.length > images.length ||
    !(Number.isInteger(gap) && gap >= 0)
  ) {
    throw new RangeError(
      `Cannot put pictures side by side: there must be a picture, no more captions than pictures, and a whole gap from 0: current ${images.length}, ${captions.length}, ${gap}`,
    );
  }
  const lines = images.map((image, i) =>
    wrapText(captions[i] ?? "", Math.floor(image.width / (ADVANCE * scale)))
  );
  const bottom = Math.max(...images.map((image) => image.height));
  const text = Math.max(...lines.map((l) => l.length)) * LINE * scale;
  const width = images.reduce((sum, image) => sum + image.width + gap, gap);
  const height = gap + bottom + (text > 0 ? 4 * scale + text : 0) + gap;
  const out = {
    rgb: new Uint8Array(width * height * 3).fill(255),
    width,
    height,
  };
  let left = gap;
  images.forEach((image, i) => {
    for (let y = 0; y < image.height; y++) {
      const row = image.rgb.subarray(
        y * image.width * 3,
        (y + 1) * image.width * 3,
      );
      out.rgb.set(row, ((gap + y) * width + left) * 3);
    }
    (lines[i] as string[]).forEach((line, n) => {
      const indent = Math.max(
        0,
        Math.floor((image.width - line.length * ADVANCE * scale) / 2),
      );
      writeText(
        out,
        line,
        left + indent,
        gap + bottom + (4 + n * LINE) * scale,
        scale,
        BLACK,
      );
    });
    left += image.width + gap;
  });
  return out;
}

/** The two source rows (or columns) of a target one, and the share of the second. */
function taps(
  i: number,
  factor: number,
  n: number,
  smooth: boolean,
): [number, number, number] {
  if (!smooth) return [Math.floor(i / factor), Math.floor(i / factor), 0];
  const v = Math.min(Math.max((i + 0.5) / factor - 0.5, 0), n - 1);
  return [Math.floor(v), Math.min(Math.floor(v) + 1, n - 1), v - Math.floor(v)];
}

/** A line of `line` pixels along the inner edge of a mask. */
function outline(
  image: Picture,
  mask: PackedMask,
  line: number,
  colour: Colour,
): void {
  const { width, height } = image;
  const pixels = maskPixels(mask);
  const inside = (x: number, y: number): boolean =>
    x >= 0 && y >= 0 && x < width && y < height &&
    pixels[
        Math.floor((y + 0.5) * mask.height / height) * mask.width +
        Math.floor((x + 0.5) * mask.width / width)
      ] === 1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const edge = inside(x, y) &&
        [[-line, 0], [line, 0], [0, -line], [0, line]].some(([dx, dy]) =>
          !inside(x + dx!, y + dy!)
        );
      if (edge) image.rgb.set(colour, (y * width + x) * 3);
    }
  }
}

function check({ rgb, width, height }: Picture): void {
  checkWhole("width", width);
  checkWhole("height", height);
  if (rgb.length !== width * height * 3) {
    throw new RangeError(
      `Cannot draw: rgb must have ${width}x${height}x3 bytes: current ${rgb.length}`,
    );
  }
}

function checkWhole(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new RangeError(
      `Cannot draw: ${name} must be a whole number above 0: current ${value}`,
    );
  }
}
