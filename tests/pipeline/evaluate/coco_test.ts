/** Our evaluator against pycocotools, and its weights against images that are really there twice. */
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import {
  COCO_AREAS,
  CocoEvaluation,
  type CocoImage,
  type CocoScores,
} from "../../../pipeline/evaluate/coco.ts";
import type { Box } from "../../../pipeline/raster.ts";
import { rand } from "../../compare.ts";

interface Fixture {
  readonly sets: readonly {
    readonly images: readonly [
      truths: readonly [string, Box][],
      found: readonly [string, Box, number][],
    ][];
    readonly scores: Readonly<Record<string, number>>;
  }[];
}

const { sets }: Fixture = JSON.parse(
  await readFile(
    new URL("../../fixtures/evaluate/coco.json", import.meta.url),
    "utf8",
  ),
);

const imagesOf = ({ images }: Fixture["sets"][number]): CocoImage[] =>
  images.map(([truths, found]) => ({
    truths: truths.map(([category, box]) => ({ category, box })),
    found: found.map(([category, box, score]) => ({ category, box, score })),
  }));

/** Where pycocotools has -1, for nothing to find, we have NaN. */
const asTheirs = (x: number): number => Number.isNaN(x) ? -1 : x;

test("CocoEvaluation gives pycocotools' twelve numbers for every detection set", () => {
  assert.ok(sets.length >= 20);
  for (const [i, set] of sets.entries()) {
    const images = imagesOf(set);
    const all = new CocoEvaluation(images).scores();
    const at = (most: number): number =>
      new CocoEvaluation(images, { most }).scores().ar;
    const { small, medium, large } = COCO_AREAS;
    const [s, m, l] = [small, medium, large].map((area) =>
      new CocoEvaluation(images, { area }).scores()
    ) as [CocoScores, CocoScores, CocoScores];
    const ours: Record<string, number> = {
      ap: all.ap,
      ap50: all.ap50,
      ap75: all.ap75,
      apSmall: s.ap,
      apMedium: m.ap,
      apLarge: l.ap,
      ar1: at(1),
      ar10: at(10),
      ar100: all.ar,
      arSmall: s.ar,
      arMedium: m.ar,
      arLarge: l.ar,
    };
    for (const [name, theirs] of Object.entries(set.scores)) {
      const mine = asTheirs(ours[name]!);
      // Sums of at most a few thousand float64 terms: far below the promised 1e-6.
      assert.ok(
        Math.abs(mine - theirs) < 1e-12,
        `set ${i}, ${name}: ${mine}, pycocotools ${theirs}`,
      );
    }
  }
});

test("CocoEvaluation.scores() with weights is that of images taken so often", () => {
  let moved = 0;
  for (const [i, set] of sets.entries()) {
    // No ties: where equal scores come from two images, the order of images would matter.
    let count = 0;
    const images = imagesOf(set).map((image) => ({
      ...image,
      found: image.found.map((f) => ({ ...f, score: f.score + ++count / 1e6 })),
    }));
    const weights = Array.from(
      rand(i, images.length),
      (x) => Math.floor((x + 1) * 2),
    );
    const repeated = images.flatMap((image, j) =>
      Array<CocoImage>(weights[j]!).fill(image)
    );
    const evaluation = new CocoEvaluation(images);
    const weighted = evaluation.scores(weights);
    const real = new CocoEvaluation(repeated).scores();
    for (const key of ["ap", "ap50", "ap75", "ar"] as const) {
      const off = Math.abs(asTheirs(weighted[key]) - asTheirs(real[key]));
      assert.ok(off < 1e-12, `set ${i}, ${key}: ${off}`);
    }
    if (weighted.ap !== evaluation.scores().ap) moved++;
  }
  assert.ok(moved > 15, `${moved} sets moved`);
  assert.throws(
    () => new CocoEvaluation([]).scores([1]),
    /there must be a weight per image, 0: current 1/,
  );
});
