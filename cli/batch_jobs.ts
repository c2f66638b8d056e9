/** `batch`'s layout file -> jobs: every line checked before anything is painted. */
import { dirname, join } from "node:path";
import {
  checkForModel,
  type FullRequest,
  type GenerateRequest,
  type ModelFacts,
} from "../mod.ts";
import { type Flags, UsageError } from "./flags.ts";
import { checkId, parseLine, Problems, readLines } from "./layout_lines.ts";
import { readMasks, requestOver } from "./request.ts";

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

const MOST_SEEDS = 10_000;

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
  const jobs: Job[] = [];
  const problems = new Problems();
  const taken = new Map<string, number>();
  for (const { number, text, own } of await readLines(file)) {
    try {
      for (
        const job of await lineJobs(text, own, dirname(file), facts, flags)
      ) {
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
      problems.add(`line ${number}`, error);
    }
  }
  problems.throwIfAny(file);
  return jobs;
}

/** The pictures of one line: one, or one for each of its seeds. */
async function lineJobs(
  line: string,
  number: string,
  folder: string,
  facts: ModelFacts,
  flags: Flags,
): Promise<Pick<Job, "id" | "request" | "notes">[]> {
  const { id = number, seeds, count, ...rest } = parseLine(line);
  const read = await readMasks(rest, folder);
  const request = requestOver(read, flags) as unknown as GenerateRequest;
  const list = seedsOf(request.seed, seeds, count, request.bestOf);
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

/** `seeds`, or `count` from `seed`, `bestOf` apart, so that no picture tries a seed of another. */
export function seedsOf(
  seed: unknown,
  seeds: unknown,
  count: unknown,
  bestOf: unknown = 1,
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
  const apart = typeof bestOf === "number" ? bestOf : 1; // checked with the request
  return Array.from({ length: count as number }, (_, i) => first + i * apart);
}
