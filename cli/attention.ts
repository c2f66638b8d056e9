/** `--attention-maps`: collects the maps of a run and makes their pictures. */
import { readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import {
  type AttentionFrame,
  attentionPicture,
  attentionSheet,
  type AttentionStep,
  type Candidate,
  encodePng,
  type FullRequest,
  type Picture,
} from "../mod.ts";
import { type NewFile, targetFolder } from "./files.ts";
import { UsageError } from "./flags.ts";

/**
 * Checks that maps can be written to a folder, before anything is computed.
 *
 * @param options.force Whether files of the folder may be replaced.
 */
export async function checkAttentionFolder(
  folder: string,
  request: FullRequest,
  options: { readonly force: boolean },
): Promise<void> {
  if (request.regions.length === 0) {
    throw new UsageError(
      "Cannot draw attention maps: there must be a --box or --mask whose phrase they show: current 0",
    );
  }
  await targetFolder(dirname(folder), folder);
  const there = await readdir(folder).catch((error) => {
    if (error.code === "ENOENT") return [];
    throw new UsageError(
      `Cannot write ${folder}: it must be a folder: current error is ${error.message}`,
      { cause: error },
    );
  });
  if (there.length > 0 && !options.force) {
    throw new UsageError(
      `Cannot write ${folder}: it must be empty: current folder has ${there.length} files; choose another --attention-maps, or --force`,
    );
  }
}

/** The maps of one picture. */
export class AttentionAlbum {
  readonly #frames = new Map<number, AttentionFrame[]>();
  #best: Candidate | undefined;

  /** Keeps a step. */
  async add({ preview, ...step }: AttentionStep): Promise<void> {
    const frames = this.#frames.get(step.seed) ?? [];
    this.#frames.set(step.seed, frames);
    frames.push({ ...step, picture: await preview() });
  }

  /** Best of n: forgets what will not be kept. */
  judge(candidate: Candidate): void {
    const better = this.#best === undefined ||
      candidate.score > this.#best.score;
    this.#frames.delete(better ? this.#best?.seed ?? -1 : candidate.seed);
    if (better) this.#best = candidate;
  }

  /** A file per step and region, and an overview, for the seed that was kept. */
  async files(folder: string, request: FullRequest): Promise<NewFile[]> {
    const { regions, seed } = request;
    const frames = this.#frames.get(seed)!;
    const names = fileNames(regions.map(({ phrase }) => phrase));
    const digits = Math.max(2, String(frames.length).length);
    const files = [
      await png(join(folder, "overview.png"), attentionSheet(frames, regions)),
    ];
    for (const frame of frames) {
      const step = String(frame.step).padStart(digits, "0");
      for (const [i, map] of frame.maps.entries()) {
        const picture = attentionPicture(frame, map, regions[i]!);
        const path = join(folder, `step-${step}-${names[i]}.png`);
        files.push(await png(path, picture));
      }
    }
    return files;
  }
}

async function png(
  path: string,
  { rgb, width, height }: Picture,
): Promise<NewFile> {
  return { path, bytes: await encodePng(rgb, width, height) };
}

/** Phrases as different parts of file names. */
function fileNames(phrases: readonly string[]): string[] {
  const names: string[] = [];
  for (const phrase of phrases) {
    const name = phrase.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-")
      .replace(/^-|-$/g, "").slice(0, 40) || "region";
    let free = name;
    for (let n = 2; names.includes(free); n++) free = `${name}-${n}`;
    names.push(free);
  }
  return names;
}
