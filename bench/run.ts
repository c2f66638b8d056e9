/** One run of the benchmark: its parts in order, with what they print and what they found. */
import os from "node:os";
import process from "node:process";
import {
  Cpu,
  describeTiles,
  embeddedModel,
  open,
  openBackend,
  openCheckpoint,
  WebGpu,
} from "../mod.ts";
import project from "../deno.json" with { type: "json" };
import type { Backend } from "../kernels/backend.ts";
import type { Absent, Contender } from "./contender.ts";
import { FULL_CONFIGS } from "./full_configs.ts";
import { type BackendFlags, openOptions } from "./flags.ts";
import {
  benchImage,
  benchRequest,
  type ImageReport,
  imageTable,
  type StartReport,
} from "./image.ts";
import {
  benchKernels,
  kernelBars,
  type KernelResult,
  kernelTable,
  type Sides,
} from "./kernels.ts";
import { ownKernels } from "./own_kernels.ts";
import {
  benchPasses,
  passBars,
  type PassModel,
  type PassReport,
  passTable,
  productTable,
} from "./passes.ts";
import { loadPeers } from "./peers/all.ts";
import { randomComponent } from "./random_checkpoint.ts";
import { type AdapterRates, measureRates } from "./rates.ts";
import { type Bar, spread } from "./report.ts";
import { measureStart } from "./start.ts";

/** Its parts. */
export const SECTIONS = ["kernels", "passes", "image"] as const;
const OWN = "winwinlay";
const CPU = "cpu backend";

/** How long to measure, and what. */
export interface BenchOptions {
  /** Which parts. */
  readonly only: readonly string[];
  /** Fewer and shorter samples, smaller latents, fewer steps. */
  readonly quick: boolean;
  /** Only kernels and UNets whose name contains it. */
  readonly filter?: string | undefined;
  /** Where our side runs. */
  readonly flags: BackendFlags;
  /** Latent cells along a side for the passes of SD1.5; 16 if left out, 8 if quick. */
  readonly side?: number | undefined;
}

/** Everything that a run found. */
export interface BenchReport {
  /** Day, adapter, runtime, processor. */
  readonly about: Readonly<Record<string, string>>;
  /** Package versions of those that took part. */
  readonly versions: Readonly<Record<string, string>>;
  /** Those that could not. */
  readonly absent: readonly Absent[];
  /** Of the adapter; measured where kernels or passes are. */
  readonly rates?: AdapterRates;
  /** See `KernelResult`. */
  readonly kernels?: readonly KernelResult[];
  /** See `PassReport`. */
  readonly passes?: readonly PassReport[];
  /** By backend. */
  readonly images?: readonly {
    readonly name: string;
    readonly image: ImageReport;
    readonly start: StartReport;
  }[];
  /** What ought to hold. */
  readonly bars: readonly Bar[];
  /** For people. */
  readonly markdown: string;
}

/** Runs what is asked for. */
export async function bench(
  { only, quick, filter, flags, side = quick ? 8 : 16 }: BenchOptions,
): Promise<BenchReport> {
  const say = (text: string): void => console.error(text);
  const rounds = quick ? 2 : 5;
  const sampleSeconds = quick ? 0.1 : 0.2;
  const options = openOptions(flags);
  using backend = await openBackend(options);
  await backend.tuneFor("f16"); // SD1.5's
  const tileTimes = backend instanceof WebGpu ? backend.tileTimes : undefined;
  const about = {
    winwinlay: `winwinlay ${project.version}`,
    date: new Date().toISOString().slice(0, 10),
    backend: backend.description,
    kernels: `${backend.matrix ? "matrix" : backend.family} kernels${
      tileTimes ? `, ${describeTiles(tileTimes)}` : ""
    }`,
    runtime: process.versions.bun
      ? `bun ${process.versions.bun}`
      : `deno ${process.versions["deno"]}`,
    cpu: `${os.cpus()[0]?.model.trim()} x ${os.cpus().length}`,
  };
  say(Object.values(about).join("; "));
  const bars: Bar[] = [];
  const parts: string[] = [];
  const report: {
    -readonly [K in keyof BenchReport]: BenchReport[K];
  } = { about, versions: {}, absent: [], bars, markdown: "" };

  if (only.includes("kernels") || only.includes("passes")) {
    say("rates of the adapter");
    report.rates = await measureRates(backend, { rounds, sampleSeconds });
    const { arithmeticGflops, copyGbytes } = report.rates;
    parts.push(
      `Arithmetic of the adapter, measured: ${
        spread(arithmeticGflops)
      } GFLOP/s; copying: ${spread(copyGbytes)} GB/s read and written.`,
    );
  }
  if (only.includes("kernels")) {
    const { results, columns, absent, versions, sides } = await runKernels(
      backend,
      options,
      { rounds, sampleSeconds, filter, say },
    );
    report.kernels = results;
    report.absent = absent;
    report.versions = versions;
    parts.push(kernelTable(results, columns, sides));
    for (const { name, reason } of absent) {
      parts.push(`${name} did not take part: ${reason}`);
    }
    if (sides.peers.length) bars.push(...kernelBars(results, sides));
  }
  if (only.includes("passes")) {
    report.passes = await runPasses(backend, {
      rounds,
      sampleSeconds,
      side,
      filter,
      say,
    });
    parts.push(passTable(report.passes, report.rates));
    parts.push(...report.passes.map(productTable));
    bars.push(...passBars(report.passes));
  }
  if (only.includes("image")) {
    const images = await runImages(flags, { quick, say });
    report.images = images;
    parts.push(imageTable(images));
  }
  const versions = Object.entries(report.versions).map((v) => v.join(" "));
  report.markdown = [
    [...Object.values(about), ...versions].join("; "),
    ...parts,
  ].join("\n\n");
  return report;
}

type Say = (text: string) => void;

async function runKernels(
  backend: Backend,
  { device }: ReturnType<typeof openOptions>,
  { rounds, sampleSeconds, filter, say }: {
    readonly rounds: number;
    readonly sampleSeconds: number;
    readonly filter: string | undefined;
    readonly say: Say;
  },
): Promise<{
  results: KernelResult[];
  columns: string[];
  absent: Absent[];
  versions: Record<string, string>;
  sides: Sides;
}> {
  const cpuOnly = backend.kind === "cpu";
  const { contenders: peers, absent } = await loadPeers(
    cpuOnly
      ? "we run on the cpu backend"
      : device === "dawn"
      ? "it runs on navigator.gpu, we on Dawn"
      : undefined,
  );
  using cpu = new Cpu();
  const reference = ownKernels(cpu, { name: CPU });
  const own: Contender[] = cpuOnly ? [] : [ownKernels(backend, { name: OWN })];
  const results = await benchKernels(reference, [...own, ...peers], {
    rounds,
    sampleSeconds,
    filter,
    onCase: ({ name, entries }) => {
      say(name);
      for (const [who, { failed, reason }] of Object.entries(entries)) {
        if (failed) say(`  FAILED ${who}: ${reason}`);
      }
    },
  });
  return {
    results,
    columns: [...own, ...peers, reference].map(({ name }) => name),
    absent,
    versions: Object.fromEntries(peers.map((p) => [p.name, p.version])),
    sides: {
      own: OWN,
      peers: peers.filter((p) => p.where === "adapter").map((p) => p.name),
    },
  };
}

async function runPasses(
  backend: Backend,
  { rounds, sampleSeconds, side, filter, say }: {
    readonly rounds: number;
    readonly sampleSeconds: number;
    readonly side: number;
    readonly filter: string | undefined;
    readonly say: Say;
  },
): Promise<PassReport[]> {
  const reports: PassReport[] = [];
  const measure = async (
    model: Omit<PassModel, "source">,
    passRounds: number,
    load: () => Promise<PassModel["source"]>,
  ): Promise<void> => {
    if (!model.name.includes(filter ?? "")) return;
    say(`passes: ${model.name}`);
    const options = {
      rounds: passRounds,
      productRounds: Math.min(rounds, 3),
      sampleSeconds,
      say,
    };
    const source = await load();
    reports.push(await benchPasses(backend, { ...model, source }, options));
  };
  await using folder = await openCheckpoint(embeddedModel("tiny-scenes")!);
  await measure(
    { name: "embedded model", weights: "f32", side: 32 },
    5 * rounds, // they are short
    () => folder.component("unet"),
  );
  if (backend.kind === "cpu") {
    say("no passes of SD1.5: the cpu backend would take hours");
    return reports;
  }
  await measure(
    { name: "SD1.5, random weights", weights: "f16", side },
    rounds,
    () => randomComponent("unet", FULL_CONFIGS.sd15.parts["unet"]!),
  );
  return reports;
}

async function runImages(
  flags: BackendFlags,
  { quick, say }: { readonly quick: boolean; readonly say: Say },
): Promise<{ name: string; image: ImageReport; start: StartReport }[]> {
  const whole = { steps: 50, guided: 10 };
  const images = [];
  const kinds = flags.backend === "cpu" ? [flags] : [flags, { backend: "cpu" }];
  for (const [i, kind] of kinds.entries()) {
    using model = await open("tiny-scenes", openOptions(kind));
    const slow = model.backend.kind === "cpu";
    if (i > 0 && images[0]!.name === model.backend.description) break;
    say(`a picture on ${model.backend.description}`);
    const request = slow
      ? { steps: quick ? 3 : 5, guided: quick ? 1 : 2 }
      : quick
      ? { steps: 8, guided: 2 }
      : whole;
    // Compiles, which is measured in a process of its own.
    await model.generate(benchRequest({ steps: 2, guided: 1 }));
    const image = await benchImage(model, request);
    const start = await measureStart(kind);
    const { description } = model.backend;
    images.push({
      name: description,
      image,
      start,
      whole: request === whole ? undefined : whole,
    });
  }
  return images;
}
