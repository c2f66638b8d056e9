/** A whole WinWinLay picture: seconds, bytes, and what guidance takes of both time and operations. */
import { methodOf } from "../pipeline/guidance/methods.ts";
import { type GenerateRequest, type Model, paint } from "../mod.ts";
import { planNetworks } from "../pipeline/memory.ts";
import { median, percent, short, spread, table } from "./report.ts";
import { WorkPlan } from "./work.ts";

/** What is painted. */
export interface ImageRequest {
  /** Denoising steps. */
  readonly steps: number;
  /** Guided ones among them. */
  readonly guided: number;
  /** Pixels along a side; left out: the model's own. */
  readonly size?: number | undefined;
}

/** Operations of a pass's matrix products. */
export interface PassWork {
  /** That are done. */
  readonly flops: number;
  /** By the definition; see `Work`. */
  readonly directFlops: number;
}

/** How it went. */
export interface ImageReport extends ImageRequest {
  /** Adapter and runtime. */
  readonly backend: string;
  /** Langevin updates per guided step. */
  readonly iterations: number;
  /** Wall clock of the whole picture, PNG included. */
  readonly seconds: number;
  /** Of each plain step. */
  readonly plainStepSeconds: readonly number[];
  /** Of each step that Langevin updates precede. */
  readonly guidedStepSeconds: readonly number[];
  /** Text before the first step, and decoding and PNG after the last. */
  readonly restSeconds: number;
  /** Of each pass that moves the latent by the energy's gradient; the first includes the text encoder. */
  readonly innerSeconds: readonly number[];
  /** Of each pass that predicts noise, for both prompts. */
  readonly denoiseSeconds: readonly number[];
  /** What a pass that moves the latent computes. */
  readonly innerWork: PassWork;
  /** What one that predicts noise computes. */
  readonly denoiseWork: PassWork;
  /** Most device bytes in each phase, weights included. */
  readonly memory: {
    readonly weights: number;
    readonly text: number;
    readonly sampling: number;
    readonly decoding: number;
  };
  /** Of these in sampling: weights of the text encoders and the VAE. Older reports do not have it. */
  readonly besideUnetBytes?: number;
}

/** The request that is painted, of the embedded model's words. */
export function benchRequest(
  { steps, guided, size }: ImageRequest,
): GenerateRequest {
  return {
    prompt: "a red car and a blue house on grass",
    regions: [
      { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
      { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
    ],
    seed: 7,
    steps,
    ...(size === undefined ? {} : { width: size, height: size }),
    guidance: guided ? { steps: guided } : { method: "none" },
  };
}

/** Paints, and counts the same on a plan. */
export async function benchImage(
  model: Model,
  request: ImageRequest,
): Promise<ImageReport> {
  const wanted = benchRequest(request);
  const plainStepSeconds: number[] = [], guidedStepSeconds: number[] = [];
  const innerSeconds: number[] = [], denoiseSeconds: number[] = [];
  const passes: number[] = [];
  const { request: full } = model.check(wanted);
  await model.plan(full); // what it takes is not part of painting
  const start = performance.now();
  let lastPass = start, lastStep = start;
  const { report } = await model.generate(wanted, {
    onPass: () => {
      const now = performance.now();
      passes.push((now - lastPass) / 1000);
      lastPass = now;
    },
    onStep: ({ inner }) => {
      innerSeconds.push(...passes.splice(0, inner.length));
      denoiseSeconds.push(...passes.splice(0));
      const now = performance.now();
      (inner.length ? guidedStepSeconds : plainStepSeconds).push(
        (now - lastStep) / 1000,
      );
      lastStep = now;
    },
  });
  const seconds = (performance.now() - start) / 1000;
  const counted = await countImage(model, request);
  const iterations = methodOf(full.guidance)?.iterations(0, full.steps) ?? 0;
  return {
    ...request,
    backend: model.backend.description,
    iterations,
    seconds,
    plainStepSeconds,
    guidedStepSeconds,
    restSeconds: seconds - (lastStep - start) / 1000,
    innerSeconds,
    denoiseSeconds,
    ...counted,
    memory: report.memory,
  };
}

/** Operations of both kinds of pass, and weights that these do not need, by a plan of the same picture. */
async function countImage(
  model: Model,
  request: ImageRequest,
): Promise<
  Pick<ImageReport, "innerWork" | "denoiseWork" | "besideUnetBytes">
> {
  const { family, matrix } = model.backend;
  using plan = new WorkPlan(Infinity, family, matrix);
  const networks = await planNetworks(plan, model.facts, model.weights);
  const { request: full } = model.check(benchRequest(request));
  const { choice } = await model.plan(full);
  const passes: PassWork[] = [];
  const none = { flops: 0, directFlops: 0 };
  let last = none, innerWork = none, denoiseWork = none;
  await paint(networks, full, {
    memory: choice,
    onPass: () => {
      const { flops, directFlops } = plan;
      passes.push({
        flops: flops - last.flops,
        directFlops: directFlops - last.directFlops,
      });
      last = { flops, directFlops };
    },
    onStep: ({ inner }) => {
      if (inner.length) innerWork = passes[inner.length - 1]!;
      denoiseWork = passes.splice(0).at(-1)!;
    },
  });
  networks.unet[Symbol.dispose]();
  return { innerWork, denoiseWork, besideUnetBytes: plan.memory.liveBytes };
}

/** What guidance takes of the time and of the operations of a picture's passes. */
export function guidanceShares(
  report: ImageReport,
  { steps, guided }: ImageRequest = report,
): { readonly time: number; readonly flops: number } {
  const mean = (list: readonly number[]): number =>
    list.reduce((a, b) => a + b, 0) / Math.max(1, list.length);
  const updates = guided * report.iterations;
  const share = (inner: number, denoise: number): number =>
    updates * inner / (updates * inner + steps * denoise);
  return {
    time: share(mean(report.innerSeconds), mean(report.denoiseSeconds)),
    flops: share(report.innerWork.flops, report.denoiseWork.flops),
  };
}

/** Seconds of a picture with other numbers of steps, from the steps that were measured. */
export function extrapolated(
  report: ImageReport,
  { steps, guided }: ImageRequest,
): number {
  return guided * median(report.guidedStepSeconds) +
    (steps - guided) * median(report.plainStepSeconds) + report.restSeconds;
}

/** What starting takes. */
export interface StartReport {
  /** Opening the model in a process that has done nothing before. */
  readonly openSeconds: number;
  /** Its first step, which compiles. */
  readonly firstStepSeconds: number;
  /** From the start of that process to the end of its first step. */
  readonly processToFirstStepSeconds: number;
  /** The last, where the driver's cache of compiled shaders is empty, as on a machine that never ran it. */
  readonly withoutShaderCacheSeconds: number;
}

/** One column per report. */
export function imageTable(
  columns: readonly {
    readonly name: string;
    readonly image: ImageReport;
    readonly start: StartReport;
    /** What is quoted for a whole picture where fewer steps were run. */
    readonly whole?: ImageRequest | undefined;
  }[],
): string {
  const ms = (list: readonly number[]): string =>
    spread(list.map((s) => 1000 * s), (x) => x.toFixed(0));
  const row = (
    name: string,
    cell: (c: typeof columns[number]) => string,
  ): string[] => [name, ...columns.map(cell)];
  const { iterations } = columns[0]!.image;
  return table([
    "a picture of the embedded model",
    ...columns.map((c) => c.name),
  ], [
    row(
      "plain step (one pass of both prompts): ms",
      (c) => ms(c.image.plainStepSeconds),
    ),
    row(
      `guided step (${iterations} forward and backward passes, one pass of both prompts): ms`,
      (c) => ms(c.image.guidedStepSeconds),
    ),
    row("decode and PNG: ms", (c) => (1000 * c.image.restSeconds).toFixed(0)),
    row("open: ms", (c) => (1000 * c.start.openSeconds).toFixed(0)),
    row(
      "first step, which compiles: ms",
      (c) => (1000 * c.start.firstStepSeconds).toFixed(0),
    ),
    row(
      "process start to first step; the first time on a machine: s",
      ({ start }) =>
        `${short(start.processToFirstStepSeconds)}; ${
          short(start.withoutShaderCacheSeconds)
        }`,
    ),
    row("whole picture: s", ({ image, whole }) => {
      const { steps, guided } = whole ?? image;
      return `${
        whole
          ? `about ${short(extrapolated(image, whole))}`
          : short(image.seconds)
      } (${steps} steps, ${guided} guided)`;
    }),
    row("guidance's share of time / of FLOPs", ({ image, whole }) => {
      const { time, flops } = guidanceShares(image, whole);
      return `${percent(time)} / ${percent(flops)}`;
    }),
    row("device MB at most: weights / sampling / decoding", ({ image }) => {
      const { weights, sampling, decoding } = image.memory;
      return [weights, sampling, decoding].map((b) => (b / 1e6).toFixed(0))
        .join(" / ");
    }),
  ]);
}
