/**
 * The pictures of a comparison on disk. Each PNG says all about itself: its request, and under another
 * keyword its layout, method, attention shares and seconds. So scores can be made from the pictures
 * alone, and a picture that is whole and has the right request need not be painted again.
 */
import {
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import {
  type CheckedRegion,
  checkLayout,
  decodePng,
  encodePng,
  type GenerateResult,
  metadata,
  type Picture,
  readPngText,
  REQUEST_KEY,
} from "../mod.ts";
import type { CompareJob } from "./compare_jobs.ts";
import { UsageError } from "./flags.ts";

/** PNG keyword beside that of the request. */
export const COMPARE_KEY = "winwinlay-compare";

/** What a picture says of its making. */
export interface Making {
  /** Id of its layout. */
  readonly layout: string;
  /** Place of the layout. */
  readonly row: number;
  /** Name of its method. */
  readonly variant: string;
  /** Place of the method. */
  readonly column: number;
  /** The method that the differences are to. */
  readonly against: string;
  /** Per region: share of its attention in its boxes, mean over the steps; null where it was not measured. */
  readonly shares: readonly (number | null)[];
  /** Wall clock. */
  readonly seconds: number;
  /** Where it was painted. */
  readonly backend: string;
}

/** A picture read from the folder. */
export interface StoredPicture extends Making {
  /** Name in the folder. */
  readonly file: string;
  /** What was asked for. */
  readonly prompt: string;
  /** Of its noise. */
  readonly seed: number;
  /** Phrases and boxes. */
  readonly regions: readonly CheckedRegion[];
  /** The whole request as text. */
  readonly request: string;
  /** Its pixels. */
  readonly picture: Picture;
}

/**
 * Splits jobs into those whose picture is there and those that are left. A file that is no whole picture is
 * left, too.
 *
 * @param force Paint again what is there for another request, instead of an error.
 */
export async function splitJobs(
  folder: string,
  jobs: readonly CompareJob[],
  force: boolean,
): Promise<{ left: CompareJob[]; done: CompareJob[]; broken: string[] }> {
  await mkdir(folder, { recursive: true });
  const left: CompareJob[] = [], done: CompareJob[] = [];
  const broken: string[] = [];
  for (const job of jobs) {
    const path = join(folder, job.file);
    await rm(`${path}.partial`, { force: true });
    const bytes = await readFile(path).catch((error) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    const stored = bytes && readStored(job.file, bytes);
    if (stored === undefined) {
      if (bytes) broken.push(job.file);
      left.push(job);
    } else if (stored.request === JSON.stringify(job.request)) done.push(job);
    else if (force) left.push(job);
    else {
      throw new UsageError(
        `Cannot paint ${job.file}: ${path} must not be there for another request: current file has another; choose another --out, or --force`,
      );
    }
  }
  return { left, done, broken };
}

/** Writes a picture with its making. */
export async function storePicture(
  folder: string,
  { file, layout, row, variant, column }: CompareJob,
  { rgb, width, height, request, report }: GenerateResult,
  { against, backend }: Pick<Making, "against" | "backend">,
): Promise<void> {
  const making: Making = {
    layout,
    row,
    variant,
    column,
    against,
    shares: report.regions.map(({ share }) =>
      Number.isFinite(share) ? share : null
    ),
    seconds: report.seconds,
    backend,
  };
  const text = { ...metadata(request), [COMPARE_KEY]: JSON.stringify(making) };
  const path = join(folder, file);
  try {
    await writeFile(
      `${path}.partial`,
      await encodePng(rgb, width, height, { text }),
    );
    await rename(`${path}.partial`, path);
  } catch (cause) {
    await rm(`${path}.partial`, { force: true }).catch(() => {});
    throw new Error(`Cannot write ${path}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** Names of the PNG files, sorted. */
export async function picturesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => name.endsWith(".png"))
      .sort();
  } catch (cause) {
    throw new UsageError(
      `Cannot score ${folder}: it must be a folder of pictures: current error is ${
        (cause as Error).message
      }`,
      { cause },
    );
  }
}

/**
 * Reads a picture.
 *
 * @throws {UsageError} If it is not whole or not of a comparison.
 */
export async function loadPicture(
  folder: string,
  file: string,
): Promise<StoredPicture> {
  const stored = readStored(file, await readFile(join(folder, file)));
  if (stored !== undefined) return stored;
  throw new UsageError(
    `Cannot score ${
      join(folder, file)
    }: it must be a whole picture of a comparison: current one is not`,
  );
}

/** Undefined if the bytes are no whole picture of a comparison. */
function readStored(
  file: string,
  bytes: Uint8Array,
): StoredPicture | undefined {
  try {
    const picture = decodePng(bytes);
    const texts = readPngText(bytes);
    const request = texts.get(REQUEST_KEY)!;
    const { prompt, seed, regions } = JSON.parse(request);
    const making = JSON.parse(texts.get(COMPARE_KEY)!) as Making;
    const whole =
      [prompt, making.layout, making.variant, making.against, making.backend]
        .every((x) => typeof x === "string") &&
      [seed, making.row, making.column, making.seconds].every(
        Number.isFinite,
      ) &&
      Array.isArray(making.shares) && making.shares.length === regions.length;
    if (!whole) return undefined;
    return {
      ...making,
      file,
      prompt,
      seed,
      regions: checkLayout(regions).regions,
      request,
      picture,
    };
  } catch {
    return undefined;
  }
}
