/**
 * Boxes, labels and contact sheets on RGB [h, w, 3], for people to look at.
 *
 * @module
 */

import type { Box } from "./raster.ts";

export type { Box } from "./raster.ts";

/** A picture of 8-bit RGB. */
export interface Picture {
  /** `[height * width * 3]`, row-major. */
  readonly rgb: Uint8Array;
  /** In pixels. */
  readonly width: number;
  /** In pixels. */
  readonly height: number;
}

/** A box to outline. Boxes with the same label have the same colour. */
export interface LabelledBox {
  /** Fractions of the image. */
  readonly box: Box;
  /** ASCII; other characters are drawn as `?`. */
  readonly label?: string;
}

type Colour = readonly [number, number, number];

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
const BLACK: Colour = [0, 0, 0];
const WHITE: Colour = [255, 255, 255];
const [GLYPH_WIDTH, GLYPH_HEIGHT, ADVANCE, LINE] = [5, 7, 6, 10];
// "!" to "~", 5x7 pixels row by row, the first pixel in the highest of 35 bits, in 7 base-36 digits each.
const GLYPHS =
  "21bllok53asrgg53o4fuy27pjbusc83fz3767fl4r121e0lq811vmdfm40bf9fs02lb0jk" +
  "02b0igw00009l4000lrsw00000b000lb4sg76dsppq25rf3wu7626cynfbo44z2131183m" +
  "fjw0eni33a2mumfb2xjwo76ceo8e76cf0i406v880006v87t411vrzpe00jde6840bek5k" +
  "7626cqs76gakge76cqm29f2h64ou76btkxaf2gwzzyfjnuginfjnugi876byipb8nmknjl" +
  "6ywdqq63hg6vrg8o8aez585aef4v8t8nepd8nrdgz576cgs32f2h63v476cgv9pf2h672p" +
  "7nj2numfcs3z448nmatke8nmatdw8nmdq418nho7qp8nho2o4fb2xk4f716vaj2090pnog" +
  "6xr4ytq24vi03k000000v40bdt6o008rorz85j5sfy00928su0ikyn8v00939xq33idmh4" +
  "009pe0e85j5sfl1z8onf20zmcc3w42nv6fd5zdtpqm00gnkc500j2ka90092ywe00j2uj4" +
  "009pe0100e8d1s009ony6430xngm00aye7h00aydz800ayhey00at6q900ayc6m00je7mn" +
  "11t4dxe21blls440co96w005el8g";

/**
 * Outline boxes, each with its label on a plate at its top left corner.
 *
 * @param rgb `[height * width * 3]`; not changed.
 * @param width In pixels.
 * @param height In pixels.
 * @param boxes What to draw, in order.
 * @param options `scale` is the line width and the size of a font pixel; 1 per 300 pixels if absent.
 * @returns A copy with the boxes drawn.
 * @throws {RangeError} If the size does not fit `rgb` or the scale is not a whole number above 0.
 */
export function drawBoxes(
  rgb: Uint8Array,
  width: number,
  height: number,
  boxes: readonly LabelledBox[],
  options: { readonly scale?: number } = {},
): Uint8Array<ArrayBuffer> {
  check({ rgb, width, height });
  const { scale = Math.max(1, Math.round(Math.min(width, height) / 300)) } =
    options;
  checkWhole("scale", scale);
  const out = { rgb: Uint8Array.from(rgb), width, height };
  const owners: string[] = []; // a label, or the index of a box without one
  const plates: (() => void)[] = []; // over all lines
  boxes.forEach(({ box, label }, i) => {
    const owner = label ?? `\0${i}`;
    if (!owners.includes(owner)) owners.push(owner);
    const colour = COLOURS[owners.indexOf(owner) % COLOURS.length] as Colour;
    const [x0, x1] = [box[0], box[2]].map((v) => Math.round(v * width)) as [
      number,
      number,
    ];
    const [y0, y1] = [box[1], box[3]].map((v) => Math.round(v * height)) as [
      number,
      number,
    ];
    fill(out, x0, y0, x1, y0 + scale, colour);
    fill(out, x0, y1 - scale, x1, y1, colour);
    fill(out, x0, y0, x0 + scale, y1, colour);
    fill(out, x1 - scale, y0, x1, y1, colour);
    if (label === undefined) return;
    const plateWidth = ([...label].length * ADVANCE + 3) * scale;
    const plateHeight = (GLYPH_HEIGHT + 4) * scale;
    const left = Math.max(0, Math.min(x0, width - plateWidth));
    const top = Math.max(0, Math.min(y0, height - plateHeight));
    const light =
      0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 120; // Rec. 601 luma
    plates.push(() => {
      fill(out, left, top, left + plateWidth, top + plateHeight, colour);
      write(
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
    wrap(captions[i] ?? "", Math.floor(image.width / (ADVANCE * scale)))
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
      write(
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

function fill(
  image: Picture,
  x0: number,
  y0: number,
  x1: number,
  y1: number,
  colour: Colour,
): void {
  for (let y = Math.max(0, y0); y < Math.min(y1, image.height); y++) {
    for (let x = Math.max(0, x0); x < Math.min(x1, image.width); x++) {
      image.rgb.set(colour, (y * image.width + x) * 3);
    }
  }
}

function write(
  image: Picture,
  text: string,
  left: number,
  top: number,
  scale: number,
  colour: Colour,
): void {
  [...text].forEach((char, n) => {
    if (char === " ") return;
    const index = (/^[!-~]$/.test(char) ? char : "?").charCodeAt(0) - 33;
    const bits = parseInt(GLYPHS.slice(index * 7, index * 7 + 7), 36).toString(
      2,
    ).padStart(35, "0");
    for (let i = 0; i < GLYPH_WIDTH * GLYPH_HEIGHT; i++) {
      if (bits[i] !== "1") continue;
      const x = left + (n * ADVANCE + i % GLYPH_WIDTH) * scale;
      const y = top + Math.floor(i / GLYPH_WIDTH) * scale;
      fill(image, x, y, x + scale, y + scale, colour);
    }
  });
}

/** Lines of at most `room` characters, broken at spaces where there are any. */
function wrap(text: string, room: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter((w) => w !== "")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= room) {
      lines[lines.length - 1] = `${last} ${word}`;
      continue;
    }
    for (let at = 0; at < word.length; at += Math.max(room, 1)) {
      lines.push(word.slice(at, at + Math.max(room, 1)));
    }
  }
  return lines;
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
