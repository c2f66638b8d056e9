/** Scored pictures of several methods -> a row of numbers with error bars for each. */
import {
  basicInterval,
  type Interval,
  normalInterval,
  percentileInterval,
  resamples,
} from "./bootstrap.ts";
import { CocoEvaluation } from "./coco.ts";
import type { Found } from "./detector.ts";
import { type FeatureReference, FrechetReference } from "./frechet.ts";
import type { ThingScore } from "./score.ts";
import { uniform } from "./uniform.ts";

/** A picture and what was measured of it. */
export interface ScoredPicture {
  /** Name of the layout. */
  readonly layout: string;
  /** Name of the method. */
  readonly variant: string;
  /** One per box; missing without a detector. */
  readonly things?: readonly ThingScore[];
  /** All detections; missing without a detector. */
  readonly found?: readonly Found[];
  /** Pooled features, where the detector gives them. */
  readonly features?: Float64Array;
  /** Share of each phrase's attention in its boxes, where it was measured. */
  readonly shares?: readonly number[];
  /** Wall clock of its making. */
  readonly seconds: number;
}

/** What is measured, in the order of the table. */
export const METRICS = {
  ap: "AP",
  ap50: "AP50",
  ar: "AR",
  iou: "mean IoU",
  hit: "IoU >= .5",
  centred: "centre in box",
  present: "found",
  share: "attention in box",
  frechet: "Frechet",
  seconds: "s/image",
} as const;

/** One of `METRICS`. */
export type Metric = keyof typeof METRICS;

/** A method's row. */
export interface VariantSummary {
  /** Its name. */
  readonly variant: string;
  /** How many pictures. */
  readonly images: number;
  /** Each number with its interval over layouts; NaN where it was not measured. */
  readonly scores: Readonly<Record<Metric, Interval>>;
  /** Each number minus that of the method it is compared with, paired over layouts. */
  readonly differences: Readonly<Record<Metric, Interval>>;
}

/** All rows. */
export interface Summary {
  /** In the order given. */
  readonly variants: readonly VariantSummary[];
  /** The method of the differences. */
  readonly against: string;
  /** How many layouts there are. */
  readonly layouts: number;
  /** Frechet distance of as many real pictures: mean and 95 % of random subsets. */
  readonly real: (Interval & { readonly images: number }) | undefined;
}

/** How a summary is made. */
export interface SummaryOptions {
  /** Rows in this order. */
  readonly variants: readonly string[];
  /** The method of the differences. Default the first. */
  readonly against?: string | undefined;
  /** For the Frechet distance. */
  readonly reference?: FeatureReference | undefined;
}

const RESAMPLES = 1000;
const FRECHET_RESAMPLES = 200; // a standard deviation needs no more
const SEED = 95;
const NAMES = Object.keys(METRICS) as Metric[];

type Scores = Record<Metric, number>;

/**
 * Sums up.
 *
 * @param pictures Of every method for the same layouts, equally many each.
 */
export function summarise(
  pictures: readonly ScoredPicture[],
  { variants, against = variants[0]!, reference }: SummaryOptions,
): Summary {
  const layouts = [...new Set(pictures.map(({ layout }) => layout))];
  const draws = resamples(layouts.length, RESAMPLES, SEED);
  const frechet = reference && new FrechetReference(reference);
  const tables = new Map(variants.map((variant) => {
    const own = pictures.filter((p) => p.variant === variant);
    const measure = measurer(own, layouts, frechet);
    return [variant, {
      images: own.length,
      value: measure(undefined, true),
      resampled: draws.map((draw, i) => measure(draw, i < FRECHET_RESAMPLES)),
    }];
  }));
  const base = tables.get(against);
  if (base === undefined) {
    throw new RangeError(
      `Cannot compare with ${JSON.stringify(against)}: it must be one of ${
        variants.join(", ")
      }`,
    );
  }
  const interval = (
    metric: Metric,
    of: (scores: Scores, base: Scores) => number,
    table: typeof base,
    least: 0 | -1,
  ): Interval => {
    // Of one layout there is nothing to resample.
    const list = layouts.length < 2
      ? []
      : table.resampled.map((scores, i) => of(scores, base.resampled[i]!));
    const value = of(table.value, base.value);
    if (metric === "frechet") return normalInterval(value, list);
    return metric === "ap" || metric === "ap50"
      ? basicInterval(value, list, [least, 1])
      : percentileInterval(value, list);
  };
  const images = Math.max(0, ...[...tables.values()].map((t) => t.images));
  return {
    variants: [...tables].map(([variant, table]) => ({
      variant,
      images: table.images,
      scores: record((m) => interval(m, (scores) => scores[m], table, 0)),
      differences: record((m) =>
        interval(m, (scores, other) => scores[m] - other[m], table, -1)
      ),
    })),
    against,
    layouts: layouts.length,
    real: frechet && realDistance(frechet, reference!, images),
  };
}

/** A function from weights of layouts to all numbers of a method. */
function measurer(
  pictures: readonly ScoredPicture[],
  layouts: readonly string[],
  frechet: FrechetReference | undefined,
): (draw: ArrayLike<number> | undefined, distance: boolean) => Scores {
  const unit = pictures.map(({ layout }) => layouts.indexOf(layout));
  const seen = pictures.every(({ found, things }) => found && things);
  const coco = seen
    ? new CocoEvaluation(pictures.map(({ found, things }) => ({
      truths: things!.map(({ kind, box }) => ({ category: kind, box })),
      found: found!.map(({ kind, box, score }) => ({
        category: kind,
        box,
        score,
      })),
    })))
    : undefined;
  const far = frechet && pictures.every(({ features }) => features)
    ? frechet.distances(pictures.map(({ features }) => features!))
    : undefined;
  const things = sumsOf<ThingScore>((p) => p.things, pictures);
  const shares = sumsOf<number>((p) => p.shares, pictures);
  const [hit, centred, present, iou] = [
    things((t) => Number(t.iou >= 0.5)),
    things((t) => Number(t.centred)),
    things((t) => Number(t.present)),
    things((t) => t.iou),
  ];
  const share = shares((x) => x);
  const seconds = sumsOf<number>((p) => [p.seconds], pictures)((x) => x);
  return (draw, distance) => {
    const weights = draw && unit.map((i) => draw[i]!);
    const { ap = NaN, ap50 = NaN, ar = NaN } = coco?.scores(weights) ?? {};
    return {
      ap,
      ap50,
      ar,
      iou: iou(weights),
      hit: hit(weights),
      centred: centred(weights),
      present: present(weights),
      share: share(weights),
      frechet: far && distance ? far(weights) : NaN,
      seconds: seconds(weights),
    };
  };
}

/** Makes weighted means over all items of all pictures; NaN where a picture has none measured. */
function sumsOf<T>(
  items: (picture: ScoredPicture) => readonly T[] | undefined,
  pictures: readonly ScoredPicture[],
): (of: (item: T) => number) => (weights?: readonly number[]) => number {
  return (of) => {
    const sums = pictures.map((p) =>
      items(p)?.reduce((sum, item) => sum + of(item), 0) ?? NaN
    );
    const counts = pictures.map((p) => items(p)?.length ?? 0);
    return (weights) => {
      let sum = 0, count = 0;
      for (let i = 0; i < sums.length; i++) {
        const weight = weights?.[i] ?? 1;
        if (weight === 0) continue;
        sum += weight * sums[i]!;
        count += weight * counts[i]!;
      }
      return sum / count;
    };
  };
}

/**
 * How far real pictures are from the reference when there are only `images` of them. Subsets of a limited
 * number overlap, so that their spread is widened to that of separate draws; of all of them there is none.
 */
function realDistance(
  frechet: FrechetReference,
  { features }: FeatureReference,
  images: number,
): Interval & { readonly images: number } {
  const count = Math.min(images, features.length);
  const far = frechet.distances(features);
  const next = uniform(SEED);
  const list = Array.from({ length: FRECHET_RESAMPLES }, () => {
    const order = features.map((_, i) => [next(), i] as const)
      .sort((a, b) => a[0] - b[0]);
    const weights = new Uint8Array(features.length);
    for (const [, i] of order.slice(0, count)) weights[i] = 1;
    return far(weights);
  });
  const value = list.reduce((a, b) => a + b, 0) / list.length;
  const { low, high } = percentileInterval(value, list);
  const widen = 1 / Math.sqrt(1 - count / features.length);
  const from = (end: number): number =>
    count === features.length ? NaN : value + (end - value) * widen;
  return { images: count, value, low: from(low), high: from(high) };
}

function record<T>(of: (metric: Metric) => T): Record<Metric, T> {
  return Object.fromEntries(NAMES.map((m) => [m, of(m)])) as Record<Metric, T>;
}
