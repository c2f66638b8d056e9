/** `generate` on the cpu backend: what it writes and what it says. */
import { strict as assert } from "node:assert";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { decodePng, generateInWorkers, readPngText } from "../../mod.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { filesIn, run, runChild } from "./harness.ts";

const FAST = ["--backend", "cpu", "--size", "64", "--steps", "2"];
const GUIDED = ["--guided-steps", "1", "--iterations", "1"];
const CAR = [
  "generate",
  "--prompt",
  "a red car on grass",
  "--box",
  "red car=0,0.2,0.6,1",
];

async function rgbOf(path: string): Promise<Uint8Array> {
  return decodePng(await readFile(path)).rgb;
}

test("generate writes a PNG and its overlay, and --from gives the same pixels", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  const first = await run([
    ...CAR,
    ...FAST,
    ...GUIDED,
    "--seed",
    "5",
    "--overlay",
    "-o",
    at("a.png"),
  ]);
  assert.deepEqual([first.code, first.out], [0, [
    at("a.png"),
    at("a.boxes.png"),
  ]], first.err.join("\n"));
  assert.match(
    first.err.join("\n"),
    /^step 2\/2.*\nseed 5; attention in its box: red car \d+ %; [\d.]+ s on cpu/,
  );
  const { width, height } = decodePng(await readFile(at("a.png")));
  assert.deepEqual([width, height], [64, 64]);
  const overlay = decodePng(await readFile(at("a.boxes.png")));
  assert.deepEqual([overlay.width, overlay.height], [512, 512]);
  const box = 512 * (Math.round(0.2 * 512) + 20) * 3; // left edge of the box
  assert.deepEqual([...overlay.rgb.subarray(box, box + 3)], [230, 159, 0]);

  const again = await run([
    "generate",
    "--from",
    at("a.png"),
    "--backend",
    "cpu",
    "-o",
    at("b.png"),
  ]);
  assert.equal(again.code, 0, again.err.join("\n"));
  assert.deepEqual(await rgbOf(at("b.png")), await rgbOf(at("a.png")));

  const other = await run([
    "generate",
    "--from",
    at("a.png"),
    "--backend",
    "cpu",
    "--seed",
    "6",
    "--method",
    "none",
    "--box",
    "grass=0,0,1,1",
    "-o",
    at("c.png"),
  ]);
  assert.equal(other.code, 0, other.err.join("\n"));
  const request = JSON.parse(
    readPngText(await readFile(at("c.png"))).get("winwinlay")!,
  );
  assert.deepEqual([request.seed, request.steps, request.guidance], [6, 2, {
    method: "none",
  }]);
  assert.deepEqual(request.regions, [{
    phrase: "grass",
    boxes: [[0, 0, 1, 1]],
  }]);
  assert.deepEqual(await filesIn(folder.path), [
    "a.boxes.png",
    "a.png",
    "b.png",
    "c.png",
  ]);
});

test("generate --json prints a line per step and a last one, --count one run per seed", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  const { code, out, err } = await run([
    ...CAR,
    ...FAST,
    "--method",
    "none",
    "--seed",
    "3",
    "--count",
    "2",
    "--json",
    "-o",
    at("a.png"),
  ]);
  assert.equal(code, 0, err.join("\n"));
  const lines = out.map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((line) => line.step ?? line.file), [
    1,
    2,
    at("a-1.png"),
    1,
    2,
    at("a-2.png"),
  ]);
  assert.deepEqual(
    lines.map((line) => line.seed),
    [3, 3, 3, 4, 4, 4],
  );
  assert.deepEqual(Object.keys(lines[0]), [
    "step",
    "seed",
    "timestep",
    "energy",
    "regionEnergies",
    "regionTerms",
    "regionShares",
  ]);
  assert.deepEqual([lines[0].energy, lines[0].regionEnergies], [null, null]);
  assert.equal(lines[0].regionShares.length, 1);
  assert.equal(lines[2].request.seed, 3);
  assert.equal(lines[2].report.steps.length, 2);
  assert.deepEqual(await filesIn(folder.path), ["a-1.png", "a-2.png"]);
  assert.notDeepEqual(await rgbOf(at("a-1.png")), await rgbOf(at("a-2.png")));
});

test("generate takes a layout file under the flags, and replaces only with --force", async () => {
  await using folder = await tempFolder({});
  const at = (name: string) => join(folder.path, name);
  await writeFile(
    at("layout.json"),
    JSON.stringify({
      prompt: "a red car on grass",
      regions: [{
        phrase: "car",
        boxes: [[-0.1, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]],
      }],
      steps: 1,
      width: 64,
      height: 32,
      seed: 9,
      guidance: { steps: 1, iterations: 1, snr: 0.2 },
    }),
  );
  const args = [
    "generate",
    "--layout",
    at("layout.json"),
    "--backend",
    "cpu",
    "--seed",
    "8",
    "--rho",
    "2,1",
    "-o",
    at("a.png"),
  ];
  const { code, err } = await run([...args, "--json"]);
  assert.equal(code, 0, err.join("\n"));
  assert.match(err[0]!, /^note: .*-0\.1/);
  const request = JSON.parse(
    readPngText(await readFile(at("a.png"))).get("winwinlay")!,
  );
  const { seed, steps, width, height, guidance, regions } = request;
  assert.deepEqual([seed, steps, width, height], [8, 1, 64, 32]);
  assert.deepEqual([guidance.steps, guidance.snr, guidance.rho], [1, 0.2, [
    2,
    1,
  ]]);
  assert.deepEqual(regions[0].boxes, [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]);
  assert.equal((await run(args)).code, 2);
  const forced = await run([...args, "--force"]);
  assert.equal(forced.code, 0, forced.err.join("\n"));
});

test("every option of the method reaches the request", async () => {
  await using folder = await tempFolder({});
  const path = join(folder.path, "a.png");
  const { code, err } = await run([
    ...CAR,
    ...FAST,
    "--guided-steps",
    "0",
    "--iterations",
    "2",
    "--snr",
    "0.3",
    "--rho",
    "3,1",
    "--rho-schedule",
    "constant",
    "--lambda",
    "2",
    "--units",
    "cells",
    "--distance",
    "scale_invariant",
    "--divergence",
    "reverse",
    "--heads",
    "mean_map",
    "--tokens",
    "last",
    "--reduction",
    "sum",
    "--priors",
    "union_mixture",
    "--raster",
    "coverage",
    "--sites",
    "first_up_only",
    "--score",
    "cfg",
    "--placement",
    "after_step",
    "--nu",
    "0.5",
    "--nu-factor",
    "2",
    "--noise",
    "never",
    "--noise-norm",
    "expected",
    "--guard",
    "0.2",
    "--stop-below",
    "0.1",
    "--energy",
    "aef",
    "--guidance",
    "update=backprop",
    "--guidance",
    "eta=3",
    "--energy-floor",
    "none",
    "--preset",
    "paper",
    "--negative",
    "blue",
    "--template",
    "A photo of {}",
    "--guidance-scale",
    "3",
    "-o",
    path,
  ]);
  assert.equal(code, 0, err.join("\n"));
  const request = JSON.parse(
    readPngText(await readFile(path)).get("winwinlay")!,
  );
  assert.deepEqual(request.guidance, {
    method: "winwinlay",
    energy: "aef",
    update: "backprop",
    eta: 3,
    lambda: 2,
    units: "cells",
    distance: "scale_invariant",
    divergence: "reverse",
    heads: "mean_map",
    tokens: "last",
    reduction: "sum",
    priors: "union_mixture",
    raster: "coverage",
    steps: 0,
    iterations: 2,
    snr: 0.3,
    rho: [3, 1],
    rhoSchedule: "constant",
    sites: "first_up_only",
    score: "cfg",
    placement: "after_step",
    nu: 0.5,
    nuFactor: 2,
    noise: "never",
    noiseNorm: "expected",
    guard: 0.2,
    stopBelow: 0.1,
    energyFloor: null,
  });
  assert.deepEqual([
    request.negativePrompt,
    request.template,
    request.guidanceScale,
  ], ["blue", "A photo of {}", 3]);
});

test("an interrupt ends generate with 130 and leaves no file", async () => {
  await using folder = await tempFolder({});
  const { code, out, err } = await runChild(
    [
      "generate",
      "--prompt",
      "a red car",
      ...FAST.slice(0, 4),
      "--steps",
      "500",
      "--json",
      "-o",
      "a.png",
    ],
    { cwd: folder.path, onLine: (kill) => kill("SIGINT") },
  );
  assert.equal(code, 130, err.join("\n"));
  assert.ok(out.length > 0 && out.length < 100, `${out.length} lines`);
  assert.deepEqual(err.at(-1), "winwinlay: interrupted");
  assert.deepEqual(await filesIn(folder.path), []);
});

test("an interrupt while both workers of the demo run leaves no file", async () => {
  await using folder = await tempFolder({});
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 1000);
  const { code, out } = await run([
    "demo",
    "--backend",
    "cpu",
    "-o",
    join(folder.path, "demo"),
  ], stop.signal);
  assert.deepEqual([code, out], [130, []]);
  assert.deepEqual(await filesIn(folder.path), []);
});

test("generateInWorkers() gives what generate gives, in order, and passes errors on", async () => {
  const request = {
    prompt: "a red car",
    width: 32,
    height: 32,
    steps: 1,
    guidance: { method: "none" },
  } as const;
  const steps: number[] = [];
  const results = await generateInWorkers("tiny-scenes", [request, {
    ...request,
    seed: 1,
  }], {
    onStep: (index) => steps.push(index),
  });
  assert.deepEqual(results.map((result) => result.request.seed), [0, 1]);
  assert.deepEqual(steps.toSorted(), [0, 1]);
  await using folder = await tempFolder({});
  const path = join(folder.path, "a.png");
  await run([
    "generate",
    "--prompt",
    "a red car",
    "--size",
    "32",
    "--steps",
    "1",
    "--backend",
    "cpu",
    "-o",
    path,
  ]);
  assert.deepEqual(await rgbOf(path), results[0]!.rgb);
  await assert.rejects(
    generateInWorkers("tiny-scenes", [{ ...request, steps: -1 }]),
    {
      name: "RangeError",
      message: /steps must be from 1/,
    },
  );
});
