/** Best of n: the winner is the best by the score, and a single run of its seed gives its pixels. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { Cpu } from "../../kernels/cpu.ts";
import {
  BEST_OF_KEY,
  type Candidate,
  layoutScore,
  sampleBest,
  searchedRequest,
} from "../../pipeline/best_of.ts";
import { REQUEST_KEY } from "../../pipeline/metadata.ts";
import { open } from "../../pipeline/model.ts";
import { describeModel } from "../../pipeline/model_facts.ts";
import { readPngText } from "../../pipeline/png.ts";
import { checkRequest, type GenerateRequest } from "../../pipeline/request.ts";

const TINY: GenerateRequest = {
  prompt: "a red car on grass",
  regions: [{ phrase: "red car", boxes: [[0, 0, 0.5, 1]] }],
  width: 32,
  height: 32,
  steps: 2,
  seed: 5,
  guidance: { steps: 1, iterations: 1 },
};

test("layoutScore() is the weighted mean share of the last quarter of the steps", () => {
  const steps = [[1, 1], [1, 1], [1, 1], [1, 1], [1, 1], [1, 1], [0.5, 0], [
    0.3,
    0.2,
  ]].map((shares) => ({ shares }));
  const { score, shares } = layoutScore(steps, [3, 1]);
  assert.deepEqual(shares.map((v) => v.toFixed(9)), [
    "0.400000000",
    "0.100000000",
  ]);
  assert.ok(Math.abs(score - (3 * 0.4 + 0.1) / 4) < 1e-12);
  // Regions that push nothing still tell where they are.
  assert.ok(Math.abs(layoutScore(steps, [0, 0]).score - 0.25) < 1e-12);
  assert.equal(layoutScore(steps.slice(-1), [1, 1]).score, 0.25);
});

test("sampleBest() keeps one latent at a time, and frees all when a seed fails", async () => {
  using backend = new Cpu();
  const scores = [0.2, 0.5, 0.5, 0.1];
  const most: number[] = [];
  const sampleSeed = (seed: number) => {
    const latent = backend.upload([seed], [1]);
    most.push(backend.memory.liveBytes);
    return Promise.resolve({ latent, steps: [seed] });
  };
  const judge = ([seed]: readonly number[]): Candidate => ({
    seed: seed!,
    score: scores[seed!]!,
    shares: [],
  });
  const best = await sampleBest([0, 1, 2, 3], sampleSeed, judge);
  assert.deepEqual([best.seed, best.steps], [1, [1]]);
  assert.deepEqual(best.candidates.map(({ score }) => score), scores);
  const [one = 0] = most;
  assert.deepEqual(most, [one, 2 * one, 2 * one, 2 * one]);
  best.latent.dispose();
  assert.equal(backend.memory.liveBytes, 0);
  await assert.rejects(
    sampleBest([0, 1], (seed) => {
      if (seed === 1) throw new Error("lost");
      return sampleSeed(seed);
    }, judge),
    /lost/,
  );
  assert.equal(backend.memory.liveBytes, 0);
});

test("bestOf gives the picture of its best seed alone, and says how every seed did", async () => {
  await using model = await open("tiny-scenes", { backend: "cpu" });
  const told: Candidate[] = [];
  const seeds: number[] = [];
  const passes: string[] = [];
  const best = await model.generate({ ...TINY, bestOf: 3 }, {
    onCandidate: (candidate) => told.push(candidate),
    onStep: ({ seed }) => void seeds.push(seed),
    onPass: (done, total) => passes.push(`${done}/${total}`),
  });
  assert.deepEqual(seeds, [5, 5, 6, 6, 7, 7]);
  assert.deepEqual([passes.length, passes.at(-1)], [9, "9/9"]);
  const { candidates = [] } = best.report;
  assert.deepEqual(told, candidates);
  assert.deepEqual(candidates.map(({ seed }) => seed), [5, 6, 7]);
  const singles = [];
  for (const { seed } of candidates) {
    singles.push(await model.generate({ ...TINY, seed }));
  }
  for (const [i, { report }] of singles.entries()) {
    assert.equal(candidates[i]!.score, report.steps.at(-1)!.shares[0]);
  }
  assert.equal(new Set(candidates.map(({ score }) => score)).size, 3);
  const top = candidates.toSorted((a, b) => b.score - a.score)[0]!;
  const { request } = best;
  assert.equal(request.seed, top.seed);
  assert.ok(!("bestOf" in request));
  const single = singles[top.seed - 5]!;
  assert.deepEqual(best.rgb, single.rgb);
  assert.deepEqual(best.report.steps, single.report.steps);
  assert.ok(!("candidates" in single.report));

  const texts = readPngText(best.png);
  assert.equal(texts.get(REQUEST_KEY), JSON.stringify(request));
  assert.match(texts.get("parameters")!, new RegExp(`Seed: ${top.seed},`));
  assert.deepEqual(JSON.parse(texts.get(BEST_OF_KEY)!), candidates);
  assert.equal(
    JSON.stringify(searchedRequest({ ...request }, candidates)),
    JSON.stringify(model.check({ ...TINY, bestOf: 3 }).request),
  );
  await assert.rejects(
    model.generate({ ...TINY, bestOf: 2 }, {
      noise: {
        initial: () => assert.fail(),
        langevin: () => assert.fail(),
        ancestral: () => assert.fail(),
      },
    }),
    /Cannot paint the best of 2: noise must come from the seeds/,
  );
});

test("bestOf is a whole number, needs regions, and its seeds must be numbers", async () => {
  const { limits } = await describeModel("tiny-scenes");
  const cases: [object, RegExp][] = [
    [{ bestOf: 0 }, /bestOf must be from 1 to 1000: current 0/],
    [{ bestOf: 1.5 }, /bestOf must be a whole number/],
    [{ bestOf: "2" }, /bestOf must be a number/],
    [
      { bestOf: 2, regions: [] },
      /bestOf above 1 must come with regions.*current bestOf is 2/,
    ],
    [
      { bestOf: 3, seed: Number.MAX_SAFE_INTEGER - 1 },
      /the last of 3 seeds must be at most 9007199254740991/,
    ],
  ];
  for (const [more, message] of cases) {
    assert.throws(() => checkRequest({ ...TINY, ...more }, limits), message);
  }
  const { request } = checkRequest({ ...TINY, bestOf: 1 }, limits);
  assert.ok(!("bestOf" in request));
});
