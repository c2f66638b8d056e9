/** Error bars, scores of single things, the summary, random layouts and contact sheets. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  basicInterval,
  normalInterval,
  percentileInterval,
  resamples,
} from "../../../pipeline/evaluate/bootstrap.ts";
import { contactSheet } from "../../../pipeline/evaluate/contact_sheet.ts";
import type { Found } from "../../../pipeline/evaluate/detector.ts";
import { momentsOf } from "../../../pipeline/evaluate/frechet.ts";
import { intersection } from "../../../pipeline/evaluate/iou.ts";
import { randomLayouts } from "../../../pipeline/evaluate/random_layouts.ts";
import { scoreThings, wantedThings } from "../../../pipeline/evaluate/score.ts";
import {
  type ScoredPicture,
  summarise,
} from "../../../pipeline/evaluate/summary.ts";
import { checkLayout } from "../../../pipeline/layout.ts";
import type { Box } from "../../../pipeline/raster.ts";
import { rand } from "../../compare.ts";

const near = (a: number, b: number, within: number): void =>
  assert.ok(Math.abs(a - b) <= within, `${a}, expected ${b}`);

test("resamples() draws as many units as there are, the same for a seed", () => {
  const draws = resamples(40, 500, 3);
  assert.deepEqual(draws, resamples(40, 500, 3));
  assert.notDeepEqual(draws, resamples(40, 500, 4));
  const drawn = new Float64Array(40);
  for (const draw of draws) {
    assert.equal(draw.reduce((a, b) => a + b), 40);
    draw.forEach((n, i) => drawn[i]! += n);
  }
  // 500 binomial draws of mean 1 and variance 39/40: five standard deviations of their sum
  for (const n of drawn) near(n, 500, 5 * Math.sqrt(500));
});

test("intervals of a mean are those of the normal distribution", () => {
  const sample = rand(1, 200).map((x) => x * Math.sqrt(3)); // variance 1
  const mean = (weights: ArrayLike<number>): number =>
    sample.reduce((sum, x, i) => sum + x * weights[i]!, 0) / sample.length;
  const value = mean(new Uint8Array(200).fill(1));
  const list = resamples(200, 1000, 7).map(mean);
  const deviation = Math.sqrt(
    sample.reduce((sum, x) => sum + (x - value) ** 2, 0) / 200 / 200,
  );
  for (const interval of [percentileInterval, normalInterval]) {
    const { low, high } = interval(value, list);
    // an end of 1000 resamples has an error of about 0.1 standard deviations
    near(low, value - 1.96 * deviation, 0.3 * deviation);
    near(high, value + 1.96 * deviation, 0.3 * deviation);
  }
  const none = percentileInterval(3, []);
  assert.deepEqual([none.value, none.low, none.high], [3, NaN, NaN]);
  assert.deepEqual(percentileInterval(NaN, list).low, NaN);
});

const KNOWN = {
  kinds: ["car", "dog", "hot dog", "tree"],
  colours: ["red", "blue"],
};
const BOX: Box = [0.2, 0.2, 0.6, 0.6];
const region = (phrase: string) => ({ phrase, boxes: [BOX] });

test("wantedThings() finds kind and colour in a phrase", () => {
  const cases: readonly [string, string, string | undefined][] = [
    ["car", "car", undefined],
    ["a shiny red car", "car", "red"],
    ["Blue-red Tree", "tree", "red"],
    ["hot dog", "hot dog", undefined],
    ["car tree", "tree", undefined],
    ["dog in a blue car", "car", "blue"],
  ];
  for (const [phrase, kind, colour] of cases) {
    const [thing] = wantedThings([region(phrase)], KNOWN);
    assert.deepEqual([thing!.kind, thing!.colour], [kind, colour], phrase);
  }
  assert.equal(
    wantedThings([{ phrase: "car", boxes: [BOX, BOX] }], KNOWN).length,
    2,
  );
  assert.throws(
    () => wantedThings([region("red cart")], KNOWN),
    /Cannot score "red cart": it must name a kind that the detector knows, car, dog/,
  );
});

test("scoreThings() counts only the right kind, colour and confidence", () => {
  const wanted = wantedThings([region("red car"), region("tree")], KNOWN);
  const found = (
    kind: string,
    colour: string,
    score: number,
    box: Box,
  ): Found => ({
    kind,
    colour,
    score,
    box,
  });
  const score = (...list: Found[]) =>
    scoreThings(wanted, list, 0.3).map(({ present, centred, iou }) => [
      present,
      centred,
      Math.round(1000 * iou) / 1000,
    ]);
  const nothing = [false, false, 0];
  assert.deepEqual(score(), [nothing, nothing]);
  assert.deepEqual(score(found("car", "red", 0.9, BOX)), [
    [true, true, 1],
    nothing,
  ]);
  assert.deepEqual(
    score(found("car", "blue", 0.9, BOX), found("car", "red", 0.2, BOX)),
    [nothing, nothing],
  );
  assert.deepEqual(
    score(
      found("car", "red", 0.9, [0.5, 0.2, 0.9, 0.6]), // a third of the union... 1/7, centre outside
      found("tree", "blue", 0.4, [0.2, 0.2, 0.6, 0.4]),
    ),
    [[true, false, 0.143], [true, true, 0.5]],
  );
});

/** Pictures of two methods over layouts whose difficulty differs much more than the methods do. */
function pictures(layouts: number): ScoredPicture[] {
  const ease = rand(5, layouts);
  return Array.from({ length: 2 * layouts }, (_, i) => {
    const [layout, good] = [i >> 1, i % 2];
    const right = Math.min(1, 0.45 + 0.4 * ease[layout]! + 0.1 * good);
    const box: Box = [0.1, 0.1, 0.1 + 0.5 * right, 0.6];
    const wanted = wantedThings([{
      phrase: "car",
      boxes: [[0.1, 0.1, 0.6, 0.6]],
    }], KNOWN);
    const found = [{ kind: "car", score: 0.9, box }];
    return {
      layout: `l${layout}`,
      variant: good ? "good" : "bad",
      found,
      things: scoreThings(wanted, found, 0.3),
      features: Float64Array.from(rand(i, 3)),
      shares: [right],
      seconds: 1 + good,
    };
  });
}

test("summarise() pairs methods: a difference is surer than the scores", () => {
  const list = pictures(40);
  const { mean, covariance } = momentsOf(list.map((p) => p.features!), 3);
  const reference = {
    mean,
    covariance,
    features: list.map((p) => p.features!),
  };
  const options = { variants: ["bad", "good"], reference };
  const summary = summarise(list, options);
  assert.deepEqual(summary, summarise(list, options));
  const [bad, good] = summary.variants;
  assert.deepEqual([summary.against, summary.layouts, good!.images], [
    "bad",
    40,
    40,
  ]);
  const { iou: own } = good!.scores;
  const { iou: difference } = good!.differences;
  near(difference.value, 0.1, 1e-9);
  near(own.value - bad!.scores.iou.value, difference.value, 1e-12);
  assert.ok(difference.high - difference.low < 0.1 * (own.high - own.low));
  assert.ok(own.low < own.value && own.value < own.high);
  assert.deepEqual(bad!.differences.iou, { value: 0, low: 0, high: 0 });
  assert.equal(good!.scores.seconds.value, 2);
  const hits = list.filter((p) =>
    p.variant === "good" && p.things![0]!.iou >= 0.5
  );
  near(good!.scores.hit.value, hits.length / 40, 1e-12);
  assert.ok(good!.scores.ap.value < good!.scores.ap50.value);
  assert.ok(good!.scores.frechet.value > 0 && summary.real!.images === 40);
  assert.ok(summary.real!.low < summary.real!.value);
  const few = { ...reference, features: reference.features.slice(0, 40) };
  // Of all there are, there is no other choice, and so no spread.
  assert.ok(
    Number.isNaN(summarise(list, { ...options, reference: few }).real!.low),
  );
  assert.throws(
    () => summarise(list, { ...options, against: "other" }),
    /Cannot compare with "other": it must be one of bad, good/,
  );
});

test("summarise() leaves open what was not measured", () => {
  const bare = pictures(3).map(({ layout, variant, seconds, shares }, i) => ({
    layout,
    variant,
    seconds,
    ...(i === 0 ? {} : { shares: shares! }),
  }));
  const { variants: [bad, good], real } = summarise(bare, {
    variants: ["bad", "good"],
  });
  assert.equal(real, undefined);
  assert.ok(Number.isNaN(good!.scores.ap.value));
  assert.ok(Number.isNaN(bad!.scores.share.value)); // one is missing
  assert.ok(Number.isFinite(good!.scores.share.value));
  const [one] = summarise(pictures(1), { variants: ["bad", "good"] }).variants;
  assert.ok(Number.isFinite(one!.scores.iou.value));
  assert.ok(Number.isNaN(one!.scores.iou.low)); // one layout tells no spread
});

test("randomLayouts() are layouts, and those of a smaller number come first", () => {
  const list = randomLayouts(30, 9);
  assert.deepEqual(randomLayouts(10, 9), list.slice(0, 10));
  assert.notDeepEqual(randomLayouts(10, 8), list.slice(0, 10));
  list.forEach(({ prompt, regions }, i) => {
    assert.equal(regions.length, 1 + i % 3);
    assert.deepEqual(checkLayout(regions).notes, []);
    for (const { phrase, boxes } of regions) {
      assert.ok(prompt.includes(phrase));
      for (const other of regions) {
        if (other.phrase === phrase) continue;
        assert.ok(intersection(boxes[0]!, other.boxes[0]!) < 0.03);
      }
    }
  });
  // As it was when the README's numbers were made.
  assert.equal(
    randomLayouts(2, 2026)[1]!.prompt,
    "a yellow cat and a blue house in the desert",
  );
});

test("contactSheet() shows every picture in its place", () => {
  const flat = (width: number, height: number, value: number) => ({
    rgb: new Uint8Array(3 * width * height).fill(value),
    width,
    height,
  });
  const cell = (value: number, width = 8, height = 8) => ({
    picture: flat(width, height, value),
    boxes: [],
    caption: "c",
  });
  const sheet = contactSheet(["one", "two"], [
    { title: "a", text: "first", cells: [cell(10), cell(20)] },
    { title: "b", text: "second", cells: [undefined, cell(30, 100, 40)] },
  ], { side: 50 });
  // 8 pixels grow to 48, 100 shrink to 50.
  const places = new Map<number, number[]>();
  for (let i = 0; i < sheet.width * sheet.height; i++) {
    const value = sheet.rgb[3 * i]!;
    const [x, y] = [i % sheet.width, Math.floor(i / sheet.width)];
    const old = places.get(value) ?? [x, y, x, y];
    places.set(value, [
      Math.min(old[0]!, x),
      Math.min(old[1]!, y),
      Math.max(old[2]!, x + 1),
      Math.max(old[3]!, y + 1),
    ]);
  }
  const size = (value: number): number[] => {
    const [x0, y0, x1, y1] = places.get(value)!;
    return [x1! - x0!, y1! - y0!];
  };
  assert.deepEqual([10, 20, 30].map(size), [[48, 48], [48, 48], [50, 20]]);
  const [a, b, c] = [10, 20, 30].map((value) => places.get(value)!);
  assert.equal(a![1], b![1]); // one row
  assert.equal(b![0], c![0]); // one column
  assert.ok(b![0]! > a![2]! && c![1]! > a![3]!);
  assert.throws(
    () => contactSheet(["one"], [{ title: "", text: "", cells: [] }]),
    /there must be rows with a cell for each of 1 columns/,
  );
  assert.throws(() => contactSheet(["one"], []), /current 0 rows/);
});

test("an interval of a number that resampling raises lies lower, inside its range", () => {
  const noise = rand(3, 1000);
  const raised = (by: number) => [...noise].map((x) => 0.5 + by + 0.05 * x);
  const at = { ...basicInterval(0.5, raised(0), [0, 1]) };
  const up = { ...basicInterval(0.5, raised(0.1), [0, 1]) };
  near(up.low, at.low - 0.1, 1e-9);
  near(up.high, at.high - 0.1, 1e-9);
  const edge = basicInterval(0.01, raised(0).map((x) => x - 0.45), [0, 1]);
  assert.equal(edge.low, 0);
  assert.ok(Number.isNaN(basicInterval(0.5, [], [0, 1]).low));
});
