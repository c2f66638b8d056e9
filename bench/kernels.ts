/**
 * Kernels against peers, side by side: for each case everybody computes once, results are compared with
 * the float64 references, and then all take turns, round after round, so that a busy machine is busy for
 * all of them.
 */
import { compare } from "../tests/compare.ts";
import { type Contender, type Prepared, runsPerSample } from "./contender.ts";
import {
  caseFlops,
  caseName,
  KERNEL_CASES,
  type KernelCase,
} from "./kernel_cases.ts";
import {
  atLeast,
  type Bar,
  geometricMean,
  median,
  short,
  spread,
  table,
} from "./report.ts";

/** Relative L2 error beyond which a result counts as wrong. */
export const MOST_ERROR = 1e-3;

/** One contender in one case. */
export interface Entry {
  /** Against the float64 references. */
  readonly relL2?: number;
  /** Runs in each sample. */
  readonly runs?: number;
  /** A sample per round. */
  readonly gflops: readonly number[];
  /** Why there are none: it has no such operation, it failed, or its result was wrong. */
  readonly reason?: string;
  /** The reason is not that it lacks the operation. */
  readonly failed?: boolean;
}

/** One case. */
export interface KernelResult {
  /** For tables. */
  readonly name: string;
  /** Which operation. */
  readonly kind: KernelCase["kind"];
  /** Of the definition, per run. */
  readonly flops: number;
  /** By contender. */
  readonly entries: Readonly<Record<string, Entry>>;
}

/** How long to measure. */
export interface KernelOptions {
  /** Samples of each contender. */
  readonly rounds: number;
  /** Seconds that a sample takes at least. */
  readonly sampleSeconds: number;
  /** Only cases whose name contains it. */
  readonly filter?: string | undefined;
  /** Called after each case. */
  readonly onCase?: (result: KernelResult) => void;
}

/**
 * Runs the cases.
 *
 * @param reference Its results are the truth; it takes part too.
 */
export async function benchKernels(
  reference: Contender,
  others: readonly Contender[],
  options: KernelOptions,
): Promise<KernelResult[]> {
  const results: KernelResult[] = [];
  for (const kernel of KERNEL_CASES) {
    if (!caseName(kernel).includes(options.filter ?? "")) continue;
    const result = await benchCase(kernel, reference, others, options);
    results.push(result);
    options.onCase?.(result);
  }
  return results;
}

async function benchCase(
  kernel: KernelCase,
  reference: Contender,
  others: readonly Contender[],
  { rounds, sampleSeconds }: KernelOptions,
): Promise<KernelResult> {
  const flops = caseFlops(kernel);
  const entries: Record<string, Entry> = {};
  const truth = (await reference.prepare(kernel))!;
  const expected = await truth.result();
  // Once more, without what no time includes: the forward pass of a gradient.
  const seconds = await truth.time(1);
  truth.dispose();
  entries[reference.name] = {
    relL2: 0,
    runs: 1,
    gflops: [flops / seconds / 1e9],
  };

  const active: {
    readonly name: string;
    readonly prepared: Prepared;
    readonly relL2: number;
    readonly runs: number;
    readonly gflops: number[];
  }[] = [];
  for (const { name, prepare } of others) {
    let prepared: Prepared | undefined;
    try {
      prepared = await prepare(kernel);
      if (!prepared) {
        entries[name] = { gflops: [], reason: "no such operation" };
        continue;
      }
      const { relL2 } = compare(await prepared.result(), expected);
      if (!(relL2 <= MOST_ERROR)) {
        throw new Error(
          `its result is wrong: relative L2 error ${relL2.toExponential(1)}`,
        );
      }
      const { time } = prepared;
      const runs = await runsPerSample(time, sampleSeconds);
      active.push({ name, prepared, relL2, runs, gflops: [] });
    } catch (error) {
      prepared?.dispose();
      const reason = (error as Error).message ?? String(error);
      entries[name] = { gflops: [], reason, failed: true };
    }
  }
  for (let round = 0; round < rounds; round++) {
    // There and back, so that nobody always follows the same one.
    const order = round % 2 ? active.toReversed() : active;
    for (const { prepared, runs, gflops } of order) {
      gflops.push(runs * flops / await prepared.time(runs) / 1e9);
    }
  }
  for (const { name, prepared, relL2, runs, gflops } of active) {
    prepared.dispose();
    entries[name] = { relL2, runs, gflops };
  }
  return { name: caseName(kernel), kind: kernel.kind, flops, entries };
}

/** Which contender is ours, and which are its peers on the same adapter. */
export interface Sides {
  /** Our column. */
  readonly own: string;
  /** Peers on the adapter. */
  readonly peers: readonly string[];
}

/**
 * Our speed over a peer's: the median of the rounds' ratios, since a busy machine is about as busy for
 * both within a round. Undefined where one of them has none.
 */
export function ratio(
  { entries }: KernelResult,
  own: string,
  peer: string,
): number | undefined {
  const theirs = entries[peer]?.gflops ?? [];
  const ratios = (entries[own]?.gflops ?? []).flatMap((x, round) =>
    theirs[round] === undefined ? [] : x / theirs[round]
  );
  return ratios.length ? median(ratios) : undefined;
}

/** Our speed over that of the fastest peer. */
export function bestRatio(
  result: KernelResult,
  { own, peers }: Sides,
): number | undefined {
  const all = peers.flatMap((peer) => ratio(result, own, peer) ?? []);
  return all.length ? Math.min(...all) : undefined;
}

/** Geometric mean of our speed over a peer's, over what both can do. */
export function meanRatio(
  results: readonly KernelResult[],
  own: string,
  peer: string,
): { readonly mean: number; readonly cases: number } {
  const all = results.flatMap((result) => ratio(result, own, peer) ?? []);
  return { mean: geometricMean(all), cases: all.length };
}

/** Median GFLOP/s with least and most, a column each, and our ratio to the best peer. */
export function kernelTable(
  results: readonly KernelResult[],
  columns: readonly string[],
  sides: Sides,
): string {
  const cell = ({ gflops, failed, reason }: Entry): string =>
    gflops.length > 1
      ? spread(gflops)
      : gflops.length
      ? short(gflops[0]!)
      : failed
      ? `FAILED: ${reason!.split("\n")[0]}`
      : "";
  return table(
    ["GFLOP/s", ...columns, "ours / best peer on the adapter"],
    results.map((result) => {
      const best = bestRatio(result, sides);
      return [
        result.name,
        ...columns.map((name) => cell(result.entries[name]!)),
        best === undefined ? "" : short(best),
      ];
    }),
  );
}

/** What kernels ought to reach. */
export function kernelBars(
  results: readonly KernelResult[],
  sides: Sides,
): Bar[] {
  const bars = results.map((result) =>
    atLeast(
      `${result.name}: at least as fast as the best peer`,
      bestRatio(result, sides),
      1,
    )
  );
  for (const [peer, least] of [["jax-js", 2.5], ["ORT WebGPU", 3]] as const) {
    const { mean, cases } = meanRatio(results, sides.own, peer);
    bars.push(atLeast(
      `geometric mean over ${peer} at least ${least}`,
      mean,
      least,
      `${short(mean)} over ${cases} cases`,
    ));
  }
  for (const result of results) {
    if (!result.kind.endsWith("gradient")) continue;
    bars.push(
      atLeast(
        `${result.name}: at least 3 times jax-js`,
        ratio(result, sides.own, "jax-js"),
        3,
      ),
    );
  }
  return bars;
}
