/** `batch`: a file of layouts -> a folder of pictures, resumable. */
import {
  describeModel,
  DeviceLostError,
  EMBEDDED_MODELS,
  type Model,
  type Prediction,
} from "../mod.ts";
import { BatchFolder } from "./batch_folder.ts";
import { type Job, readJobs } from "./batch_jobs.ts";
import { openPlanned } from "./device.ts";
import { type Flags, UsageError } from "./flags.ts";
import { formatSeconds, type Io, Progress } from "./io.ts";

/** Paints what is not there yet. Exit code 1 if a picture failed and `--keep-going` was given. */
export async function batch(flags: Flags, io: Io): Promise<number> {
  const [file] = flags.words;
  const output = flags.text("output");
  if (file === undefined || output === undefined) {
    throw new UsageError(
      `Cannot run batch: there must be a file of layouts and a folder, -o: current ${
        file === undefined ? "file is missing" : "folder is missing"
      }`,
    );
  }
  const location = flags.text("model") ?? EMBEDDED_MODELS[0];
  const facts = await describeModel(location, {
    signal: io.signal,
    variant: flags.choice<"fp16">("variant"),
    prediction: flags.choice<Prediction>("prediction"),
  });
  const jobs = await readJobs(file, output, facts, flags);
  await using folder = await BatchFolder.open(output);
  const { left, done } = await folder.reconcile(jobs, flags.has("force"));
  if (done.length) {
    io.say(`${done.length} of ${jobs.length} are there already`);
  }
  for (const { line, notes } of left) {
    for (const note of notes) io.say(`note: line ${line}: ${note}`);
  }
  if (left.length === 0) return 0;
  await using opened = await openPlanned(
    location,
    facts,
    left.map(({ request }) => request),
    flags,
    io,
  );
  const started = performance.now();
  let failed = 0;
  for (const [i, job] of left.entries()) {
    const spent = (performance.now() - started) / 1000;
    const name = `${done.length + i + 1}/${jobs.length}${
      i ? ` (${formatSeconds(spent / i * (left.length - i))} left)` : ""
    }`;
    try {
      await paintJob(opened.model, job, name, folder, flags, io);
    } catch (error) {
      const hopeless = io.signal.aborted || error instanceof DeviceLostError;
      if (hopeless || !flags.has("keep-going")) throw error;
      failed++;
      io.say(`line ${job.line}: ${(error as Error).message}`);
      await folder.addError(job, error as Error);
    }
  }
  io.say(
    `${
      left.length - failed
    } painted, ${done.length} were there, ${failed} failed`,
  );
  return failed ? 1 : 0;
}

async function paintJob(
  model: Model,
  job: Job,
  name: string,
  folder: BatchFolder,
  flags: Flags,
  io: Io,
): Promise<void> {
  const { signal } = io;
  using progress = new Progress(io, name);
  const { png, report, request } = await model.generate(job.request, {
    signal,
    onPass: (count, total) => progress.pass(count, total),
    onStep: (info) => progress.step(info),
  });
  signal.throwIfAborted();
  const line = await folder.add(job, png, {
    seed: request.seed,
    ...(report.candidates ? { candidates: report.candidates } : {}),
    shares: report.regions.map(({ phrase, share }) => ({ phrase, share })),
    seconds: report.seconds,
    peakBytes: report.peakBytes,
    model: model.name,
    backend: model.backend.description,
  });
  progress[Symbol.dispose]();
  io.out(
    flags.has("json")
      ? JSON.stringify(line)
      : `${job.path}  seed ${line["seed"]}`,
  );
}
