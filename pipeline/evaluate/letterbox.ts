/** A picture of any size -> the square or oblong that a detector takes, and boxes back. */
import type { Picture } from "../draw.ts";
import type { Box } from "../raster.ts";

/** A picture as a detector takes it. */
export interface Letterbox {
  /** `[3, height, width]`, 0 to 1. */
  readonly planes: Float32Array;
  /** Pixels of the detector's input -> fractions of the picture. */
  readonly toPicture: (box: Box) => Box;
}

const GREY = 114 / 255; // YOLO's

/**
 * Scales a picture to fit, sides kept in proportion, with grey around it.
 *
 * Bilinear between pixel centres, as YOLO's preprocessing; a picture of the right size stays as it is.
 *
 * @param size `[width, height]` of the detector's input.
 */
export function letterbox(
  picture: Picture,
  size: readonly [width: number, height: number],
): Letterbox {
  const [width, height] = size;
  const scale = Math.min(width / picture.width, height / picture.height);
  const inner = [picture.width, picture.height].map((n) =>
    Math.max(1, Math.round(n * scale))
  ) as [number, number];
  const left = Math.floor((width - inner[0]) / 2);
  const top = Math.floor((height - inner[1]) / 2);
  const cells = width * height;
  const planes = new Float32Array(3 * cells).fill(GREY);
  const columns = Array.from(
    { length: inner[0] },
    (_, x) => taps(x, inner[0], picture.width),
  );
  for (let y = 0; y < inner[1]; y++) {
    const [y0, y1, fy] = taps(y, inner[1], picture.height);
    columns.forEach(([x0, x1, fx], x) => {
      for (let c = 0; c < 3; c++) {
        const at = (row: number, column: number): number =>
          picture.rgb[3 * (row * picture.width + column) + c]!;
        const upper = at(y0, x0) * (1 - fx) + at(y0, x1) * fx;
        const lower = at(y1, x0) * (1 - fx) + at(y1, x1) * fx;
        planes[c * cells + (top + y) * width + left + x] =
          (upper * (1 - fy) + lower * fy) / 255;
      }
    });
  }
  return {
    planes,
    toPicture: ([x0, y0, x1, y1]) => [
      (x0 - left) / inner[0],
      (y0 - top) / inner[1],
      (x1 - left) / inner[0],
      (y1 - top) / inner[1],
    ],
  };
}

/** The two source pixels of a target pixel, and the share of the second. */
function taps(
  i: number,
  count: number,
  source: number,
): readonly [number, number, number] {
  const v = Math.min(
    Math.max((i + 0.5) * source / count - 0.5, 0),
    source - 1,
  );
  const low = Math.floor(v);
  return [low, Math.min(low + 1, source - 1), v - low];
}
