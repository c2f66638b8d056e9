/**
 * Full-size architectures without their weights: writes a random fp16 checkpoint, loads it, paints one
 * plain and one guided step, compares two runtimes, and says what pictures of the real size take.
 *
 *   deno task full-size [--models sd15,sdxl] [--sizes 128,256] [--folder out/full-size]
 *     [--kernels auto|software|gpu] [--json FILE]
 *
 * Needs 2.2 GB of disk for SD1.5 and 7 GB for SDXL. Prints Markdown. It runs on software adapters, so that
 * `auto` is `software`; `--models ""` with `--kernels gpu` only plans, for a GPU.
 */
import { createHash } from "node:crypto";
import { mkdir, open as openFile, readdir, writeFile } from "node:fs/promises";
import os from "node:os";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { type GenerateRequest, type MemoryEstimate, open } from "../mod.ts";
import { chooseFamily } from "../kernels/family.ts";
import { findBun, softwareEnv } from "../tests/machine.ts";
import { finished } from "./contender.ts";
import { openOptions } from "./flags.ts";
import { planFullSize } from "./full_plan.ts";
import type { FULL_CONFIGS } from "./full_configs.ts";
import { writeRandomCheckpoint } from "./random_checkpoint.ts";

type ModelName = keyof typeof FULL_CONFIGS;

/** What one runtime measured. */
interface Run {
  readonly runtime: string;
  readonly backend: string;
  readonly loadSeconds: number;
  /** Bytes of JS objects and buffers above the start, at most. */
  readonly jsBytes: number;
  readonly deviceBytes: number;
  readonly steps: readonly {
    readonly size: number;
    readonly kind: "plain" | "guided";
    readonly seconds: number;
    readonly peakBytes: number;
    readonly plannedBytes: number;
    readonly sha256: string;
  }[];
}

const { values } = parseArgs({
  options: {
    models: { type: "string", default: "sd15" },
    sizes: { type: "string", default: "128,256" },
    folder: { type: "string", default: "out/full-size" },
    json: { type: "string" },
    run: { type: "string" },
    device: { type: "string" },
    kernels: { type: "string" },
  },
});
const { device, kernels } = openOptions(values);

const REGIONS = [
  { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
  { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
] as const;

/** Loads the folder and paints; in a process of its own, so that memory is counted from nothing. */
async function runHere(folder: string): Promise<Run> {
  const heap = (): number => {
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const before = heap();
  let most = 0;
  const look = (): void => void (most = Math.max(most, heap() - before));
  const start = performance.now();
  using model = await open(folder, {
    device,
    kernels,
    weights: "f16",
    onProgress: look,
  });
  await finished(model.backend); // until the device has all of it
  const loadSeconds = (performance.now() - start) / 1000;
  const deviceBytes = model.backend.memory.reservedBytes;
  const steps: Run["steps"][number][] = [];
  for (const size of values.sizes.split(",").map(Number)) {
    for (const kind of ["plain", "guided"] as const) {
      const request: GenerateRequest = {
        prompt: "a red car and a blue house on grass",
        regions: kind === "guided" ? REGIONS : [],
        width: size,
        height: size,
        seed: 7,
        steps: 1,
        guidance: kind === "guided"
          ? { steps: 1, iterations: 1 }
          : { method: "none" },
      };
      let at = 0, seconds = 0;
      // Only the first size has new pipelines to compile.
      const runs = steps.length < 2 ? ["compile", "measure"] : ["measure"];
      for (const _ of runs) {
        at = performance.now();
        const { report, rgb } = await model.generate(request, {
          onStep: () => void (seconds = (performance.now() - at) / 1000),
        });
        look();
        if (_ === "compile") continue;
        steps.push({
          size,
          kind,
          seconds,
          peakBytes: report.peakBytes,
          plannedBytes: (await model.plan(model.check(request).request))
            .peakBytes,
          sha256: createHash("sha256").update(rgb).digest("hex"),
        });
      }
    }
  }
  const runtime = process.versions.bun
    ? `bun ${process.versions.bun}`
    : `deno ${process.versions["deno"]}`;
  return {
    runtime,
    backend: model.backend.description,
    loadSeconds,
    jsBytes: most,
    deviceBytes,
    steps,
  };
}

/** Seconds to read every weight file into one buffer, and into fresh memory as a device needs it. */
async function plainRead(
  folder: string,
): Promise<{ bytes: number; reused: number; fresh: number }> {
  let bytes = 0;
  const seconds = { reused: 0, fresh: 0 };
  for (const into of ["warm", "reused", "fresh"] as const) {
    const start = performance.now();
    bytes = 0;
    const kept: Uint8Array[] = [];
    let buffer = new Uint8Array(16 * 2 ** 20);
    for (const part of await readdir(folder)) {
      const files = await readdir(join(folder, part)).catch(() => []);
      for (const file of files.filter((f) => f.endsWith(".safetensors"))) {
        const handle = await openFile(join(folder, part, file));
        for (;;) {
          if (into === "fresh") {
            buffer = new Uint8Array(buffer.length);
            kept.push(buffer);
          }
          const { bytesRead } = await handle.read(buffer, 0, buffer.length);
          if (bytesRead === 0) break;
          bytes += bytesRead;
        }
        await handle.close();
      }
    }
    if (into !== "warm") seconds[into] = (performance.now() - start) / 1000;
  }
  return { bytes, ...seconds };
}

async function child(
  program: string,
  folder: string,
  device: string,
  env: Record<string, string>,
): Promise<Run> {
  const script = new URL(import.meta.url).pathname;
  const bun = program !== Deno.execPath();
  const { code, stdout } = await new Deno.Command(program, {
    args: [
      ...(bun ? [] : ["run", "-A", "--no-check"]),
      script,
      "--run",
      folder,
      "--device",
      device,
      "--sizes",
      values.sizes,
      "--kernels",
      kernels ?? "auto",
    ],
    env,
    stderr: "inherit",
  }).output();
  if (code !== 0) throw new Error(`${program} on ${device} ended with ${code}`);
  return JSON.parse(
    new TextDecoder().decode(stdout).trim().split("\n").at(-1)!,
  );
}

const mb = (bytes: number): string => (bytes / 1e6).toFixed(0);
const gb = (bytes: number): string => (bytes / 1e9).toFixed(2);

async function measure(model: ModelName): Promise<unknown> {
  const folder = join(values.folder, model);
  await mkdir(folder, { recursive: true });
  const written = await writeRandomCheckpoint(model, folder);
  const read = await plainRead(folder);
  const env = await softwareEnv();
  const runs = [await child(Deno.execPath(), folder, "native", env)];
  runs.push(await child(await findBun(), folder, "dawn", env));
  const rate = (seconds: number): string =>
    (read.bytes / 1e6 / seconds).toFixed(0);
  const [first, second] = runs as [Run, Run];
  const same = first.steps.every((step, i) =>
    step.sha256 === second.steps[i]!.sha256
  );
  console.log([
    `### ${model}: ${gb(written.bytes)} GB of random fp16 weights`,
    "",
    `| | ${runs.map((r) => `${r.runtime}, ${r.backend}`).join(" | ")} |`,
    "| --- | ---: | ---: |",
    `| plain read of the files, into one buffer / into fresh memory: MB/s | ${
      rate(read.reused)
    } / ${rate(read.fresh)} | |`,
    `| load to the device: MB/s | ${
      runs.map((r) => rate(r.loadSeconds)).join(" | ")
    } |`,
    `| JS memory above the start, at most: MB | ${
      runs.map((r) => mb(r.jsBytes)).join(" | ")
    } |`,
    `| device bytes after loading: GB | ${
      runs.map((r) => gb(r.deviceBytes)).join(" | ")
    } |`,
    ...first.steps.map((step, i) =>
      `| ${step.kind} step at ${step.size}x${step.size}: seconds; peak (planned) GB | ${
        runs.map(({ steps }) => {
          const { seconds, peakBytes, plannedBytes } = steps[i]!;
          return `${seconds.toFixed(1)}; ${gb(peakBytes)} (${
            gb(plannedBytes)
          })`;
        }).join(" | ")
      } |`
    ),
    `| same pixels | ${same ? "yes" : "NO"} | |`,
    "",
  ].join("\n"));
  return { model, ...written, read, runs, same };
}

if (values.run !== undefined) {
  const run = await runHere(values.run);
  console.log(JSON.stringify(run));
  process.exit(0); // Dawn may keep timers
}

const measured: unknown[] = [];
for (const model of values.models.split(",")) {
  if (model !== "") measured.push(await measure(model as ModelName));
}
const { family } = chooseFamily({ isFallbackAdapter: true }, kernels);
const plans: { name: string; plan: MemoryEstimate }[] = await planFullSize(
  family,
);
console.log([
  `### What pictures take, by the plan of the ${family} kernels: GB`,
  "",
  "| | weights | text | sampling | decoding | in all | how |",
  "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
  ...plans.map(({ name, plan }) => {
    const { weights, text, sampling, decoding, peakBytes, choice } = plan;
    const numbers = [weights, text, sampling, decoding, peakBytes].map(gb);
    const how = [
      choice.weights,
      ...(choice.freeText ? ["text encoders freed"] : []),
      choice.together ? "both prompts at once" : "one prompt at a time",
      ...(choice.recompute ? ["recompute"] : []),
      ...(choice.tile ? [`tiles of ${choice.tile}`] : []),
    ];
    return `| ${name} | ${numbers.join(" | ")} | ${how.join(", ")} |`;
  }),
].join("\n"));
if (values.json) {
  const about = {
    date: new Date().toISOString().slice(0, 10),
    cpu: `${os.cpus()[0]?.model.trim()} x ${os.cpus().length}`,
  };
  await writeFile(
    values.json,
    JSON.stringify({ ...about, measured, family, plans }, null, 2) + "\n",
  );
}
