/** A file of layouts, one JSON object per line, and one error for all that is wrong in it. */
import { UsageError } from "./flags.ts";
import { readInput } from "./request.ts";

/** A line that is not empty. */
export interface LayoutLine {
  /** From 1. */
  readonly number: number;
  /** Without spaces around it. */
  readonly text: string;
  /** The number as an id, for a line that has none. */
  readonly own: string;
}

const MOST_LINES = 100_000;
const MOST_SHOWN = 5;
/** File systems take names of 255 bytes, and more comes behind an id: method, seed, endings. */
const MOST_ID_BYTES = 120;
/** Names that Windows keeps for itself, and those of our own files. */
const RESERVED = /^(?:con|prn|aux|nul|com\d|lpt\d|results|errors)$/i;

/**
 * Reads the file.
 *
 * @throws {UsageError} If it cannot be read, is too long or has no line.
 */
export async function readLines(file: string): Promise<LayoutLine[]> {
  const bytes = await readInput(file, "layouts");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new UsageError(
      `Cannot use ${file}: it must be UTF-8 text: current bytes are not`,
      { cause },
    );
  }
  const lines = text.split("\n").map((line) => line.trim());
  if (lines.length > MOST_LINES) {
    throw new UsageError(
      `Cannot use ${file}: it must have at most ${MOST_LINES} lines: current ${lines.length}`,
    );
  }
  const digits = Math.max(4, String(lines.length).length);
  const filled = lines.map((text, i): LayoutLine => ({
    number: i + 1,
    text,
    own: String(i + 1).padStart(digits, "0"),
  })).filter(({ text }) => text !== "");
  if (filled.length > 0) return filled;
  throw new UsageError(
    `Cannot use ${file}: it must hold a request such as {"prompt": "...", "regions": [...]} on each line: current file has none`,
  );
}

/** A line as an object. */
export function parseLine(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UsageError(
      `it must be JSON: current error is ${(cause as Error).message}`,
      { cause },
    );
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new UsageError("it must be an object with a prompt");
}

/** An id that can be a file's name. */
export function checkId(id: unknown): string {
  const fine = typeof id === "string" &&
    new TextEncoder().encode(id).length <= MOST_ID_BYTES &&
    /^[\p{L}\p{N}_](?:[\p{L}\p{N}_ .+-]{0,98}[\p{L}\p{N}_+-])?$/u.test(id) &&
    !RESERVED.test(id.split(".")[0]!) && !id.includes("..");
  if (!fine) {
    throw new UsageError(
      `id must be a file name of at most 100 letters, digits, spaces and _ . + -, and ${MOST_ID_BYTES} bytes: current ${
        JSON.stringify(id)
      }`,
    );
  }
  return id as string;
}

/** What is wrong with layouts, to be told at once. */
export class Problems {
  readonly #list: string[] = [];

  /** @param where Such as `line 3`. */
  add(where: string, error: unknown): void {
    const why = (error as Error).message;
    this.#list.push(
      `${where}: ${why.replace(/^Cannot use (request|line): /, "")}`,
    );
  }

  /** @throws {UsageError} The first few in full. */
  throwIfAny(source: string): void {
    if (this.#list.length === 0) return;
    const more = this.#list.length - MOST_SHOWN;
    throw new UsageError(
      `Cannot use ${source}: every line must be a request that this model can paint: current problems are ${
        this.#list.slice(0, MOST_SHOWN).join("; ")
      }${more > 0 ? `; and ${more} more` : ""}`,
    );
  }
}
