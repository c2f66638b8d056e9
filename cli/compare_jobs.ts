/** Layouts x methods x seeds -> requests, every one checked before anything is painted. */
import { dirname } from "node:path";
import {
  checkForModel,
  type Detector,
  EMBEDDED_MODELS,
  type FullRequest,
  type ModelFacts,
  randomLayouts,
  wantedThings,
} from "../mod.ts";
import { type Flags, UsageError } from "./flags.ts";
import { checkId, parseLine, Problems, readLines } from "./layout_lines.ts";
import { readMasks, requestOver } from "./request.ts";
import type { Guidance, Variants } from "./variants.ts";

/** One picture of a comparison. */
export interface CompareJob {
  /** File name in the folder of images. */
  readonly file: string;
  /** Id of its layout. */
  readonly layout: string;
  /** Place of the layout. */
  readonly row: number;
  /** Name of its method. */
  readonly variant: string;
  /** Place of the method. */
  readonly column: number;
  /** Complete. */
  readonly request: FullRequest;
  /** What was repaired in it. */
  readonly notes: readonly string[];
}

/** A layout as it was given. */
interface Layout {
  readonly id: string;
  readonly where: string;
  readonly value: Readonly<Record<string, unknown>>;
}

const MOST_LAYOUTS = 100_000;
const MOST_SEEDS = 1000;

/**
 * All pictures, layout by layout, and within a layout seed by seed.
 *
 * Noise: layout `i` (from 0) has the seeds `i`, `i + 100000`, ..., or those from its own `seed` on. They are the
 * same for every method, and adding seeds or layouts changes none that was there.
 *
 * @param detector Every phrase must be something that it knows.
 * @throws {UsageError} One error with all that is wrong.
 */
export async function compareJobs(
  { list }: Variants,
  facts: ModelFacts,
  detector: Detector | undefined,
  flags: Flags,
): Promise<CompareJob[]> {
  const layouts = await readLayouts(flags, facts);
  const seeds = countFlag(flags, "seeds", MOST_SEEDS) ?? 1;
  // In a request, `--preset` is what settings to start from and `--seed` that of its noise.
  const own = flags.with("preset", flags.text("settings"))
    .with("seed", undefined);
  for (const { name, guidance } of list) {
    checkVariant(name, guidance, facts, own);
  }
  const jobs: CompareJob[] = [];
  const problems = new Problems();
  const files = new Map<string, string>();
  for (const [row, { id, where, value }] of layouts.entries()) {
    try {
      const base = requestOver(value, own);
      const first = base["seed"] ?? row;
      for (let k = 0; k < seeds; k++) {
        for (const [column, variant] of list.entries()) {
          const { request, notes } = checkForModel({
            ...base,
            // A seed that is no number stays as it is, for the check to refuse.
            seed: typeof first === "number" ? first + k * MOST_LAYOUTS : first,
            guidance: variant.guidance,
          }, facts);
          if (request.regions.length === 0) {
            throw new UsageError("it must have regions");
          }
          if (detector) wantedThings(request.regions, detector);
          const file = `${id}.${variant.slug}.${request.seed}.png`;
          const other = files.get(file.toLowerCase());
          if (other !== undefined) {
            throw new UsageError(`its id "${id}" is that of ${other} too`);
          }
          files.set(file.toLowerCase(), where);
          jobs.push({
            file,
            layout: id,
            row,
            variant: variant.name,
            column,
            request,
            notes: column === 0 && k === 0 ? notes : [],
          });
        }
      }
    } catch (error) {
      problems.add(where, error);
    }
  }
  problems.throwIfAny(flags.text("layouts") ?? "random layouts");
  return jobs;
}

/** A wrong method is one error, not one for each layout. */
function checkVariant(
  name: string,
  guidance: Guidance,
  facts: ModelFacts,
  flags: Flags,
): void {
  try {
    checkForModel(requestOver({ prompt: "x", guidance }, flags), facts);
  } catch (cause) {
    throw new UsageError(
      `Cannot compare ${JSON.stringify(name)}: ${
        (cause as Error).message.replace(/^Cannot use request: /, "")
      }`,
      { cause },
    );
  }
}

async function readLayouts(
  flags: Flags,
  facts: ModelFacts,
): Promise<Layout[]> {
  const file = flags.text("layouts");
  const count = countFlag(flags, "random", MOST_LAYOUTS);
  if ((file === undefined) === (count === undefined)) {
    throw new UsageError(
      `Cannot compare: either --layouts or --random must say what to paint: current ${
        file === undefined ? "neither" : "both"
      }`,
    );
  }
  if (count !== undefined) {
    if (facts.name !== EMBEDDED_MODELS[0]) {
      throw new UsageError(
        `Cannot use --random: it has the words of ${
          EMBEDDED_MODELS[0]
        }: current model is ${facts.name}; give --layouts`,
      );
    }
    const seed = flags.number("seed") ?? 0;
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new UsageError(
        `Cannot use --seed: it must be a whole number from 0: current ${seed}`,
      );
    }
    return randomLayouts(count, seed).map(({ prompt, regions }, i) => ({
      id: String(i + 1).padStart(4, "0"),
      where: `layout ${i + 1}`,
      value: { prompt, regions },
    }));
  }
  if (flags.has("seed")) {
    throw new UsageError(
      "Cannot use --seed with --layouts: it is that of --random; a layout may have its own seed",
    );
  }
  const problems = new Problems();
  const out: Layout[] = [];
  for (const { number, text, own } of await readLines(file!)) {
    const where = `line ${number}`;
    try {
      const { id = own, ...value } = parseLine(text);
      if (Object.hasOwn(value, "bestOf")) {
        throw new UsageError(
          "bestOf must be left out: all methods get the same seeds",
        );
      }
      for (const key of ["seeds", "count", "guidance"]) {
        if (Object.hasOwn(value, key)) {
          throw new UsageError(`${key} must be left to the command line`);
        }
      }
      out.push({
        id: checkId(id),
        where,
        value: await readMasks(value, dirname(file!)),
      });
    } catch (error) {
      problems.add(where, error);
    }
  }
  problems.throwIfAny(file!);
  return out;
}

function countFlag(
  flags: Flags,
  name: string,
  most: number,
): number | undefined {
  const count = flags.number(name);
  if (
    count === undefined ||
    (Number.isInteger(count) && count >= 1 && count <= most)
  ) return count;
  throw new UsageError(
    `Cannot use --${name}: it must be a whole number from 1 to ${most}: current ${count}`,
  );
}
