/** Regions and what a detector found -> how well each box was met. */
import type { CheckedRegion } from "../layout.ts";
import type { Box } from "../raster.ts";
import { shapeBoxes } from "../shape.ts";
import type { Detector, Found } from "./detector.ts";
import { iou } from "./iou.ts";

/** A thing that should be in a box. */
export interface WantedThing {
  /** As the layout has it. */
  readonly phrase: string;
  /** The detector's word for it. */
  readonly kind: string;
  /** The colour that the phrase names, if the detector knows it. */
  readonly colour?: string;
  /** Fractions of the picture. */
  readonly box: Box;
}

/** How one box was met. Only things of the right kind and colour count. */
export interface ThingScore extends WantedThing {
  /** There is one somewhere. */
  readonly present: boolean;
  /** The centre of one lies in the box. */
  readonly centred: boolean;
  /** The best intersection over union with the box. */
  readonly iou: number;
}

/**
 * What a layout asks of a picture: one thing per box; for a mask one in the box around it.
 *
 * @throws {RangeError} If a phrase names no kind that the detector knows.
 */
export function wantedThings(
  regions: readonly CheckedRegion[],
  { kinds, colours }: Pick<Detector, "kinds" | "colours">,
): WantedThing[] {
  return regions.flatMap((region) => {
    const { phrase } = region;
    const words = ` ${
      phrase.toLowerCase().split(/[^\p{L}\p{N}]+/u).join(" ")
    } `;
    const named = (list: readonly string[]): string | undefined => {
      const found = list.map((name) => ({
        name,
        at: words.lastIndexOf(` ${name.toLowerCase()} `),
      })).filter(({ at }) => at >= 0);
      // The last word is the thing itself; of "dog" and "hot dog" the longer one.
      found.sort((a, b) =>
        b.at + b.name.length - a.at - a.name.length ||
        b.name.length - a.name.length
      );
      return found[0]?.name;
    };
    const kind = named(kinds);
    if (kind === undefined) {
      throw new RangeError(
        `Cannot score ${
          JSON.stringify(phrase)
        }: it must name a kind that the detector knows, ${
          kinds.join(", ")
        }: current phrase has none`,
      );
    }
    const colour = named(colours);
    return shapeBoxes(region).map((box) => ({
      phrase,
      kind,
      ...(colour === undefined ? {} : { colour }),
      box,
    }));
  });
}

/**
 * Scores each wanted thing on its own.
 *
 * @param found Of the picture.
 * @param threshold Least score that counts.
 */
export function scoreThings(
  wanted: readonly WantedThing[],
  found: readonly Found[],
  threshold: number,
): ThingScore[] {
  return wanted.map((thing) => {
    const { kind, colour, box } = thing;
    const right = found.filter((f) =>
      f.score >= threshold && f.kind === kind &&
      (colour === undefined || f.colour === colour)
    );
    return {
      ...thing,
      present: right.length > 0,
      centred: right.some((f) => holdsCentre(box, f.box)),
      iou: Math.max(0, ...right.map((f) => iou(f.box, box))),
    };
  });
}

function holdsCentre([x0, y0, x1, y1]: Box, other: Box): boolean {
  const x = (other[0] + other[2]) / 2;
  const y = (other[1] + other[3]) / 2;
  return x >= x0 && x <= x1 && y >= y0 && y <= y1;
}
