/** `batch`'s layout file -> jobs: every line checked before anything is painted. */
import { join } from "node:path";
import {
  checkForModel,
  type FullRequest,
  type GenerateRequest,
  type ModelFacts,
} from "../mod.ts";
import { type Flags, UsageError } from "./flags.ts";
import { readInput, requestOver } from "./request.ts";

/** One picture to paint. */
export interface Job {
  /** Of the layout file, from 1. */
  readonly line: number;
  /** Name without `.png`. */
  readonly id: string;
  /** Where the picture goes. */
  readonly path: string;
  /** Complete. */
  readonly request: FullRequest;
  /** What was repaired in it. */
  readonly notes: readonly string[];
}

const MOST_LINES = 100_000;
const MOST_SEEDS = 10_000;
const MOST_SHOWN = 5;
/** Names that Windows keeps for itself, and those of our own files. */
const RESERVED = /^(?:con|prn|aux|nul|com\d|lpt\d|results|errors)$/i;

/**
 * Reads and checks the file.
 *
 * @param flags Defaults for every line.
 * @throws {UsageError} One error with all that is wrong: line numbers, the first few in full.
 */
export async function readJobs(
  file: string,
  folder: string,
  facts: ModelFacts,
  flags: Flags,
): Promise<Job[]> {
  const text = new TextDecoder().decode(await readInput(file, "layouts"));
  const lines = text.replace(/^\ufeff/, "").split("\n").map((line) =>
    line.trim()
  );
  if (lines.length > MOST_LINES) {
    throw new UsageError(
      `Cannot use ${file}: it must have at most ${MOST_LINES} lines: current ${lines.length}`,
    );
  }
  const digits = Math.max(4, String(lines.length).length);
  const jobs: Job[] = [];
  const problems: string[] = [];
  const taken = new Map<string, number>();
  for (const [i, line] of lines.entries()) {
    if (line === "") continue;
    const number = i + 1;
    try {
      const own = String(number).padStart(digits, "0");
      for (const job of lineJobs(line, own, facts, flags)) {
        const key = job.id.toLowerCase(); // some file systems do not tell them apart
        const other = taken.get(key);
        if (other !== undefined) {
          throw new UsageError(`id "${job.id}" is that of line ${other} too`);
        }
        taken.set(key, number);
        jobs.push({
          ...job,
          line: number,
          path: join(folder, `${job.id}.png`),
        });
      }
    } catch (error) {
      problems.push(
        `line ${number}: ${
          (error as Error).message.replace(/^Cannot use (request|line): /, "")
        }`,
      );
    }
  }
  if (problems.length) {
    const more = problems.length - MOST_SHOWN;
    throw new UsageError(
      `Cannot use ${file}: every line must be a request that this model can paint: current problems are ${
        problems.slice(0, MOST_SHOWN).join("; ")
      }${more > 0 ? `; and ${more} more` : ""}`,
    );
  }
  if (jobs.length === 0) {
    throw new UsageError(
      `Cannot use ${file}: it must hold a request such as {"prompt": "...", "regions": [...]} on each line: current file has none`,
    );
  }
  return jobs;
}

/** The pictures of one line: one, or one for each of its seeds. */
function lineJobs(
  line: string,
  number: string,
  facts: ModelFacts,
  flags: Flags,
): Pick<Job, "id" | "request" | "notes">[] {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new UsageError(
      `it must be JSON: current error is ${(cause as Error).message}`,
      { cause },
    );
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UsageError("it must be an object with a prompt");
  }
  const { id = number, seeds, count, ...rest } = value as Record<
    string,
    unknown
  >;
  const request = requestOver(rest, flags) as unknown as GenerateRequest;
  const list = seedsOf(request.seed, seeds, count);
  return list.map((seed) => {
    const { request: full, notes } = checkForModel(
      { ...request, ...(seed === undefined ? {} : { seed }) },
      facts,
    );
    const name = checkId(id);
    return {
      id: list.length === 1 ? name : `${name}-${full.seed}`,
      request: full,
      notes,
    };
  });
}

/** `seeds`, or `count` from `seed`. */
export function seedsOf(
  seed: unknown,
  seeds: unknown,
  count: unknown,
): readonly (number | undefined)[] {
  if (seeds !== undefined) {
    if (count !== undefined || seed !== undefined) {
      throw new UsageError("seeds must stand alone, without seed and count");
    }
    const whole = Array.isArray(seeds) && seeds.length > 0 &&
      seeds.length <= MOST_SEEDS && seeds.every(Number.isSafeInteger) &&
      new Set(seeds).size === seeds.length;
    if (!whole) {
      throw new UsageError(
        `seeds must be a list of 1 to ${MOST_SEEDS} different whole numbers: current ${
          JSON.stringify(seeds)
        }`,
      );
    }
    return seeds;
  }
  if (count === undefined) return [undefined];
  if (
    !(Number.isInteger(count) && (count as number) >= 1 &&
      (count as number) <= MOST_SEEDS)
  ) {
    throw new UsageError(
      `count must be a whole number from 1 to ${MOST_SEEDS}: current ${
        JSON.stringify(count)
      }`,
    );
  }
  const first = typeof seed === "number" ? seed : 0;
  return Array.from({ length: count as number }, (_, i) => first + i);
}

function checkId(id: unknown): string {
  const fine = typeof id === "string" &&
    /^[\p{L}\p{N}_](?:[\p{L}\p{N}_ .+-]{0,98}[\p{L}\p{N}_+-])?$/u.test(id) &&
    !RESERVED.test(id.split(".")[0]!) && !id.includes("..");
  if (!fine) {
    throw new UsageError(
      `id must be a file name of at most 100 letters, digits, spaces and _ . + -: current ${
        JSON.stringify(id)
      }`,
    );
  }
  return id as string;
}
