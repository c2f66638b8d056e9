/** Attention maps: that they are the attention, and that their pictures show them. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  type AttentionMap,
  type AttentionStep,
  blended,
  meanMaps,
} from "../../pipeline/attention_maps.ts";
import {
  type AttentionFrame,
  attentionPicture,
  attentionSheet,
} from "../../pipeline/attention_picture.ts";
import { open } from "../../pipeline/model.ts";
import { rasterize } from "../../pipeline/raster.ts";
import type { GenerateRequest } from "../../pipeline/request.ts";
import { rand } from "../compare.ts";

const MIDDLE = "mid_block.attentions.0.transformer_blocks.0.attn2";
const LAST = "up_blocks.1.attentions.1.transformer_blocks.0.attn2";

test("meanMaps() averages probabilities of sites of one grid, region by region", () => {
  const random = (seed: number) =>
    rand(seed, 2 * 6).map((v) => (v + 1.01) / 2.02);
  const sites = [1, 2, 3].map(random);
  const maps = meanMaps(
    sites.map((p) => ({
      shape: [1, 1, 2, 2, 3],
      logProbs: Float64Array.from(p, Math.log),
    })),
  );
  assert.deepEqual(maps.map(({ width, height }) => [width, height]), [[3, 2], [
    3,
    2,
  ]]);
  maps.forEach(({ values }, region) =>
    values.forEach((v, u) => {
      const mean = sites.reduce((sum, p) => sum + p[region * 6 + u]!, 0) / 3;
      assert.ok(Math.abs(v - mean) < 1e-6, `${region} ${u}: ${v}, ${mean}`);
    })
  );
});

test("meanMaps() blends coarse sites up to the finest grid", () => {
  // A ramp stays a ramp between the outermost centres.
  const ramp = (n: number) => ({
    shape: [1, 1, 1, n, n],
    logProbs: Float64Array.from(
      { length: n * n },
      (_, i) => Math.log((i % n + 0.5) / n),
    ),
  });
  const [map] = meanMaps([ramp(4), ramp(8)]);
  assert.equal(map!.width, 8);
  for (let x = 1; x < 7; x++) {
    assert.ok(Math.abs(map!.values[x]! - (x + 0.5) / 8) < 1e-6, `${x}`);
  }
  assert.equal(blended([1, 2, 3, 4], 2, 2, 0.5, 0.5), 2.5);
  assert.equal(blended([1, 2, 3, 4], 2, 2, 0, 1), 3);
});

test("onAttention tells the attention that the energy measures, and changes no pixel", async () => {
  await using model = await open("tiny-scenes", { backend: "cpu" });
  const box = [0, 0.25, 0.5, 1] as const;
  const request = (site: string): GenerateRequest => ({
    prompt: "a red car on grass",
    regions: [
      { phrase: "red car", boxes: [box] },
      { phrase: "grass", boxes: [[0, 0.5, 1, 1]] },
    ],
    width: 64,
    height: 32,
    steps: 2,
    // One map per phrase and site, so that its share can be taken from the map.
    guidance: {
      steps: 1,
      iterations: 1,
      heads: "mean_map",
      tokens: "mean_map",
      sites: [site],
    },
  });
  for (const [site, grid] of [[MIDDLE, [4, 2]], [LAST, [8, 4]]] as const) {
    const told: AttentionStep[] = [];
    const order: string[] = [];
    const { rgb } = await model.generate(request(site), {
      onStep: ({ step }) => void order.push(`step ${step}`),
      onAttention: async (step) => {
        order.push(`attention ${step.step}`);
        const { width, height } = await step.preview();
        assert.deepEqual([width, height], [64, 32]);
        told.push(step);
      },
    });
    assert.deepEqual(order, ["step 1", "attention 1", "step 2", "attention 2"]);
    assert.deepEqual(told.map(({ guided }) => guided), [true, false]);
    for (const { maps } of told) {
      assert.deepEqual(maps.map((m) => m.phrase), ["red car", "grass"]);
      const { width, height, values, share } = maps[0]!;
      assert.deepEqual([width, height], grid);
      assert.ok(values.every((v) => v > 0 && v < 1));
      const mask = rasterize(box, width, height);
      const all = values.reduce((a, b) => a + b);
      const inside = values.reduce((sum, v, u) => sum + v * mask[u]!, 0);
      assert.ok(Math.abs(inside / all - share) < 1e-5, `${inside / all}`);
    }
    assert.deepEqual((await model.generate(request(site))).rgb, rgb);
  }
  const none: AttentionStep[] = [];
  await model.generate(
    { prompt: "a car", width: 32, height: 32, steps: 1 },
    { onAttention: (step) => void none.push(step) },
  );
  assert.deepEqual(none.map(({ maps }) => maps), [[]]);
});

const PICTURE = {
  rgb: new Uint8Array(32 * 16 * 3).fill(100),
  width: 32,
  height: 16,
};
/** All attention at the left. */
const MAP: AttentionMap = {
  phrase: "red car",
  width: 4,
  height: 2,
  values: Float32Array.from([0.8, 0, 0, 0, 0.8, 0, 0, 0]),
  share: 0.75,
};
const frame = (step: number): AttentionFrame => ({
  step,
  steps: 20,
  seed: 0,
  timestep: 1000 - step,
  guided: step < 3,
  maps: [MAP, { ...MAP, phrase: "a phrase" }],
  picture: PICTURE,
});
const SHAPE = { boxes: [[0.5, 0.25, 1, 1]] as const };

test("attentionPicture() is bright where attention is, and outlines the region", () => {
  const { rgb, width } = attentionPicture(frame(1), MAP, SHAPE);
  const at = (x: number, y: number) => [
    ...rgb.subarray((y * width + x) * 3, (y * width + x) * 3 + 3),
  ];
  const light = (x: number, y: number) => at(x, y).reduce((a, b) => a + b);
  const [margin, side] = [8, 512]; // of the picture on its sheet
  assert.ok(
    light(margin + 20, 100) > light(margin + side / 4 + 64, 100) + 100,
    "no heat",
  );
  assert.deepEqual(at(margin + side / 2 + 1, margin + 128), [86, 220, 255]);
});

test("attentionSheet() has a column per step, at most eight, and a row per region", () => {
  const shapes = [SHAPE, SHAPE];
  const of = (count: number) =>
    attentionSheet(
      Array.from({ length: count }, (_, i) => frame(i + 1)),
      shapes,
    );
  const [one, two, eight, twenty] = [1, 2, 8, 20].map(of);
  const column = two!.width - one!.width;
  assert.equal(eight!.width - one!.width, 7 * column);
  assert.deepEqual(twenty!.width, eight!.width);
  const single = attentionSheet(
    [{ ...frame(1), maps: [MAP] }],
    shapes.slice(0, 1),
  );
  assert.ok(single.height < one!.height);
});
