/** Rectangles and 5x7 letters on RGB [h, w, 3]. */

/** A picture of 8-bit RGB. */
export interface Picture {
  /** `[height * width * 3]`, row-major. */
  readonly rgb: Uint8Array;
  /** In pixels. */
  readonly width: number;
  /** In pixels. */
  readonly height: number;
}

/** Red, green, blue, 0 to 255. */
export type Colour = readonly [number, number, number];

/** Of letters on light ground. */
export const BLACK: Colour = [0, 0, 0];
/** Of letters on dark ground. */
export const WHITE: Colour = [255, 255, 255];
const GLYPH_WIDTH = 5;
/** Pixels of a letter from top to bottom, at scale 1. */
export const GLYPH_HEIGHT = 7;
/** Pixels from letter to letter. */
export const ADVANCE = 6;
/** Pixels from line to line. */
export const LINE = 10;
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

/** Pixels that a text takes from left to right, at scale 1. */
export function textWidth(text: string): number {
  return [...text].length * ADVANCE;
}

/** Fills `[x0, x1) x [y0, y1)`, as far as it is in the picture. */
export function fillRect(
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

/** Writes a line with its top left corner at `left`, `top`; ASCII, other characters as `?`. */
export function writeText(
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
      fillRect(image, x, y, x + scale, y + scale, colour);
    }
  });
}

/** Lines of at most `room` characters, broken at spaces where there are any. */
export function wrapText(text: string, room: number): string[] {
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
