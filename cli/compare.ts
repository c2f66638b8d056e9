/** `compare`: layouts x methods x seeds -> pictures, scores with error bars, contact sheets; resumable. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  describeModel,
  Detector,
  EMBEDDED_MODELS,
  embeddedModel,
  type FullRequest,
  lockHolder,
  type Prediction,
} from "../mod.ts";
import {
  loadPicture,
  picturesIn,
  splitJobs,
  storePicture,
} from "./compare_folder.ts";
import { type CompareJob, compareJobs } from "./compare_jobs.ts";
import { type Scored, scoreFolder } from "./compare_score.ts";
import { openPlanned } from "./device.ts";
import { type Flags, UsageError } from "./flags.ts";
import { formatSeconds, type Io, Progress } from "./io.ts";
import { lockFolder } from "./locked_folder.ts";
import { readVariants } from "./variants.ts";

const COMMAND = "compare";
const MOST_PARTS = 1000;
/** Options that scoring has a use for. */
const RESCORED = ["rescore", "against", "detector", "json", "debug"];

/** Paints what is not there yet, then scores what is there. */
export async function compare(flags: Flags, io: Io): Promise<number> {
  if (flags.has("rescore")) return await rescore(flags, io);
  const out = flags.text("out");
  if (out === undefined) {
    throw new UsageError(
      "Cannot compare: there must be a folder for the results: give --out",
    );
  }
  const variants = await readVariants(flags);
  const location = flags.text("model") ?? EMBEDDED_MODELS[0];
  const facts = await describeModel(location, {
    signal: io.signal,
    variant: flags.choice<"fp16">("variant"),
    prediction: flags.choice<Prediction>("prediction"),
  });
  using detector = await openDetector(flags, location, io);
  const all = await compareJobs(variants, facts, detector, flags);
  const part = readPart(flags);
  const jobs = part
    ? all.filter((_, i) => i % part.of === part.number - 1)
    : all;
  await using _lock = await lockFolder(
    out,
    part ? `${COMMAND}-${part.number}-of-${part.of}` : COMMAND,
  );
  await refuseOthers(out, part);
  const folder = join(out, "images");
  const { left, done, broken } = await splitJobs(
    folder,
    jobs,
    flags.has("force"),
  );
  if (done.length) io.say(`${done.length} of ${jobs.length} are there already`);
  for (const file of broken) io.say(`note: ${file} is broken and made again`);
  for (const { layout, notes } of left) {
    for (const note of notes) io.say(`note: ${layout}: ${note}`);
  }
  if (left.length) {
    await using opened = await openPlanned(
      location,
      facts,
      left.map(({ request }) => request),
      flags,
      io,
    );
    const { model } = opened;
    const clock = new Clock(left);
    for (const [i, job] of left.entries()) {
      const { layout, variant, request } = job;
      const name = [
        `${done.length + i + 1}/${jobs.length} ${layout} ${variant}`,
        ...(i ? [`(${formatSeconds(clock.left(i))} left)`] : []),
      ].join(" ");
      using progress = new Progress(io, name);
      const result = await model.generate(request, {
        signal: io.signal,
        onPass: (count, total) => progress.pass(count, total),
        onStep: (step) => progress.step(step),
      });
      io.signal.throwIfAborted();
      const backend = model.backend.description;
      await storePicture(folder, job, result, {
        against: variants.against,
        backend,
      });
      clock.add(job, result.report.seconds);
    }
  }
  if (part) {
    io.say(
      "This part is painted; the same command without --part scores all parts",
    );
    return 0;
  }
  const { against } = variants;
  const files = jobs.map(({ file }) => file);
  print(await scoreFolder({ out, files, detector, against }, io), flags, io);
  return 0;
}

/** Throws if a process is at work in the folder that paints some of the same pictures. */
async function refuseOthers(
  out: string,
  part: { number: number; of: number } | undefined,
): Promise<void> {
  for (const file of await readdir(out)) {
    const match = /^\.compare(?:-\d+-of-(\d+))?\.lock$/.exec(file);
    // Its own lock, or that of another part of the same whole.
    if (!match || Number(match[1] ?? 0) === (part?.of ?? 0)) continue;
    const holder = await lockHolder(join(out, file));
    if (holder === undefined) continue;
    throw new UsageError(
      `Cannot paint into ${out}: no other comparison may be at work in it, but parts of the same whole: current ${file} is of ${holder}`,
    );
  }
}

/** The part of the pictures that this process paints. */
function readPart(flags: Flags): { number: number; of: number } | undefined {
  const text = flags.text("part");
  if (text === undefined) return undefined;
  const [, number, of] = /^(\d+)\/(\d+)$/.exec(text)?.map(Number) ?? [];
  if (!(number && of && number <= of && of <= MOST_PARTS)) {
    throw new UsageError(
      `Cannot use --part: it must be K/N, K from 1 to N, N up to ${MOST_PARTS}: current ${text}`,
    );
  }
  return { number, of };
}

/** Scores the pictures of a folder, whatever made them. */
async function rescore(flags: Flags, io: Io): Promise<number> {
  const out = flags.text("rescore")!;
  const useless = flags.names.find((name) => !RESCORED.includes(name));
  if (useless) {
    throw new UsageError(
      `Cannot use --${useless} with --rescore: the pictures say what they are`,
    );
  }
  const files = await picturesIn(join(out, "images"));
  if (files.length === 0) {
    throw new UsageError(
      `Cannot score ${out}: there must be pictures in its folder images: current 0`,
    );
  }
  const { request } = await loadPicture(join(out, "images"), files[0]!);
  const { model } = JSON.parse(request) as FullRequest;
  using detector = await openDetector(flags, model, io);
  await using _lock = await lockFolder(out, COMMAND);
  const against = flags.text("against");
  print(await scoreFolder({ out, files, detector, against }, io), flags, io);
  return 0;
}

/** The detector that was given, else the embedded model's own. */
async function openDetector(
  flags: Flags,
  location: string,
  io: Io,
): Promise<Detector | undefined> {
  const folder = flags.text("detector") ?? embeddedModel(location);
  return folder === undefined
    ? undefined
    : await Detector.open(folder, { signal: io.signal });
}

/** How long the rest will take, from what each method took so far. */
class Clock {
  readonly #jobs: readonly CompareJob[];
  readonly #spent = new Map<string, { seconds: number; count: number }>();

  constructor(jobs: readonly CompareJob[]) {
    this.#jobs = jobs;
  }

  /** A picture is done. */
  add({ variant }: CompareJob, seconds: number): void {
    const old = this.#spent.get(variant) ?? { seconds: 0, count: 0 };
    this.#spent.set(variant, {
      seconds: old.seconds + seconds,
      count: old.count + 1,
    });
  }

  /** Seconds for the jobs from `first` on; a method not seen yet takes as long as the others do. */
  left(first: number): number {
    const seen = [...this.#spent.values()];
    const each = (x: { seconds: number; count: number }): number =>
      x.seconds / x.count;
    const usual = seen.reduce((sum, x) => sum + each(x), 0) / seen.length;
    return this.#jobs.slice(first).reduce((sum, { variant }) => {
      const own = this.#spent.get(variant);
      return sum + (own ? each(own) : usual);
    }, 0);
  }
}

function print({ summary, table, paths }: Scored, flags: Flags, io: Io): void {
  if (flags.has("json")) {
    const { variants, ...rest } = summary;
    for (const row of variants) io.out(JSON.stringify({ ...row, ...rest }));
    return;
  }
  io.out(table);
  for (const path of paths) io.say(path);
}
