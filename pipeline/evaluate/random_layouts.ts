/** Random layouts in the embedded model's vocabulary, the same for the same seed on every machine. */
import type { BoxedRegion } from "../layout.ts";
import type { Box } from "../raster.ts";
import { boxArea, intersection } from "./iou.ts";
import { uniform } from "./uniform.ts";

/** A prompt with regions. */
export interface Layout {
  /** What to paint. */
  readonly prompt: string;
  /** One box for each phrase. */
  readonly regions: readonly BoxedRegion[];
}

// Kinds with the width over height that they had in training.
const KINDS = {
  car: 1.85,
  boat: 1.05,
  fish: 1.6,
  house: 1,
  cat: 1.1,
  star: 1.05,
  apple: 0.92,
  tree: 0.62,
  flower: 0.6,
  mushroom: 0.98,
} as const;
const COLOURS = ["red", "orange", "yellow", "green", "blue", "purple"];
const PLACES = [
  "",
  "on grass",
  "at sea",
  "in the snow",
  "in the desert",
  "at night",
  "in a room",
];
const SIDES = [[0.4, 0.68], [0.32, 0.56], [0.27, 0.46]] as const; // by number of objects

/** `count` layouts of 1, 2, 3, 1, ... regions, with boxes of natural proportions that hardly overlap. */
export function randomLayouts(count: number, seed: number): Layout[] {
  const next = uniform(seed);
  return Array.from({ length: count }, (_, i) => layout(1 + i % 3, next));
}

function layout(objects: number, next: () => number): Layout {
  const pick = <T>(list: readonly T[]): T =>
    list[Math.floor(next() * list.length)]!;
  const kinds = shuffled(Object.keys(KINDS) as (keyof typeof KINDS)[], next)
    .slice(0, objects);
  const [low, high] = SIDES[objects - 1]!;
  let boxes: Box[] = [];
  while (boxes.length < objects) {
    boxes = [];
    for (const kind of kinds) {
      const side = low + (high - low) * next();
      const [w, h] = [
        Math.min(0.92, side * Math.sqrt(KINDS[kind])),
        Math.min(0.92, side / Math.sqrt(KINDS[kind])),
      ];
      const [x, y] = [0.01 + (0.98 - w) * next(), 0.01 + (0.98 - h) * next()];
      const box = [x, y, x + w, y + h].map((v) =>
        Math.round(v * 1000) / 1000
      ) as unknown as Box;
      if (boxes.every((other) => overlap(box, other) < 0.08)) boxes.push(box);
    }
  }
  const regions = kinds.map((kind, i): BoxedRegion => ({
    phrase: `${pick(COLOURS)} ${kind}`,
    boxes: [boxes[i]!],
  }));
  const phrases = shuffled(regions, next).map(({ phrase }) =>
    `${/^[aeiou]/.test(phrase) ? "an" : "a"} ${phrase}`
  );
  const last = phrases.pop()!;
  const list = phrases.length ? `${phrases.join(", ")} and ${last}` : last;
  return { prompt: `${list} ${pick(PLACES)}`.trim(), regions };
}

function shuffled<T>(list: readonly T[], next: () => number): T[] {
  return list.map((x) => [next(), x] as const).sort((a, b) => a[0] - b[0]).map((
    [, x],
  ) => x);
}

/** Intersection over the smaller area. */
function overlap(a: Box, b: Box): number {
  return intersection(a, b) / Math.min(boxArea(a), boxArea(b));
}
