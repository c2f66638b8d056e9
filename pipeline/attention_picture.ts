/**
 * Attention maps -> pictures: heat over the picture as it was at that step, with the region's outline.
 *
 * @module
 */
import {
  type AttentionMap,
  type AttentionStep,
  blended,
} from "./attention_maps.ts";
import { drawBoxes, sideBySide } from "./draw.ts";
import {
  BLACK,
  type Colour,
  fillRect,
  LINE,
  type Picture,
  textWidth,
  writeText,
} from "./bitmap_font.ts";
import { type Shape, shapeBoxes } from "./shape.ts";

/** A finished step, its picture decoded. */
export interface AttentionFrame extends Omit<AttentionStep, "preview"> {
  /** The picture the model had in mind. */
  readonly picture: Picture;
}

// Anchors of matplotlib's "inferno": lightness rises evenly, also in print and with any colour vision.
const HEAT: readonly Colour[] = [
  [0, 0, 4],
  [87, 16, 110],
  [188, 55, 84],
  [249, 142, 9],
  [252, 255, 164],
];
const LEGEND = 8; // pixels of the colour bar's height, at scale 1
const OUTLINE: Colour = [86, 220, 255]; // what "inferno" and grey do not have
const MOST_COLUMNS = 8; // of the overview
const SIDE = 180; // pixels of a picture in it
const TEXT = 2; // size of its font's pixels
const MOST_NAME = 20; // characters of a phrase in it

/**
 * One region at one step, large, with a caption and a legend.
 *
 * @param shape The region's boxes or mask, to outline.
 */
export function attentionPicture(
  frame: AttentionFrame,
  map: AttentionMap,
  shape: Shape,
): Picture {
  const tile = heatTile(frame.picture, map, shape, 512, map.phrase);
  const scale = Math.max(1, Math.round(tile.width / 300));
  const guided = frame.guided ? ", guided" : "";
  const caption = `step ${frame.step} of ${frame.steps}${guided}: ${
    percent(map.share)
  } inside`;
  const { rgb, width, height } = sideBySide([tile], {
    captions: [caption],
    scale,
  });
  const extra = (LEGEND + LINE + 4) * scale;
  const out = blank(width, height + extra);
  out.rgb.set(rgb);
  legend(out, map, {
    left: 8,
    top: height,
    width: width - 16,
    scale,
  });
  return out;
}

/**
 * Every region at some of the steps: the picture in the first row, then a row per region.
 *
 * @param frames At least one; more than eight are thinned out evenly, the first and last kept.
 * @param shapes Per region.
 */
export function attentionSheet(
  frames: readonly AttentionFrame[],
  shapes: readonly Shape[],
): Picture {
  const shown = thinOut(frames);
  const gap = 8;
  const line = LINE * TEXT;
  const plain = shown.map(({ picture }) => fitted(picture, SIDE));
  const { width, height } = plain[0]!;
  const names = ["picture so far", ...frames[0]!.maps.map((m) => m.phrase)]
    .map((name) => [...name].slice(0, MOST_NAME).join(""));
  const left = gap + Math.max(...names.map(textWidth)) * TEXT + gap;
  const top = gap + 2 * line + gap;
  const row = height + line + gap;
  const out = blank(
    left + shown.length * (width + gap),
    top + names.length * row + 2 * line,
  );
  const say = (text: string, x: number, y: number): void =>
    writeText(out, text, x, y, TEXT, BLACK);
  names.forEach((name, r) =>
    say(name, gap, top + r * row + Math.round((height - line) / 2))
  );
  shown.forEach((frame, c) => {
    const x = left + c * (width + gap);
    say(`step ${frame.step}`, x, gap);
    say(frame.guided ? "guided" : `t ${frame.timestep}`, x, gap + line);
    paste(out, plain[c]!, x, top);
    frame.maps.forEach((map, i) => {
      const y = top + (i + 1) * row;
      paste(out, heatTile(frame.picture, map, shapes[i]!, SIDE), x, y);
      say(`${percent(map.share)} inside`, x, y + height + 4);
    });
  });
  const notes = [
    "brighter: more of the attention goes to the phrase;",
    "each map is scaled to its own largest value",
  ];
  notes.forEach((note, i) =>
    say(note, gap, out.height - (notes.length - i) * line)
  );
  return out;
}

/** The picture in grey under the heat of a map, outlined. */
function heatTile(
  picture: Picture,
  map: AttentionMap,
  shape: Shape,
  side: number,
  label?: string,
): Picture {
  const out = fitted(picture, side);
  const { rgb, width, height } = out;
  const most = largest(map);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = blended(
        map.values,
        map.width,
        map.height,
        (x + 0.5) / width,
        (y + 0.5) / height,
      ) / most;
      const at = (y * width + x) * 3;
      const grey = 0.299 * rgb[at]! + 0.587 * rgb[at + 1]! +
        0.114 * rgb[at + 2]!; // Rec. 601 luma
      const cover = 0.35 + 0.45 * value;
      heat(value).forEach((v, c) =>
        rgb[at + c] = Math.round(grey * (1 - cover) + v * cover)
      );
    }
  }
  const boxes = shapeBoxes(shape).map((box) => ({
    box,
    mask: shape.mask,
    colour: OUTLINE,
    ...(label === undefined ? {} : { label }),
  }));
  const scale = Math.max(2, Math.round(width / 200));
  return {
    rgb: drawBoxes(rgb, width, height, boxes, { scale }),
    width,
    height,
  };
}

/** A colour bar from 0 to the map's largest value. */
function legend(
  out: Picture,
  map: AttentionMap,
  { left, top, width, scale }: {
    readonly left: number;
    readonly top: number;
    readonly width: number;
    readonly scale: number;
  },
): void {
  for (let x = 0; x < width; x++) {
    fillRect(
      out,
      left + x,
      top,
      left + x + 1,
      top + LEGEND * scale,
      heat(x / (width - 1)),
    );
  }
  const y = top + (LEGEND + 3) * scale;
  const most = percent(largest(map));
  writeText(out, "0 %", left, y, scale, BLACK);
  const middle = "of a cell's attention";
  writeText(
    out,
    middle,
    left + Math.round((width - textWidth(middle) * scale) / 2),
    y,
    scale,
    BLACK,
  );
  writeText(out, most, left + width - textWidth(most) * scale, y, scale, BLACK);
}

function largest({ values }: AttentionMap): number {
  return values.reduce((a, b) => Math.max(a, b), 1e-12);
}

/** Colour of a value from 0 to 1. */
function heat(value: number): Colour {
  const at = Math.min(Math.max(value, 0), 1) * (HEAT.length - 1);
  const [low, high] = [HEAT[Math.floor(at)]!, HEAT[Math.ceil(at)]!];
  const f = at - Math.floor(at);
  return low.map((v, c) =>
    Math.round(v * (1 - f) + high[c]! * f)
  ) as unknown as Colour;
}

/** A picture whose longer side has about so many pixels, blended. */
function fitted(
  { rgb, width, height }: Picture,
  side: number,
): Picture & { readonly rgb: Uint8Array<ArrayBuffer> } {
  const scale = side / Math.max(width, height);
  const out = blank(
    Math.max(1, Math.round(width * scale)),
    Math.max(1, Math.round(height * scale)),
  );
  const planes = [0, 1, 2].map((c) =>
    Uint8Array.from({ length: width * height }, (_, i) => rgb[3 * i + c]!)
  );
  for (let i = 0; i < out.width * out.height; i++) {
    const x = (i % out.width + 0.5) / out.width;
    const y = (Math.floor(i / out.width) + 0.5) / out.height;
    planes.forEach((plane, c) =>
      out.rgb[3 * i + c] = Math.round(blended(plane, width, height, x, y))
    );
  }
  return out;
}

function thinOut<T>(frames: readonly T[]): T[] {
  if (frames.length <= MOST_COLUMNS) return [...frames];
  return Array.from(
    { length: MOST_COLUMNS },
    (_, i) => frames[Math.round(i * (frames.length - 1) / (MOST_COLUMNS - 1))]!,
  );
}

function paste(out: Picture, tile: Picture, left: number, top: number): void {
  for (let y = 0; y < tile.height; y++) {
    const from = y * tile.width * 3;
    out.rgb.set(
      tile.rgb.subarray(from, from + tile.width * 3),
      ((top + y) * out.width + left) * 3,
    );
  }
}

function blank(
  width: number,
  height: number,
): Picture & { readonly rgb: Uint8Array<ArrayBuffer> } {
  return {
    rgb: new Uint8Array(width * height * 3).fill(255),
    width,
    height,
  };
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
