/**
 * The files of a CLIP tokenizer folder -> byte tables, merge ranks and special tokens.
 *
 * @module
 */

/** A text that is one token wherever it stands. */
export interface Special {
  /** Row of the embedding table. */
  readonly id: number;
  /** Matched after lower-casing, not before. */
  readonly normalized: boolean;
}

const CLIP_LENGTH = 77; // rows of CLIP's position embedding
const ID_LIMIT = 2 ** 24; // two ids fit one exact number

/** The 256 bytes in the order of CLIP's vocabulary: GPT-2's, printable ones first. */
export const BYTE_ORDER: readonly number[] = byteOrder();
/** Byte -> its character in the vocabulary. */
export const BYTE_CHARS: readonly string[] = byteChars();

/** GPT-2's order of the bytes: the printable ones first. */
function byteOrder(): number[] {
  const all = Array.from({ length: 256 }, (_, b) => b);
  const printable = (b: number) =>
    (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  return [...all.filter(printable), ...all.filter((b) => !printable(b))];
}

/** Byte -> its character: itself where printable, else the next one from U+0100. */
function byteChars(): string[] {
  const chars: string[] = new Array(256);
  const printable = 188; // how many of BYTE_ORDER stand for themselves
  BYTE_ORDER.forEach((b, i) => {
    chars[b] = String.fromCharCode(i < printable ? b : 256 + i - printable);
  });
  return chars;
}

/**
 * The merges in order.
 *
 * @param merges The text of `merges.txt`.
 * @returns Left part, right part and line number of each.
 * @throws {SyntaxError} If a line is not two pieces.
 */
export function* mergeLines(
  merges: string,
): Iterable<[string, string, number]> {
  const lines = merges.split("\n");
  for (const [i, full] of lines.entries()) {
    const line = full.endsWith("\r") ? full.slice(0, -1) : full;
    if (line === "" || (i === 0 && line.startsWith("#version"))) continue;
    const [left, right, more] = line.split(" ");
    if (!left || !right || more !== undefined) {
      throw new SyntaxError(
        `Cannot read merges.txt: line ${
          i + 1
        } must be two pieces and one space: current ${
          JSON.stringify(shorten(line))
        }`,
      );
    }
    yield [left, right, i + 1];
  }
}

/**
 * The vocabulary.
 *
 * @param text The text of `vocab.json`.
 * @returns Piece -> id.
 * @throws {SyntaxError} If it is not an object of different ids.
 */
export function readVocab(text: string): Map<string, number> {
  const vocab = new Map<string, number>();
  const owners = new Map<number, string>();
  for (const [piece, id] of Object.entries(parse(text, "vocab.json"))) {
    const owner = owners.get(id as number);
    if (!isId(id) || owner !== undefined) {
      const also = owner === undefined
        ? ""
        : ` and so has ${JSON.stringify(owner)}`;
      throw new SyntaxError(
        `Cannot read vocab.json: ids must be different whole numbers below 2^24: ${
          JSON.stringify(piece)
        } has ${JSON.stringify(id)}${also}`,
      );
    }
    owners.set(id, piece);
    vocab.set(piece, id);
  }
  return vocab;
}

/**
 * Merges as ranks between ids.
 *
 * @param merges The text of `merges.txt`.
 * @param need Id of a piece, or an error that says why it is needed.
 * @returns `pairKey(left, right)` -> rank (lower first) and id of the result.
 * @throws {SyntaxError} If a line is not two known pieces with a known result, or comes twice.
 */
export function readMerges(
  merges: string,
  need: (piece: string, why: string) => number,
): Map<number, readonly [number, number]> {
  const ranks = new Map<number, readonly [number, number]>();
  for (const [left, right, line] of mergeLines(merges)) {
    const why = `merge ${
      JSON.stringify(`${left} ${right}`)
    } (merges.txt line ${line})`;
    const key = pairKey(
      need(left, `the left part of ${why}`),
      need(right, `the right part of ${why}`),
    );
    if (ranks.has(key)) {
      throw new SyntaxError(
        `Cannot read merges.txt: every merge must be listed once: ${why} is not`,
      );
    }
    ranks.set(key, [line, need(left + right, `the result of ${why}`)]);
  }
  return ranks;
}

/**
 * Two ids as one exact number.
 *
 * @param left First id.
 * @param right Second id.
 * @returns A number no other pair has.
 */
export function pairKey(left: number, right: number): number {
  return left * ID_LIMIT + right;
}

function isId(id: unknown): id is number {
  return Number.isInteger(id) && (id as number) >= 0 &&
    (id as number) < ID_LIMIT;
}

/**
 * Parse a file that must be a JSON object.
 *
 * @param text Its text.
 * @param file Its name, for errors.
 * @returns The object.
 * @throws {SyntaxError} If it is none.
 */
export function parse(text: string, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new SyntaxError(
      `Cannot read ${file}: it must be JSON: ${(cause as Error).message}`,
      { cause },
    );
  }
  return record(value, file);
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new SyntaxError(
      `Cannot read ${what}: it must be a JSON object: current ${
        JSON.stringify(value)?.slice(0, 40)
      }`,
    );
  }
  return value as Record<string, unknown>;
}

/**
 * A token name in a config: text, or an object with `content`.
 *
 * @param value The value in the file.
 * @param key Its key, for errors.
 * @returns The name; undefined if it is not given.
 * @throws {SyntaxError} If it is something else.
 */
export function contentOf(value: unknown, key: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  const text = typeof value === "string" ? value : record(value, key).content;
  if (typeof text !== "string" || text === "") {
    throw new SyntaxError(
      `Cannot read tokenizer_config.json: ${key} must be a text or have one as content: current ${
        JSON.stringify(value)
      }`,
    );
  }
  return text;
}

/**
 * The `added_tokens_decoder` of a config.
 *
 * @param value The value in the file.
 * @returns Text and token of each entry.
 * @throws {SyntaxError} If it is malformed.
 * @throws {RangeError} If an entry asks for stripping or whole words, which nothing here does.
 */
export function addedTokens(value: unknown): [string, Special][] {
  if (value === undefined) return [];
  return Object.entries(record(value, "added_tokens_decoder")).map(
    ([key, token]) => {
      const what = `added_tokens_decoder ${key}`;
      const entry = record(token, what);
      for (const flag of ["lstrip", "rstrip", "single_word"]) {
        if (entry[flag]) {
          throw new RangeError(
            `Cannot read tokenizer_config.json: ${what} must not set ${flag}: current true`,
          );
        }
      }
      const id = Number(key), text = contentOf(entry, what);
      if (!isId(id) || text === undefined) {
        throw new SyntaxError(
          `Cannot read tokenizer_config.json: ${what} must be named by an id: current ${key}`,
        );
      }
      return [text, { id, normalized: entry.normalized === true }];
    },
  );
}

/**
 * The `model_max_length` of a config.
 *
 * transformers writes 1e30 for "not set": CLIP's length is the only one that can be meant.
 *
 * @param value The value in the file.
 * @returns Length of a tokenised prompt, marks included.
 * @throws {RangeError} If it is not 3 to 4096.
 */
export function lengthOf(value: unknown): number {
  if (value === undefined || (typeof value === "number" && value >= 1e9)) {
    return CLIP_LENGTH;
  }
  if (
    !Number.isInteger(value) || (value as number) < 3 ||
    (value as number) > 4096
  ) {
    throw new RangeError(
      `Cannot read tokenizer_config.json: model_max_length must be 3 to 4096: current ${
        JSON.stringify(value)
      }`,
    );
  }
  return value as number;
}

/**
 * Cut a text for an error message.
 *
 * @param text Any text.
 * @returns At most 80 characters.
 */
export function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
