/** Whole guided pictures with every sampler. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { readPngText, REQUEST_KEY, SCHEDULER_TITLES } from "../../mod.ts";
import { open } from "../../pipeline/model.ts";
import { SCHEDULERS } from "../../pipeline/scheduler.ts";
import { testBackend } from "../backend.ts";

for (const scheduler of SCHEDULERS) {
  test(`guidance works with ${scheduler}, and its PNG paints the same again`, async () => {
    const backend = await testBackend();
    using model = await open("tiny-scenes", { backend });
    const request = {
      prompt: "a red car and a blue house on grass",
      regions: [
        { phrase: "red car", boxes: [[0.06, 0.5, 0.5, 0.94]] },
        { phrase: "blue house", boxes: [[0.56, 0.06, 0.94, 0.5]] },
      ],
      width: 64,
      height: 64,
      seed: 3,
      steps: 5,
      scheduler,
      guidance: { steps: 2, iterations: 2, snr: 0.15 },
    } as const;
    const first = await model.generate(request);
    const inner = first.report.steps.flatMap((step) => step.inner);
    assert.equal(inner.length, 4);
    assert.ok(
      inner.at(-1)!.energy < inner[0]!.energy,
      `energy ${inner.map(({ energy }) => energy)}`,
    );
    const texts = readPngText(first.png);
    assert.match(
      texts.get("parameters")!,
      new RegExp(
        `Sampler: ${SCHEDULER_TITLES[scheduler].replace(/\+/g, "\\+")},`,
      ),
    );
    const again = await model.generate(JSON.parse(texts.get(REQUEST_KEY)!));
    assert.deepEqual(again.rgb, first.rgb);
    assert.deepEqual(again.png, first.png);
    const { rgb } = await model.generate({
      ...request,
      guidance: { method: "none" },
    });
    assert.notDeepEqual(rgb, first.rgb);
  });
}

test("spacing chooses the timesteps of a run, and goes into the PNG", async () => {
  const backend = await testBackend();
  using model = await open("tiny-scenes", { backend });
  const run = async (more: object) => {
    const request = {
      prompt: "a red car",
      width: 32,
      height: 32,
      steps: 4,
      guidance: { method: "none" },
      ...more,
    } as const;
    const { report, png } = await model.generate(request);
    const full = JSON.parse(readPngText(png).get(REQUEST_KEY)!);
    return [report.steps.map(({ timestep }) => timestep), full.spacing];
  };
  // The model's config has leading with offset 1.
  assert.deepEqual(await run({}), [[751, 501, 251, 1], undefined]);
  assert.deepEqual(await run({ spacing: "trailing" }), [
    [999, 749, 499, 249],
    "trailing",
  ]);
  assert.deepEqual(await run({ spacing: "linspace", scheduler: "euler" }), [
    [999, 666, 333, 0],
    "linspace",
  ]);
});
