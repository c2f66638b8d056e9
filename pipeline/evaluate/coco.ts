/**
 * True and found boxes -> COCO's detection scores.
 *
 * Per image, category and IoU threshold of .50:.05:.95, detections take true boxes greedily by score;
 * per category all detections in order of score give a curve of precision over recall, whose upper
 * envelope is read at recalls 0, .01, ..., 1. AP is the mean over recalls, thresholds and categories;
 * AR the mean of the last recall over thresholds and categories.
 *
 * @see Lin et al. 2014, arXiv:1405.0312, and pycocotools' COCOeval, which tests compare with.
 */
import type { Box } from "../raster.ts";
import { boxArea, iou } from "./iou.ts";

/** A box that should be found. */
export interface CocoTruth {
  /** What it is. */
  readonly category: string;
  /** In pixels, or in any unit if no area range is given. */
  readonly box: Box;
}

/** A box that was found. */
export interface CocoFound extends CocoTruth {
  /** The detector's confidence. */
  readonly score: number;
}

/** What should be and what is in one image. */
export interface CocoImage {
  /** Every box that should be found. */
  readonly truths: readonly CocoTruth[];
  /** In any order; among equal scores the earlier one comes first. */
  readonly found: readonly CocoFound[];
}

/** What COCO calls AP, AP50, AP75 and AR, each 0 to 1; NaN where there is no true box. */
export interface CocoScores {
  /** Mean over IoU thresholds .50:.05:.95. */
  readonly ap: number;
  /** At IoU .50. */
  readonly ap50: number;
  /** At IoU .75. */
  readonly ap75: number;
  /** Mean recall over thresholds, given at most `most` detections per image and category. */
  readonly ar: number;
}

/** Choices of `CocoEvaluation`; the defaults are those of COCO's main score. */
export interface CocoOptions {
  /** Smallest and largest area that counts, both included. Default all. */
  readonly area?: readonly [least: number, most: number];
  /** Detections per image and category that count. Default 100. */
  readonly most?: number;
}

/** COCO's areas in pixels. */
export const COCO_AREAS = {
  all: [0, 1e10],
  small: [0, 32 ** 2],
  medium: [32 ** 2, 96 ** 2],
  large: [96 ** 2, 1e10],
} as const;

const STEP = (0.95 - 0.5) / 9; // as numpy's linspace has it, to the last bit
const THRESHOLDS = Array.from(
  { length: 10 },
  (_, i) => i === 9 ? 0.95 : 0.5 + i * STEP,
);
const RECALLS = Array.from({ length: 101 }, (_, i) => i === 100 ? 1 : i * 0.01);
const MOST = 100; // COCO matches so many, however few it then counts
const [FALSE, TRUE, IGNORED] = [0, 1, 2];

/** All detections of a category by falling score. */
interface Ranking {
  /** `[detections]`: index of the image. */
  readonly image: Int32Array;
  /** `[thresholds][detections]`: FALSE, TRUE or IGNORED. */
  readonly outcome: readonly Uint8Array[];
  /** `[images]`: true boxes that count. */
  readonly truths: Int32Array;
}

/** Matched images, to be scored as they are or in another mixture of the same images. */
export class CocoEvaluation {
  readonly #images: number;
  readonly #rankings: readonly Ranking[];

  /** Matches every image once. */
  constructor(images: readonly CocoImage[], options: CocoOptions = {}) {
    const { area = COCO_AREAS.all, most = MOST } = options;
    const categories = new Set(
      images.flatMap(({ truths, found }) =>
        [...truths, ...found].map((x) => x.category)
      ),
    );
    this.#images = images.length;
    this.#rankings = [...categories].sort().map((category) =>
      rank(images, category, area, most)
    );
  }

  /**
   * Scores the images.
   *
   * @param weights `[images]`: how often each image counts, as in a bootstrap resample. Default once.
   */
  scores(weights?: ArrayLike<number>): CocoScores {
    const counts = weights ?? new Uint8Array(this.#images).fill(1);
    if (counts.length !== this.#images) {
      throw new RangeError(
        `Cannot score: there must be a weight per image, ${this.#images}: current ${counts.length}`,
      );
    }
    const ap: number[][] = THRESHOLDS.map(() => []);
    const recalls: number[] = [];
    for (const ranking of this.#rankings) {
      let truths = 0;
      ranking.truths.forEach((n, i) => truths += n * counts[i]!);
      if (truths === 0) continue;
      ranking.outcome.forEach((outcome, t) => {
        const { precision, recall } = curve(ranking, outcome, counts, truths);
        ap[t]!.push(precision);
        recalls.push(recall);
      });
    }
    return {
      ap: mean(ap.flat()),
      ap50: mean(ap[0]!),
      ap75: mean(ap[5]!),
      ar: mean(recalls),
    };
  }
}

function rank(
  images: readonly CocoImage[],
  category: string,
  area: readonly [number, number],
  most: number,
): Ranking {
  const truths = new Int32Array(images.length);
  const all: { image: number; score: number; outcome: number[] }[] = [];
  images.forEach((image, i) => {
    const own = <T extends CocoTruth>(list: readonly T[]): T[] =>
      list.filter((x) => x.category === category);
    const outside = (box: Box): boolean =>
      boxArea(box) < area[0] || boxArea(box) > area[1];
    // Boxes of another size come last: a detection takes one only where no other will do.
    const boxes = own(image.truths).map(({ box }) => ({
      box,
      ignored: outside(box),
    })).sort((a, b) => Number(a.ignored) - Number(b.ignored));
    truths[i] = boxes.filter(({ ignored }) => !ignored).length;
    const found = own(image.found).sort((a, b) => b.score - a.score)
      .slice(0, MOST);
    const overlaps = found.map((f) => boxes.map(({ box }) => iou(f.box, box)));
    const outcomes = THRESHOLDS.map((threshold) =>
      match(overlaps, boxes, threshold)
    );
    found.slice(0, most).forEach(({ score, box }, d) =>
      all.push({
        image: i,
        score,
        outcome: outcomes.map((o) =>
          o[d] === FALSE && outside(box) ? IGNORED : o[d]!
        ),
      })
    );
  });
  all.sort((a, b) => b.score - a.score); // stable, as COCO's merge sort
  return {
    image: Int32Array.from(all, ({ image }) => image),
    outcome: THRESHOLDS.map((_, t) =>
      Uint8Array.from(all, ({ outcome }) => outcome[t]!)
    ),
    truths,
  };
}

/** What becomes of each detection of an image at one threshold. */
function match(
  overlaps: readonly (readonly number[])[],
  boxes: readonly { readonly ignored: boolean }[],
  threshold: number,
): number[] {
  const taken = boxes.map(() => false);
  return overlaps.map((row) => {
    let best = Math.min(threshold, 1 - 1e-10);
    let match = -1;
    for (const [g, { ignored }] of boxes.entries()) {
      if (taken[g]) continue;
      if (match >= 0 && !boxes[match]!.ignored && ignored) break;
      if (row[g]! < best) continue; // so that of equals the last is taken
      best = row[g]!;
      match = g;
    }
    if (match < 0) return FALSE;
    taken[match] = true;
    return boxes[match]!.ignored ? IGNORED : TRUE;
  });
}

/**
 * The 101-point mean of the precision envelope, and the last recall.
 *
 * A detection of an image that counts w times is w detections in a row. Among w true ones precision
 * only rises, and the envelope reads the highest: the last of them stands for all.
 */
function curve(
  ranking: Ranking,
  outcome: Uint8Array,
  counts: ArrayLike<number>,
  truths: number,
): { precision: number; recall: number } {
  const recall: number[] = [];
  const envelope: number[] = [];
  let hits = 0, misses = 0;
  for (let d = 0; d < outcome.length; d++) {
    const weight = counts[ranking.image[d]!]!;
    if (outcome[d] === TRUE) hits += weight;
    else if (outcome[d] === FALSE) misses += weight;
    recall.push(hits / truths);
    envelope.push(hits / (hits + misses + Number.EPSILON));
  }
  for (let d = envelope.length - 1; d > 0; d--) {
    envelope[d - 1] = Math.max(envelope[d - 1]!, envelope[d]!);
  }
  let at = 0, sum = 0;
  for (const least of RECALLS) {
    while (at < recall.length && recall[at]! < least) at++;
    if (at === recall.length) break; // precision 0 from here
    sum += envelope[at]!;
  }
  return { precision: sum / RECALLS.length, recall: recall.at(-1) ?? 0 };
}

function mean(list: readonly number[]): number {
  return list.reduce((a, b) => a + b, 0) / list.length; // NaN of none
}
