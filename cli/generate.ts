/** `generate`: a request from the command line -> PNG files. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import {
  type Candidate,
  checkForModel,
  describeModel,
  EMBEDDED_MODELS,
  encodePng,
  energySvg,
  type FullRequest,
  type GenerateRequest,
  guidedPasses,
  metadata,
  type Model,
  type Prediction,
  type StepInfo,
  subjectEnergy,
} from "../mod.ts";
import { AttentionAlbum, checkAttentionFolder } from "./attention.ts";
import { seedsOf } from "./batch_jobs.ts";
import { boxedPicture } from "./demo.ts";
import { openPlanned } from "./device.ts";
import { checkTargets, type NewFile, withSuffix, writeFiles } from "./files.ts";
import { asUsage, type Flags, readNumber, UsageError } from "./flags.ts";
import { formatSeconds, type Io, Progress } from "./io.ts";
import { readRequest } from "./request.ts";

/** One picture and what is wanted beside it. */
interface Job {
  readonly path: string;
  /** Where the picture with boxes goes. */
  readonly overlay: string | undefined;
  /** Folder of attention maps. */
  readonly maps: string | undefined;
  /** File of energy curves. */
  readonly curves: string | undefined;
  readonly request: GenerateRequest;
}

/** Checks everything, then paints one picture or several. */
export async function generate(flags: Flags, io: Io): Promise<number> {
  const { signal } = io;
  const asked: GenerateRequest & { model?: unknown } = await readRequest(flags);
  const output = flags.text("output") ?? "out.png";
  const seeds = readSeeds(flags, asked.seed, asked.bestOf);
  const count = seeds.length;
  const force = flags.has("force");
  const jobs = seeds.map((seed, i): Job => {
    const number = count === 1 ? "" : `-${i + 1}`;
    const path = withSuffix(output, number);
    const maps = flags.text("attention-maps");
    const curves = flags.text("energy-svg");
    return {
      path,
      overlay: flags.has("overlay") ? withSuffix(path, ".boxes") : undefined,
      maps: maps && join(maps, number && String(i + 1)),
      curves: curves && withSuffix(curves, number),
      request: seed === undefined ? asked : { ...asked, seed },
    };
  });
  await checkTargets(
    jobs.flatMap(({ path, overlay }) => overlay ? [path, overlay] : [path]),
    { force },
  );
  await checkTargets(jobs.flatMap(({ curves }) => curves ?? []), {
    force,
    type: "svg",
  });
  const location = flags.text("model") ?? modelOf(asked.model);
  const facts = await describeModel(location, {
    signal,
    variant: flags.choice<"fp16">("variant"),
    prediction: flags.choice<Prediction>("prediction"),
  });
  let notes: string[] = [];
  const requests: FullRequest[] = [];
  for (const { request } of jobs) {
    const checked = asUsage(() => checkForModel(request, facts));
    if (flags.has("overlay") && checked.request.regions.length === 0) {
      throw new UsageError(
        "Cannot draw boxes: with --overlay there must be one: current 0",
      );
    }
    notes = checked.notes;
    await checkExtras(flags, checked.request);
    requests.push(checked.request);
  }
  for (const note of notes) io.say(`note: ${note}`);

  await using opened = await openPlanned(location, facts, requests, flags, io);
  for (const [i, job] of jobs.entries()) {
    const name = count > 1 ? `${i + 1}/${count}` : "";
    await paint(opened.model, job, name, flags, io);
  }
  return 0;
}

/** The seed of each picture: listed, counted from the request's, or the request's own. */
function readSeeds(
  flags: Flags,
  first: unknown,
  bestOf: unknown,
): readonly (number | undefined)[] {
  const text = flags.text("seeds");
  if (text === undefined) {
    const count = flags.number("count");
    return asFlag("count", () => seedsOf(first, undefined, count, bestOf));
  }
  for (const name of ["seed", "count"]) {
    if (flags.has(name)) {
      throw new UsageError(`Cannot use --${name} with --seeds: one must do`);
    }
  }
  const seeds = text.split(",").map((part) => readNumber(part, "seeds"));
  return asFlag("seeds", () => seedsOf(undefined, seeds, undefined));
}

function asFlag<T>(name: string, check: () => T): T {
  try {
    return check();
  } catch (cause) {
    throw new UsageError(
      `Cannot use --${name}: ${
        (cause as Error).message.replace(/^\w+ must/, "it must")
      }`,
      { cause },
    );
  }
}

/** Paints one picture, writes its files and prints their names. */
async function paint(
  model: Model,
  { path, overlay, maps, curves, request }: Job,
  name: string,
  flags: Flags,
  io: Io,
): Promise<void> {
  const { signal } = io;
  const json = flags.has("json");
  using progress = new Progress(io, name);
  const album = maps === undefined ? undefined : new AttentionAlbum();
  const result = await model.generate(request, {
    signal,
    onPass: (done, total) => progress.pass(done, total),
    onStep: (info) => {
      progress.step(info);
      if (json) io.out(JSON.stringify(stepLine(info)));
    },
    onAttention: album && ((step) => album.add(step)),
    onCandidate: (candidate) => {
      album?.judge(candidate);
      if (json) io.out(JSON.stringify({ candidate }));
      else io.say(candidateLine(candidate));
    },
  });
  const files: NewFile[] = [{ path, bytes: result.png }];
  if (overlay !== undefined) {
    const { rgb, width, height } = boxedPicture(result);
    const text = metadata(result.request, result.report.candidates);
    files.push({
      path: overlay,
      bytes: await encodePng(rgb, width, height, { text }),
    });
  }
  const { report } = result;
  if (curves !== undefined) {
    const bytes = new TextEncoder().encode(energySvg(report));
    files.push({ path: curves, bytes });
  }
  const pictures = await album?.files(maps!, result.request) ?? [];
  if (maps !== undefined) await mkdir(maps, { recursive: true });
  await writeFiles([...files, ...pictures], signal, {
    force: flags.has("force"),
  });
  const backend = model.backend.description;
  if (json) {
    const { seed } = result.request;
    io.out(JSON.stringify({
      file: path,
      ...(overlay === undefined ? {} : { overlay }),
      ...(maps === undefined ? {} : { attentionMaps: maps }),
      ...(curves === undefined ? {} : { energySvg: curves }),
      seed,
      request: result.request,
      notes: result.notes,
      report,
      backend,
    }));
    return;
  }
  progress[Symbol.dispose]();
  for (const { path } of [...files, ...pictures.slice(0, 1)]) io.out(path);
  const shares = report.regions.map(({ phrase, share }) =>
    `${phrase} ${Math.round(share * 100)} %`
  );
  io.say([
    `seed ${result.request.seed}`,
    ...(shares.length ? [`attention in its box: ${shares.join(", ")}`] : []),
    `${formatSeconds(report.seconds)} on ${backend}`,
  ].join("; "));
}

/** Checks what is wanted beside a picture against its request. */
async function checkExtras(
  flags: Flags,
  request: FullRequest,
): Promise<void> {
  const { guidance, regions } = request;
  const maps = flags.text("attention-maps");
  const force = flags.has("force");
  if (maps !== undefined) await checkAttentionFolder(maps, request, { force });
  const guided = regions.length > 0 &&
    guidedPasses(guidance, request.steps) > 0;
  if (flags.has("energy-svg") && !guided) {
    throw new UsageError(
      "Cannot draw energies: with --energy-svg there must be a box and a guided step: current 0",
    );
  }
}

/** What --json tells of a step: energies of the last update's evaluation, shares of the denoising pass. */
function stepLine(
  { step, seed, timestep, energy, inner, regionShares }: StepInfo,
): Record<string, unknown> {
  const last = inner.at(-1);
  const regionEnergies =
    last?.subjects.map((terms) => subjectEnergy(terms, last.rho) ?? null) ??
      null;
  return {
    step,
    seed,
    timestep,
    energy: energy ?? null,
    regionEnergies,
    regionTerms: last?.subjects ?? null,
    regionShares,
  };
}

function candidateLine({ seed, score }: Candidate): string {
  return `seed ${seed}: score ${score.toFixed(3)}`;
}

/** The model that a request from a file names. */
function modelOf(name: unknown): string {
  if (name === undefined) return EMBEDDED_MODELS[0];
  if ((EMBEDDED_MODELS as readonly unknown[]).includes(name)) return `${name}`;
  throw new UsageError(
    `Cannot use request: its model must be at hand: current ${
      JSON.stringify(name)
    }; say where it is with --model`,
  );
}
