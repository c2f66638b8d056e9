/**
 * Whole UNet passes against what their parts could do: a plain forward pass, of one prompt and of both in a batch
 * as a step without guidance has them, and a guided inner step (forward, energy, backward to the last guided
 * site, Langevin update) of one.
 *
 * A pass's matrix products are counted on a plan; the largest of them are run again alone, each with the copies
 * of its matrices that it needs, in the same rounds as the passes, which gives the rate that the pass could have
 * if nothing else took time.
 */
import type { Backend, StorageType } from "../kernels/backend.ts";
import type { WeightSource } from "../pipeline/weight_source.ts";
import { loadUnet } from "../pipeline/unet.ts";
import { runsPerSample, timer } from "./contender.ts";
import {
  atLeast,
  type Bar,
  median,
  percent,
  short,
  spread,
  table,
} from "./report.ts";
import { passInputs } from "./pass_inputs.ts";
import type { AdapterRates } from "./rates.ts";
import { dominant, replay, type Work, WorkPlan } from "./work.ts";

/** A UNet that is measured. */
export interface PassModel {
  /** For tables. */
  readonly name: string;
  /** Its config and weights. */
  readonly source: WeightSource & {
    readonly config: Readonly<Record<string, unknown>>;
  };
  /** How its weights are stored. */
  readonly weights: StorageType;
  /** Latent cells along a side. */
  readonly side: number;
}

/** One product of a pass, alone. */
export interface ProductRate {
  /** Kernel and sizes. */
  readonly name: string;
  /** How many of them a pass has. */
  readonly count: number;
  /** Its part of the pass's operations. */
  readonly share: number;
  /** A sample per round. */
  readonly gflops: readonly number[];
}

/** Kinds of passes, as tables name them. */
const KINDS = {
  plain: "plain, one prompt",
  both: "plain, both prompts",
  guided: "guided, one prompt",
} as const;

/** One kind of pass. */
export interface PassResult {
  /** Which. */
  readonly kind: keyof typeof KINDS;
  /** What it does; see `Work`. */
  readonly work: Omit<Work, "products">;
  /** A sample per round. */
  readonly seconds: readonly number[];
  /** Its largest products. */
  readonly products: readonly ProductRate[];
  /** Seconds of its products at the rates that they have alone, over the seconds of the pass. */
  readonly gemmShare: number;
}

/** A model's passes. */
export interface PassReport {
  /** Model and latent. */
  readonly name: string;
  /** How weights were stored. */
  readonly weights: StorageType;
  /** Plain and guided. */
  readonly passes: readonly PassResult[];
}

/** How long to measure. */
export interface PassOptions {
  /** Samples. */
  readonly rounds: number;
  /** Seconds of a sample at least; a pass that takes longer is a sample by itself. */
  readonly sampleSeconds: number;
  /** Told how far it is. */
  readonly say?: (text: string) => void;
}

/** Of a pass's operations, so much is covered by the products that are run alone. */
const COVERED = 0.8;
/** Products that the Markdown shows of each pass; JSON has those that were run. */
const PRINTED = 6;

/** Measures both passes of a model. */
export async function benchPasses(
  backend: Backend,
  { name, source, weights, side }: PassModel,
  { rounds, sampleSeconds, say = () => {} }: PassOptions,
): Promise<PassReport> {
  using unet = await loadUnet(backend, source, { storage: weights });
  using plan = new WorkPlan(Infinity, backend.family, backend.matrix);
  using planned = await loadUnet(
    plan,
    {
      name,
      config: source.config,
      tensors: new Map(),
      read: () => Promise.reject(new Error("a plan reads nothing")),
      collect: () => {},
    },
    { storage: weights },
  );
  using device = passInputs(unet, side);
  using counted = passInputs(planned, side);
  for (const inputs of [device, counted]) { // project the text, which later passes do not repeat
    inputs.plain();
    inputs.both();
  }
  const jobs: {
    readonly kind: keyof typeof KINDS;
    readonly work: Work;
    readonly time: (times: number) => Promise<number>;
    readonly runs: number;
    readonly seconds: number[];
  }[] = [];
  for (const kind of ["plain", "both", "guided"] as const) {
    const time = timer(backend, device[kind]);
    const work = await plan.count(counted[kind]);
    const runs = await runsPerSample(time, sampleSeconds);
    jobs.push({ kind, work, time, runs, seconds: [] });
    say(`  ${kind} pass: ${(work.flops / 1e9).toFixed(1)} GFLOP`);
  }
  const alone = new Map<
    string,
    {
      readonly flops: number;
      readonly runs: number;
      readonly time: (times: number) => Promise<number>;
      readonly dispose: () => void;
      readonly gflops: number[];
    }
  >();
  try {
    for (const { work } of jobs) {
      for (const product of dominant(work, COVERED)) {
        if (alone.has(product.key)) continue;
        const { run, dispose } = replay(backend, product);
        const time = timer(backend, run);
        const runs = await runsPerSample(time, sampleSeconds);
        const { flops } = product;
        alone.set(product.key, { flops, runs, time, dispose, gflops: [] });
      }
    }
    for (let round = 0; round < rounds; round++) {
      say(`  round ${round + 1}, ${alone.size} products`);
      for (const { time, runs, seconds } of jobs) {
        seconds.push(await time(runs) / runs);
      }
      for (const { flops, runs, time, gflops } of alone.values()) {
        gflops.push(runs * flops / await time(runs) / 1e9);
      }
    }
  } finally {
    for (const { dispose } of alone.values()) dispose();
  }
  const passes = jobs.map(({ kind, work, seconds }): PassResult => {
    const products = dominant(work, COVERED).map((product): ProductRate => ({
      name: product.name,
      count: product.count,
      share: product.count * product.flops / work.flops,
      gflops: alone.get(product.key)!.gflops,
    }));
    const covered = products.reduce((sum, { share }) => sum + share, 0);
    // What is not covered is taken to run as fast as what is.
    const best = products.reduce(
      (sum, { share, gflops }) =>
        sum + share / covered * work.flops / median(gflops) / 1e9,
      0,
    );
    const { products: _, ...rest } = work;
    return {
      kind,
      work: rest,
      seconds,
      products,
      gemmShare: best / median(seconds),
    };
  });
  return { name: `${name}, latent ${side}x${side}`, weights, passes };
}

/** Seconds and rates of all passes. */
export function passTable(
  reports: readonly PassReport[],
  rates: AdapterRates | undefined,
): string {
  const rows = reports.flatMap(({ name, weights, passes }) =>
    passes.map(({ kind, work, seconds, gemmShare }) => {
      const time = median(seconds);
      const gflops = work.flops / time / 1e9;
      return [
        `${name} (${weights}): ${KINDS[kind]}`,
        spread(seconds.map((s) => 1000 * s)),
        `${short(work.flops / 1e9)} / ${short(work.directFlops / 1e9)}`,
        `${short(gflops)} / ${short(work.directFlops / time / 1e9)}`,
        shares({ work, gemmShare }),
        rates ? percent(gflops / median(rates.arithmeticGflops)) : "",
        rates
          ? percent(work.bytes / time / 1e9 / median(rates.copyGbytes))
          : "",
      ];
    })
  );
  return table([
    "pass",
    "ms",
    "GFLOP done / by the definition",
    "GFLOP/s done / by the definition",
    "of its products' own rate, done / by the definition",
    "of the arithmetic rate",
    "of the copy rate",
  ], rows);
}

/** What is reached of the products' own rate, by operations done, and by those that the definition has. */
function shares(
  { work, gemmShare }: Pick<PassResult, "work" | "gemmShare">,
): string {
  const direct = gemmShare * work.directFlops / work.flops;
  return `${percent(gemmShare)} / ${percent(direct)}`;
}

/** The largest of the products that were run alone. */
export function productTable({ name, passes }: PassReport): string {
  return passes.map(({ kind, products }) =>
    table(
      [
        `${name}, ${KINDS[kind]}: product`,
        "count",
        "share of FLOPs",
        "GFLOP/s alone",
      ],
      products.slice(0, PRINTED).map((p) => [
        p.name,
        String(p.count),
        percent(p.share),
        spread(p.gflops),
      ]),
    )
  ).join("\n\n");
}

/** What passes ought to reach. */
export function passBars(reports: readonly PassReport[]): Bar[] {
  return reports.flatMap(({ name, passes }) => {
    const of = (wanted: PassResult["kind"]): PassResult =>
      passes.find(({ kind }) => kind === wanted)!;
    const plain = of("plain"), guided = of("guided");
    const flops = guided.work.flops / plain.work.flops;
    const cost = median(guided.seconds) / median(plain.seconds);
    return [
      ...[plain, of("both")].map((pass) =>
        atLeast(
          `${name}: ${
            KINDS[pass.kind]
          }, at least 70 % of its products' own rate`,
          pass.gemmShare,
          0.7,
          shares(pass),
        )
      ),
      {
        text:
          `${name}: guided inner step at most 1.15 times its FLOP ratio to a plain pass`,
        passed: cost <= 1.15 * flops,
        found: `${short(cost / flops)} (time ${short(cost)}, FLOPs ${
          short(flops)
        })`,
      },
    ];
  });
}
