/**
 * Whole UNet passes against what their parts could do: a plain forward pass, of one prompt and of both in a batch
 * as a step without guidance has them, and a guided inner step (forward, energy, backward to the last guided
 * site, Langevin update) of one.
 *
 * A pass's matrix products are counted on a plan; the largest of them are run again alone, each with the copies
 * of its matrices that it needs and some times in a row, which gives the rate that the pass could have if nothing
 * else took time. What is compared is measured side by side, round by round: machines have faster and slower minutes.
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
import { dominant, type Product, replay, type Work, WorkPlan } from "./work.ts";

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
  /** By samples of its own. */
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
  /** Seconds that all its products take at the rate of those alone; a sample per round, beside the pass's. */
  readonly productSeconds: readonly number[];
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
  /** Samples of passes. */
  readonly rounds: number;
  /** Samples of single products. */
  readonly productRounds: number;
  /** Seconds of a sample at least; a pass that takes longer is a sample by itself. */
  readonly sampleSeconds: number;
  /** Told how far it is. */
  readonly say?: (text: string) => void;
}

/** Of a pass's operations, so much is covered by the products that are run alone. */
const COVERED = 0.8;
/** Runs in a row of a product, at least, times how often the pass has it. */
const IN_A_ROW = 4;
/** Products that the Markdown shows of each pass; JSON has those that were run. */
const PRINTED = 6;

/** Measures both passes of a model. */
export async function benchPasses(
  backend: Backend,
  { name, source, weights, side }: PassModel,
  { rounds, productRounds, sampleSeconds, say = () => {} }: PassOptions,
): Promise<PassReport> {
  using unet = await loadUnet(backend, source, { storage: weights });
  using plan = new WorkPlan(Infinity, backend.family, backend.matrix);
  plan.halfTiles = backend.halfTiles;
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
  const alone = new Map<string, Alone>();
  const jobs: Job[] = [];
  try {
    for (const kind of ["plain", "both", "guided"] as const) {
      const work = await plan.count(counted[kind]);
      say(`  ${kind} pass: ${(work.flops / 1e9).toFixed(1)} GFLOP`);
      const products = dominant(work, COVERED);
      for (const product of products) {
        if (alone.has(product.key)) continue;
        const replayed = replay(backend, product);
        const time = timer(backend, replayed.run);
        const runs = await runsPerSample(time, sampleSeconds);
        const { flops } = product;
        alone.set(product.key, { ...replayed, flops, time, runs, gflops: [] });
      }
      const inARow = (): void => {
        for (const { key, count } of products) {
          const { run } = alone.get(key)!;
          for (let i = 0; i < IN_A_ROW * count; i++) run();
        }
      };
      const covered = products.reduce((sum, p) => sum + p.count * p.flops, 0);
      const pass = timer(backend, device[kind]);
      const some = timer(backend, inARow);
      jobs.push({
        kind,
        work,
        products,
        pass: { time: pass, runs: await runsPerSample(pass, sampleSeconds) },
        some: { time: some, runs: await runsPerSample(some, sampleSeconds) },
        // What is not covered is taken to run as fast as what is.
        perRun: work.flops / covered / IN_A_ROW,
        seconds: [],
        productSeconds: [],
      });
    }
    for (let round = 0; round < rounds; round++) {
      say(`  round ${round + 1} of passes`);
      for (const job of jobs) {
        const { pass, some, perRun, seconds, productSeconds } = job;
        const samples = [
          async () => seconds.push(await sample(pass)),
          async () => productSeconds.push(perRun * await sample(some)),
        ];
        // What comes first may have the worse place.
        for (const take of round % 2 ? samples.reverse() : samples) {
          await take();
        }
      }
    }
    for (let round = 0; round < productRounds; round++) {
      say(`  round ${round + 1} of ${alone.size} products`);
      for (const product of alone.values()) {
        product.gflops.push(product.flops / await sample(product) / 1e9);
      }
    }
  } finally {
    for (const { dispose } of alone.values()) dispose();
  }
  const passes = jobs.map((
    { kind, work, products, seconds, productSeconds },
  ): PassResult => {
    const { products: _, ...rest } = work;
    return {
      kind,
      work: rest,
      seconds,
      productSeconds,
      products: products.map(({ key, name, count, flops }): ProductRate => ({
        name,
        count,
        share: count * flops / work.flops,
        gflops: alone.get(key)!.gflops,
      })),
    };
  });
  return { name: `${name}, latent ${side}x${side}`, weights, passes };
}

/** What is timed, and how often in a row. */
interface Timed {
  readonly time: (times: number) => Promise<number>;
  readonly runs: number;
}

/** A product that is run by itself. */
interface Alone extends Timed, ReturnType<typeof replay> {
  readonly flops: number;
  readonly gflops: number[];
}

/** A kind of pass that is measured. */
interface Job {
  readonly kind: keyof typeof KINDS;
  readonly work: Work;
  readonly products: readonly Product[];
  readonly pass: Timed;
  readonly some: Timed;
  /** From seconds of a run of some products to those of all that a pass has. */
  readonly perRun: number;
  readonly seconds: number[];
  readonly productSeconds: number[];
}

async function sample({ time, runs }: Timed): Promise<number> {
  return await time(runs) / runs;
}

/** Of what belongs together, the median ratio. */
function ratio(a: readonly number[], b: readonly number[]): number {
  return median(a.map((x, i) => x / b[i]!));
}

/** Seconds and rates of all passes. */
export function passTable(
  reports: readonly PassReport[],
  rates: AdapterRates | undefined,
): string {
  const rows = reports.flatMap(({ name, weights, passes }) =>
    passes.map((pass) => {
      const { kind, work, seconds } = pass;
      const time = median(seconds);
      const gflops = work.flops / time / 1e9;
      return [
        `${name} (${weights}): ${KINDS[kind]}`,
        spread(seconds.map((s) => 1000 * s)),
        `${short(work.flops / 1e9)} / ${short(work.directFlops / 1e9)}`,
        `${short(gflops)} / ${short(work.directFlops / time / 1e9)}`,
        shares(pass),
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

/** How operations are counted: as the definition has them, like all rates of kernels here, or as they are done. */
const COUNTS = {
  "by the definition": ({ work }: PassResult) => work.directFlops,
  "as done": ({ work }: PassResult) => work.flops,
} as const;

/** What is reached of the products' own rate, which is that of what is done. */
function gemmShare(
  pass: PassResult,
  count: (pass: PassResult) => number = COUNTS["as done"],
): number {
  const { productSeconds, seconds, work } = pass;
  return ratio(productSeconds, seconds) * count(pass) / work.flops;
}

/** Both ways of counting. */
function shares(pass: PassResult): string {
  const direct = gemmShare(pass, COUNTS["by the definition"]);
  return `${percent(gemmShare(pass))} / ${percent(direct)}`;
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

/** What passes ought to reach, by each way of counting. */
export function passBars(reports: readonly PassReport[]): Bar[] {
  return reports.flatMap(({ name, passes }) => {
    const of = (wanted: PassResult["kind"]): PassResult =>
      passes.find(({ kind }) => kind === wanted)!;
    const plain = of("plain"), guided = of("guided");
    const cost = ratio(guided.seconds, plain.seconds);
    return Object.entries(COUNTS).flatMap(([how, count]): Bar[] => {
      const flops = count(guided) / count(plain);
      return [
        ...[plain, of("both")].map((pass) => {
          const share = gemmShare(pass, count);
          return atLeast(
            `${name}: ${
              KINDS[pass.kind]
            }, at least 70 % of its products' own rate, operations ${how}`,
            share,
            0.7,
            percent(share),
          );
        }),
        {
          text:
            `${name}: guided inner step at most 1.15 times its FLOP ratio to a plain pass, operations ${how}`,
          passed: cost <= 1.15 * flops,
          found: `${short(cost / flops)} (time ${short(cost)}, FLOPs ${
            short(flops)
          })`,
        },
      ];
    });
  });
}
