/** Pictures in a grid, a row per layout and a column per method, boxes drawn, for people to look at. */
import {
  ADVANCE,
  BLACK,
  type Colour,
  fillRect,
  LINE,
  type Picture,
  wrapText,
  writeText,
} from "../bitmap_font.ts";
import { drawBoxes, enlarge, type LabelledBox } from "../draw.ts";

/** One place of the grid. */
export interface SheetCell {
  /** What is shown. */
  readonly picture: Picture;
  /** Drawn on it. */
  readonly boxes: readonly LabelledBox[];
  /** A line below it. */
  readonly caption?: string;
}

/** One row of the grid. */
export interface SheetRow {
  /** On the left, in a few words. */
  readonly title: string;
  /** Below that. */
  readonly text: string;
  /** One per column; undefined where there is no picture. */
  readonly cells: readonly (SheetCell | undefined)[];
}

const SCALE = 2; // of letters
const GAP = 12;
const LEFT = 210; // pixels for titles
const CAPTION = LINE * SCALE;
const GREY: Colour = [110, 110, 110];
const PALE: Colour = [240, 240, 240];

/**
 * Draws the grid.
 *
 * @param columns Headings.
 * @param rows At least one.
 * @param options `side`: pixels of the longer side of a picture, which it comes near by a whole factor (256).
 * @throws {RangeError} If there is nothing to draw or a row has another number of cells.
 */
export function contactSheet(
  columns: readonly string[],
  rows: readonly SheetRow[],
  options: { readonly side?: number } = {},
): Picture {
  const { side = 256 } = options;
  const odd = rows.find(({ cells }) => cells.length !== columns.length);
  if (columns.length === 0 || rows.length === 0 || odd) {
    throw new RangeError(
      `Cannot draw a contact sheet: there must be rows with a cell for each of ${columns.length} columns: current ${rows.length} rows, one with ${
        odd?.cells.length ?? 0
      } cells`,
    );
  }
  const tiles = rows.map(({ cells }) =>
    cells.map((cell) => cell && { ...cell, picture: drawCell(cell, side) })
  );
  const shown = tiles.flat().flatMap((tile) => tile ? [tile.picture] : []);
  const cellWidth = Math.max(side, ...shown.map(({ width }) => width));
  const heading = columns.map((name) =>
    // options may be broken between
    wrapText(
      name.replaceAll(/[,:](?=\S)/g, "$& "),
      Math.floor(cellWidth / (ADVANCE * SCALE)),
    )
  );
  const top = GAP + LINE * SCALE * Math.max(...heading.map((h) => h.length));
  const heights = tiles.map((row) =>
    CAPTION +
    Math.max(side / 2, ...row.map((tile) => tile?.picture.height ?? 0))
  );
  const width = LEFT + columns.length * (cellWidth + GAP) + GAP;
  const height = top + heights.reduce((sum, h) => sum + h + GAP, GAP);
  const sheet: Picture = {
    rgb: new Uint8Array(3 * width * height).fill(255),
    width,
    height,
  };
  const leftOf = (column: number): number =>
    LEFT + GAP + column * (cellWidth + GAP);
  heading.forEach((lines, i) =>
    lines.forEach((line, n) =>
      writeText(
        sheet,
        line,
        leftOf(i),
        GAP / 2 + n * LINE * SCALE,
        SCALE,
        BLACK,
      )
    )
  );
  let y = top;
  rows.forEach(({ title, text }, r) => {
    if (r % 2 === 0) {
      fillRect(sheet, 0, y - GAP / 2, width, y + heights[r]! + GAP / 2, PALE);
    }
    const room = Math.floor((LEFT - GAP) / (ADVANCE * SCALE));
    const titles = wrapText(title, room);
    [...titles, ...wrapText(text, room)].forEach((line, n) =>
      writeText(
        sheet,
        line,
        GAP,
        y + n * LINE * SCALE,
        SCALE,
        n < titles.length ? BLACK : GREY,
      )
    );
    tiles[r]!.forEach((tile, column) => {
      if (!tile) return;
      paste(sheet, tile.picture, leftOf(column), y);
      writeText(
        sheet,
        tile.caption ?? "",
        leftOf(column),
        y + tile.picture.height + SCALE * 2,
        SCALE,
        BLACK,
      );
    });
    y += heights[r]! + GAP;
  });
  return sheet;
}

/** A picture near `side` pixels, with its boxes. */
function drawCell({ picture, boxes }: SheetCell, side: number): Picture {
  const longer = Math.max(picture.width, picture.height);
  const sized = longer > side
    ? shrink(picture, Math.ceil(longer / side))
    : grow(picture, Math.floor(side / longer));
  const { width, height } = sized;
  const rgb = drawBoxes(sized.rgb, width, height, boxes, { scale: 1, line: 2 });
  return { rgb, width, height };
}

function grow({ rgb, width, height }: Picture, factor: number): Picture {
  return {
    rgb: enlarge(rgb, width, height, factor, { filter: "bilinear" }),
    width: width * factor,
    height: height * factor,
  };
}

/** Means of squares of `factor` pixels; what is left over at the right and below is cut off. */
function shrink({ rgb, width, height }: Picture, factor: number): Picture {
  const [w, h] = [width, height].map((n) =>
    Math.max(1, Math.floor(n / factor))
  ) as [number, number];
  const out = new Uint8Array(3 * w * h);
  for (let i = 0; i < out.length; i++) {
    const [c, x, y] = [i % 3, Math.floor(i / 3) % w, Math.floor(i / 3 / w)];
    let sum = 0, count = 0;
    for (let v = y * factor; v < Math.min(height, (y + 1) * factor); v++) {
      for (let u = x * factor; u < Math.min(width, (x + 1) * factor); u++) {
        sum += rgb[3 * (v * width + u) + c]!;
        count++;
      }
    }
    out[i] = Math.round(sum / count);
  }
  return { rgb: out, width: w, height: h };
}

function paste(
  sheet: Picture,
  { rgb, width, height }: Picture,
  left: number,
  top: number,
): void {
  for (let y = 0; y < height; y++) {
    sheet.rgb.set(
      rgb.subarray(3 * y * width, 3 * (y + 1) * width),
      3 * ((top + y) * sheet.width + left),
    );
  }
}
