/** Attention maps: that they are the attention, and that their pictures show them. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { Cpu } from "../../kernels/cpu.ts";
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
import {
  ENERGY_DEFAULTS,
  LayoutEnergy,
  type Subject,
} from "../../pipeline/energy.ts";
import { open } from "../../pipeline/model.ts";
import { rasterize } from "../../pipeline/raster.ts";
import type { GenerateRequest } from "../../pipeline/request.ts";
import { rand } from "../compare.ts";

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

test("a map's share in a box is the share that the energy measures", async () => {
  using backend = new Cpu();
  const subjects: Subject[] = [
    { name: "red car", tokens: [1, 2], boxes: [[0, 0.25, 0.5, 1]] },
    { name: "grass", tokens: [4], boxes: [[0, 0.5, 1, 1]] },
  ];
  // One map per phrase and site, so that its share can be taken from the map.
  using energy = new LayoutEnergy(backend, subjects, ["site"], [64, 32], {
    ...ENERGY_DEFAULTS,
    heads: "mean_map",
    tokens: "mean_map",
  });
  const logs = rand(3, 2 * 3 * 32).map((v) => Math.log((v + 1.01) / 2.02));
  using logProbs = backend.upload(logs, [1, 2, 3, 4, 8]);
  using told = energy.mapsOf(logProbs);
  using reduced = energy.reduce(logProbs.retain());
  const { h, terms } = energy.evaluate(reduced, 0);
  const [values, numbers] = await backend.read([told, terms]);
  h.dispose();
  terms.dispose();
  const measured = energy.report([numbers!], 0).subjects;
  const maps = meanMaps([{ shape: told.shape, logProbs: values! }]);
  maps.forEach(({ width, height, values }, i) => {
    assert.deepEqual([width, height], [8, 4]);
    const mask = rasterize(subjects[i]!.boxes[0]!, width, height);
    const all = values.reduce((a, b) => a + b);
    const inside = values.reduce((sum, v, u) => sum + v * mask[u]!, 0);
    const { share } = measured[i]!;
    assert.ok(
      Math.abs(inside / all - share) < 1e-6,
      `${inside / all} ${share}`,
    );
  });
});

test("onAttention tells maps and shares step by step, and changes no pixel", async () => {
  await using model = await open("tiny-scenes", { backend: "cpu" });
  const request: GenerateRequest = {
    prompt: "a red car on grass",
    regions: [
      { phrase: "red car", boxes: [[0, 0.25, 0.5, 1]] },
      { phrase: "grass", boxes: [[0, 0.5, 1, 1]] },
    ],
    width: 64,
    height: 32,
    steps: 2,
    guidance: { steps: 1, iterations: 1 },
  };
  const told: AttentionStep[] = [];
  const shares: (readonly number[])[] = [];
  const order: string[] = [];
  const { rgb } = await model.generate(request, {
    onStep: ({ step, regionShares }) => {
      order.push(`step ${step}`);
      shares.push(regionShares);
    },
    onAttention: async (step) => {
      order.push(`attention ${step.step}`);
      const { width, height } = await step.preview();
      assert.deepEqual([width, height], [64, 32]);
      told.push(step);
    },
  });
  assert.deepEqual(order, ["step 1", "attention 1", "step 2", "attention 2"]);
  assert.deepEqual(told.map(({ guided }) => guided), [true, false]);
  told.forEach(({ maps }, i) => {
    assert.deepEqual(maps.map((m) => m.phrase), ["red car", "grass"]);
    assert.deepEqual(maps.map((m) => m.share), shares[i]);
    for (const { width, height, values } of maps) {
      assert.deepEqual([width, height], [8, 4]); // the finest of the sites
      assert.ok(values.every((v) => v > 0 && v < 1));
    }
  });
  assert.deepEqual((await model.generate(request)).rgb, rgb);
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
