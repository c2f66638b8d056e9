/** What a request says beyond its defaults, and what a model does with texts that are too long. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { CSG_DEFAULTS } from "../../pipeline/guidance/csg.ts";
import { checkForModel } from "../../pipeline/model_request.ts";
import { describeModel } from "../../pipeline/model_facts.ts";
import { checkPreset, checkRequest } from "../../pipeline/request.ts";

const facts = await describeModel("tiny-scenes");
const long = `a red car ${"and a blue house ".repeat(20)}and a green tree`;
const { limits } = facts;
const refused = (value: unknown, message: RegExp, xl = false) =>
  assert.throws(
    () => checkRequest(value, { ...limits, takesSizes: xl }),
    (error) => error instanceof Error && message.test(error.message),
  );

test("a prompt of more than 75 tokens is an error that says what falls off", () => {
  assert.throws(() => checkForModel({ prompt: long }, facts), {
    name: "RangeError",
    message:
      /must have at most 75 tokens: current \d+, so ".*green tree" falls off/,
  });
  assert.throws(
    () => checkForModel({ prompt: "a car", negativePrompt: long }, facts),
    /75 tokens/,
  );
});

test("truncate cuts prompts and says so, and a phrase that fell off is an error", () => {
  const prompt = { prompt: long, truncate: true };
  const box = [[0, 0, 0.5, 0.5]];
  const checked = checkForModel({
    ...prompt,
    regions: [{ phrase: "red car", boxes: box }],
  }, facts);
  assert.equal(checked.request.truncate, true);
  assert.equal(checked.notes.length, 1);
  assert.match(
    checked.notes[0]!,
    /the prompt was cut to 75 tokens: ".*green tree" fell off/,
  );
  // The same again, from the full request.
  assert.deepEqual(checkForModel(checked.request, facts), checked);
  assert.throws(
    () =>
      checkForModel({
        ...prompt,
        regions: [{ phrase: "green tree", boxes: box }],
      }, facts),
    /must be in the 75 tokens kept after truncation/,
  );
  const negative = checkForModel(
    { prompt: "a car", negativePrompt: long, truncate: true },
    facts,
  );
  assert.match(negative.notes[0]!, /the negative prompt was cut/);
  assert.deepEqual(
    checkForModel({ prompt: "a car", truncate: true }, facts).notes,
    [],
  );
  refused({ prompt: "x", truncate: 1 }, /truncate must be true or false/);
});

test("a request names its scheduler; ddim if it does not", () => {
  assert.equal(checkRequest({ prompt: "x" }, limits).request.scheduler, "ddim");
  const { request } = checkRequest(
    { prompt: "x", scheduler: "euler_a" },
    limits,
  );
  assert.equal(request.scheduler, "euler_a");
  refused(
    { prompt: "x", scheduler: "eular" },
    /scheduler must be ddim or .*did you mean "euler"/,
  );
});

test("a request may say how timesteps are spread; else the model does", () => {
  assert.ok(!("spacing" in checkRequest({ prompt: "x" }, limits).request));
  const { request } = checkRequest(
    { prompt: "x", spacing: "trailing" },
    limits,
  );
  assert.equal(request.spacing, "trailing");
  assert.deepEqual(checkRequest(request, limits).request, request);
  refused(
    { prompt: "x", spacing: "karras" },
    /spacing must be leading or trailing or linspace/,
  );
});

test("sizes that SDXL is told default to the picture's, and are an error elsewhere", () => {
  const xl = { ...limits, takesSizes: true };
  const { request } = checkRequest({ prompt: "x", width: 64, height: 96 }, xl);
  assert.deepEqual(
    [request.originalSize, request.cropTopLeft, request.targetSize],
    [[64, 96], [0, 0], [64, 96]],
  );
  const given = {
    originalSize: [512, 256],
    cropTopLeft: [8, 4],
    targetSize: [1024, 768],
  };
  const full = checkRequest({ prompt: "x", ...given }, xl).request;
  assert.deepEqual({ ...full, ...given }, full);
  assert.deepEqual(checkRequest(full, xl).request, full);
  refused(
    { prompt: "x", originalSize: [1] },
    /originalSize must be two whole numbers/,
    true,
  );
  refused(
    { prompt: "x", targetSize: [0, 5] },
    /targetSize must be from 1/,
    true,
  );
  refused(
    { prompt: "x", cropTopLeft: [1.5, 0] },
    /cropTopLeft must be a whole number/,
    true,
  );
  for (const [key, value] of Object.entries(given)) {
    refused(
      { prompt: "x", [key]: value },
      new RegExp(`${key} goes with SDXL models`),
    );
  }
  assert.equal(
    checkRequest({ prompt: "x" }, limits).request.originalSize,
    undefined,
  );
});

test("a method starts from its code's values, the model's own over them, and the paper's by name", () => {
  const guidance = (request: object) =>
    checkRequest({ prompt: "x", ...request }, limits).request.guidance;
  const own = guidance({ guidance: { method: "csg", iterations: 2 } });
  assert.deepEqual(own, {
    method: "csg",
    ...CSG_DEFAULTS,
    scale: 0.1,
    steps: 10,
    redistributeSteps: 10,
    iterations: 2,
  });
  assert.deepEqual(
    guidance({ preset: "paper", guidance: { method: "csg" } }),
    { method: "csg", ...CSG_DEFAULTS },
  );
  assert.deepEqual(guidance({ guidance: own }), own);
  refused(
    { prompt: "x", guidance: { method: "csg", snr: 1 } },
    /guidance: keys must be method, steps, .*current "snr"/,
  );
  const xl = { ...limits, unet: { ...facts.unet, added: {} } };
  const { request } = checkRequest(
    { prompt: "x", guidance: { method: "rnb" } },
    xl as typeof limits,
  );
  assert.equal(
    request.guidance.method === "rnb" && request.guidance.sites,
    "first_up_only",
  );
});

test("an empty prompt without regions is a request, also as it was filled in", () => {
  const { request } = checkRequest({ prompt: "" }, limits);
  assert.deepEqual(checkRequest(request, limits).request, request);
  refused({ prompt: " ", regions: [{}] }, /with regions must not be empty/);
});

test("what a model's preset file leaves out is the model's own, not the paper's", () => {
  const { presets: { paper } } = limits;
  const own = {
    ...paper,
    steps: 30,
    guidanceScale: 5,
    guidance: { ...paper.guidance, sites: "first_up_only" },
  } as const;
  const preset = checkPreset({ guidance: { snr: 0.1 } }, "x", own);
  assert.deepEqual(preset, {
    ...own,
    guidance: { ...own.guidance, snr: 0.1 },
    methods: {},
  });
});

test("one attention site may stand without a list", () => {
  const sites = "mid_block.attentions.0.transformer_blocks.0.attn2";
  const { guidance } =
    checkRequest({ prompt: "x", guidance: { sites } }, limits)
      .request;
  assert.deepEqual((guidance as { sites: unknown }).sites, [sites]);
});
