/** `demo`: one layout of the embedded model, without and with guidance. */
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import {
  checkForModel,
  describeModel,
  drawBoxes,
  encodePng,
  enlarge,
  generateInWorkers,
  type GenerateRequest,
  type GenerateResult,
  open,
  type PresetName,
  shapeBoxes,
  sideBySide,
} from "../mod.ts";
import { backendOf } from "./device.ts";
import { checkTargets, writeFiles } from "./files.ts";
import { asUsage, type Flags } from "./flags.ts";
import { formatSeconds, formatTable, type Io, Progress } from "./io.ts";

const MODEL = "tiny-scenes";
/** Without guidance this seed swaps the cat and the star. */
const SEED = 8;
const SCENE: GenerateRequest = {
  prompt: "an orange cat and a yellow star and a green tree on snow",
  regions: [
    { phrase: "orange cat", boxes: [[0.04, 0.47, 0.44, 0.9]] },
    { phrase: "yellow star", boxes: [[0.1, 0.04, 0.42, 0.38]] },
    { phrase: "green tree", boxes: [[0.58, 0.24, 0.94, 0.82]] },
  ],
};
const NAMES = ["unguided", "guided"] as const;
const SIDE = 512; // pixels of each picture in demo.png, at least

/** Paints both pictures and the one that shows them side by side. */
export async function demo(flags: Flags, io: Io): Promise<number> {
  const folder = flags.text("output") ?? "winwinlay-demo";
  const base: GenerateRequest = {
    ...SCENE,
    seed: flags.number("seed") ?? SEED,
    ...(flags.has("steps") ? { steps: flags.number("steps")! } : {}),
    ...(flags.has("preset")
      ? { preset: flags.choice<PresetName>("preset")! }
      : {}),
  };
  const requests = [{ ...base, guidance: { method: "none" as const } }, base];
  const facts = await describeModel(MODEL, io);
  for (const request of requests) asUsage(() => checkForModel(request, facts));
  const paths = [...NAMES, "demo"].map((name) => join(folder, `${name}.png`));
  const there = await stat(folder).catch(() => undefined);
  if (there !== undefined) {
    await checkTargets(paths, { force: flags.has("force") });
  }

  const { results, where } = await paint(requests, flags, io);
  const sheet = await contactSheet(results, where);
  const files = [...results.map(({ png }) => png), sheet];
  await mkdir(folder, { recursive: true });
  await writeFiles(
    files.map((bytes, i) => ({ path: paths[i]!, bytes })),
    io.signal,
    { force: flags.has("force") },
  );
  report(results, paths, where, flags.has("json"), io);
  return 0;
}

async function paint(
  requests: readonly GenerateRequest[],
  flags: Flags,
  io: Io,
): Promise<{ results: GenerateResult[]; where: string }> {
  const { signal } = io;
  const backend = await backendOf(flags);
  using _backend = backend;
  const where = backend.description;
  if (backend.kind === "cpu") {
    io.say(
      `${where}: both pictures at the same time, two or three minutes on two cores`,
    );
    using progress = new Progress(io);
    const results = await generateInWorkers(MODEL, requests, {
      signal,
      onPass: (done, total) => progress.pass(done, total),
      // The guided picture takes longer: its steps are the ones to tell.
      onStep: (index, step) => index === 1 && progress.step(step),
    });
    return { results, where };
  }
  io.say(where);
  await using model = await open(MODEL, { backend, signal });
  const results: GenerateResult[] = [];
  for (const [i, request] of requests.entries()) {
    using progress = new Progress(io, NAMES[i]!);
    results.push(
      await model.generate(request, {
        signal,
        onPass: (done, total) => progress.pass(done, total),
        onStep: (step) => progress.step(step),
      }),
    );
  }
  return { results, where };
}

/** Both pictures side by side, enlarged, with their boxes and captions. */
async function contactSheet(
  results: readonly GenerateResult[],
  where: string,
): Promise<Uint8Array> {
  const pictures = results.map(boxedPicture);
  const { prompt, seed, steps } = results[0]!.request;
  const { rgb, width, height } = sideBySide(pictures, {
    scale: 2,
    gap: 16,
    captions: ["without guidance", `WinWinLay, the same seed ${seed}`],
  });
  return await encodePng(rgb, width, height, {
    text: {
      Title: "winwinlay demo",
      Description: `${prompt}; seed ${seed}, ${steps} steps; ${where}`,
    },
  });
}

/** A picture with its boxes drawn, enlarged where it is small. */
export function boxedPicture(
  { rgb, width, height, request }: Pick<
    GenerateResult,
    "rgb" | "width" | "height" | "request"
  >,
): { rgb: Uint8Array<ArrayBuffer>; width: number; height: number } {
  const factor = Math.max(1, Math.ceil(SIDE / Math.max(width, height)));
  const large = enlarge(rgb, width, height, factor, { filter: "bilinear" });
  const size = { width: width * factor, height: height * factor };
  const boxes = request.regions.flatMap((region) =>
    shapeBoxes(region).map((box) => ({
      box,
      mask: region.mask,
      label: region.phrase,
    }))
  );
  return {
    rgb: drawBoxes(large, size.width, size.height, boxes),
    ...size,
  };
}

function report(
  results: readonly GenerateResult[],
  paths: readonly string[],
  where: string,
  json: boolean,
  io: Io,
): void {
  if (json) {
    results.forEach(({ request, report }, i) =>
      io.out(JSON.stringify({
        file: paths[i],
        seed: request.seed,
        request,
        report,
        backend: where,
      }))
    );
    io.out(JSON.stringify({ file: paths.at(-1) }));
    return;
  }
  const [unguided, guided] = results.map(({ report }) => report);
  const percent = (share: number) => `${Math.round(share * 100)} %`;
  for (
    const line of formatTable([
      ["attention inside the box", "unguided", "guided"],
      ...guided!.regions.map(({ phrase, share }, i) => [
        phrase,
        percent(unguided!.regions[i]!.share),
        percent(share),
      ]),
      [
        "time",
        formatSeconds(unguided!.seconds),
        formatSeconds(guided!.seconds),
      ],
    ], [1, 2])
  ) io.out(line);
  for (const path of paths) io.out(path);
}
