/**
 * Time and memory of the embedded model, step by step.
 *
 *   deno task bench [--quick] [--backend webgpu|cpu] [--device native|dawn] [--json FILE]
 *
 * Prints a Markdown table with adapter and runtime. A step ends with a readback, so its time is what
 * a user waits. The first steps, which compile pipelines, are left out and reported as start-up.
 */
import { writeFile } from "node:fs/promises";
import os from "node:os";
import process from "node:process";
import { parseArgs } from "node:util";
import { type DeviceChoice, open } from "../mod.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    backend: { type: "string", default: "auto" },
    device: { type: "string" },
    json: { type: "string" },
  },
});

const start = performance.now();
await using model = await open("tiny-scenes", {
  backend: values.backend as "auto" | "webgpu" | "cpu",
  ...(values.device ? { device: values.device as DeviceChoice } : {}),
});
const openSeconds = (performance.now() - start) / 1000;

const regions = [
  { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
  { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
] as const;
const prompt = "a red car and a blue house on grass";
const { quick } = values;
const guided = quick ? 3 : 8;
const plain = quick ? 6 : 24;

/** Seconds of each step, and the most bytes held. */
async function run(
  steps: number,
  guidedSteps: number,
): Promise<
  {
    seconds: number[];
    peakBytes: number;
    decodePeakBytes: number;
    total: number;
  }
> {
  const seconds: number[] = [];
  let peakBytes = 0; // of the steps, before the decoder runs
  let last = performance.now();
  const { report } = await model.generate({
    prompt,
    regions,
    steps,
    guidance: guidedSteps ? { steps: guidedSteps } : { method: "none" },
  }, {
    onStep: () => {
      const now = performance.now();
      seconds.push((now - last) / 1000);
      peakBytes = model.backend.memory.peakBytes;
      last = now;
    },
  });
  return {
    seconds,
    peakBytes,
    decodePeakBytes: report.peakBytes,
    total: report.seconds,
  };
}

const cold = await run(1, 1); // compiles everything
const plainRun = await run(plain, 0);
const guidedRun = await run(guided, guided);
const decode = plainRun.total - plainRun.seconds.reduce((a, b) => a + b, 0);

const median = (list: readonly number[]): number =>
  list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]!;
const spread = (list: readonly number[]): string => {
  const sorted = list.toSorted((a, b) => a - b);
  return `${ms(sorted[0]!)} to ${ms(sorted.at(-1)!)}`;
};
const ms = (s: number): string => (1000 * s).toFixed(0);
const mb = (bytes: number): string => (bytes / 1e6).toFixed(0);

const result = {
  date: new Date().toISOString().slice(0, 10),
  backend: model.backend.description,
  runtime: `${
    process.versions.bun
      ? `bun ${process.versions.bun}`
      : `deno ${process.versions.deno}`
  }`,
  cpu: `${os.cpus()[0]?.model.trim()} x ${os.cpus().length}`,
  model: "tiny-scenes, latent 4x32x32, 2 regions, 4 sites",
  openSeconds,
  firstStepSeconds: cold.seconds[0]!,
  plainStepSeconds: plainRun.seconds.slice(1),
  guidedStepSeconds: guidedRun.seconds.slice(1),
  decodeSeconds: decode,
  plainPeakBytes: plainRun.peakBytes,
  guidedPeakBytes: guidedRun.peakBytes,
  decodePeakBytes: plainRun.decodePeakBytes,
};
console.log([
  `${result.backend}; ${result.runtime}; ${result.cpu}; ${result.date}`,
  "",
  "| | median ms | range ms | peak MB |",
  "| --- | ---: | ---: | ---: |",
  `| plain step (2 passes) | ${ms(median(result.plainStepSeconds))} | ${
    spread(result.plainStepSeconds)
  } | ${mb(result.plainPeakBytes)} |`,
  `| guided step (4 forward and backward passes, 2 passes) | ${
    ms(median(result.guidedStepSeconds))
  } | ${spread(result.guidedStepSeconds)} | ${mb(result.guidedPeakBytes)} |`,
  `| decode, PNG, text | ${ms(decode)} | | ${mb(result.decodePeakBytes)} |`,
  `| open | ${ms(openSeconds)} | | |`,
  `| first step (compiles) | ${ms(result.firstStepSeconds)} | | |`,
].join("\n"));
if (values.json) {
  await writeFile(values.json, JSON.stringify(result, null, 2) + "\n");
}
