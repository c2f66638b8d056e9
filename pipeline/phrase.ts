/**
 * Phrase -> token positions, and the token table a user sees (rule R2).
 *
 * @module
 */

import { BYTE_CHARS } from "./bpe_files.ts";
import type { Piece, Tokenizer, Tokens } from "./tokenize.ts";

/** How a region names its words: by phrase, by character span, or by token positions. */
export type PhraseSelector =
  | {
    readonly phrase: string;
    /** Which match, from 0 (the default), or all of them. */
    readonly occurrence?: number | "all";
  }
  /** UTF-16 indices `[start, end)` into the prompt; every piece it touches counts. */
  | { readonly span: readonly [start: number, end: number] }
  /** Positions in `ids`: BOS is 0, the first piece is 1. */
  | { readonly tokens: readonly number[] };

/** Where a phrase is. */
export interface PhraseMatch {
  /** Positions in `ids`, ascending unless given by `tokens`; 1 is the first piece. */
  readonly positions: readonly number[];
  /** Those that end an occurrence. */
  readonly ends: readonly number[];
  /** The words that were found: the phrase, a variant of it, or the text of the span. */
  readonly matched: string;
  /** True if only a plural or singular of the phrase was found. */
  readonly fuzzy: boolean;
}

/** One row of the token table. */
export interface TokenRow {
  /** Position in `ids`. */
  readonly index: number;
  /** The piece as text; bytes in hexadecimal where they are no text by themselves. */
  readonly piece: string;
  /** Characters `[start, end)` of the prompt. */
  readonly span: readonly [start: number, end: number];
}

/**
 * Find the tokens of a phrase.
 *
 * The phrase's pieces must occur side by side in the prompt, as whole words; matches are counted from the
 * left and do not overlap. If there is none, these are tried in turn: the phrase without its leading
 * article (a, an, the); with `s` or `es` added to its end; with `s` or `es` taken off; the same
 * two without the article. The first that occurs is taken, and the last four are marked `fuzzy`.
 *
 * @param tokenizer The tokenizer that made `tokens`.
 * @param tokens The encoded prompt.
 * @param prompt The text that was encoded.
 * @param selector What to find.
 * @returns Positions in `tokens.ids`, never BOS, EOT or padding.
 * @throws {RangeError} If nothing is found, the occurrence does not exist, or a token was
 * truncated away. The message lists the tokens.
 *
 * @example
 * ```ts
 * import { matchPhrase } from "./phrase.ts";
 * import type { Tokenizer } from "./tokenize.ts";
 *
 * export function carAt(tokenizer: Tokenizer): readonly number[] {
 *   const prompt = "a red car"; // 1:a 2:red 3:car
 *   return matchPhrase(tokenizer, tokenizer.encode(prompt), prompt, { phrase: "red car" }).positions; // [2, 3]
 * }
 * ```
 */
export function matchPhrase(
  tokenizer: Tokenizer,
  tokens: Tokens,
  prompt: string,
  selector: PhraseSelector,
): PhraseMatch {
  if ("phrase" in selector) {
    return byPhrase(tokenizer, tokens, prompt, selector);
  }
  if ("span" in selector) return bySpan(tokens, prompt, selector.span);
  return byTokens(tokens, prompt, selector.tokens);
}

/**
 * The pieces of a prompt, for user interfaces.
 *
 * @param tokens The encoded prompt.
 * @returns One row per piece, truncated ones included.
 */
export function tokenTable(tokens: Tokens): TokenRow[] {
  return tokens.pieces.map(({ piece, start, end }, i) => ({
    index: i + 1,
    piece: readable(piece),
    span: [start, end],
  }));
}

function byPhrase(
  tokenizer: Tokenizer,
  tokens: Tokens,
  prompt: string,
  { phrase, occurrence = 0 }: {
    readonly phrase: string;
    readonly occurrence?: number | "all";
  },
): PhraseMatch {
  const name = JSON.stringify(phrase);
  if (
    occurrence !== "all" && !(Number.isInteger(occurrence) && occurrence >= 0)
  ) {
    throw fail(
      name,
      tokens,
      prompt,
      `occurrence must be a whole number from 0 or "all": current ${occurrence}`,
    );
  }
  if (tokenizer.pieces(phrase).length === 0) {
    throw fail(name, tokens, prompt, "the phrase must have a token: current 0");
  }
  for (const { text, fuzzy } of candidates(phrase.trim())) {
    const ids = tokenizer.pieces(text).map((p) => p.id);
    const starts = occurrences(tokens.pieces, ids, prompt);
    if (starts.length === 0) continue;
    const chosen = occurrence === "all"
      ? starts
      : starts.slice(occurrence, occurrence + 1);
    if (chosen.length === 0) {
      throw fail(
        name,
        tokens,
        prompt,
        `occurrence must be below ${starts.length}: current ${occurrence}`,
      );
    }
    const positions = chosen.flatMap((start) =>
      ids.map((_, i) => start + i + 1)
    );
    checkKept(name, tokens, prompt, positions);
    const ends = chosen.map((start) => start + ids.length);
    return { positions, ends, matched: text, fuzzy };
  }
  throw fail(
    name,
    tokens,
    prompt,
    "it must occur in the prompt: current count 0",
  );
}

function bySpan(
  tokens: Tokens,
  prompt: string,
  span: readonly [number, number],
): PhraseMatch {
  const [start, end] = span;
  const name = `span [${span}]`;
  if (
    !span.every(Number.isInteger) || start < 0 || start >= end ||
    end > prompt.length
  ) {
    throw fail(
      name,
      tokens,
      prompt,
      `it must have 0 <= start < end <= ${prompt.length}: current [${span}]`,
    );
  }
  const positions = tokens.pieces.flatMap((p, i) =>
    p.start < end && start < p.end ? [i + 1] : []
  );
  if (positions.length === 0) {
    throw fail(
      name,
      tokens,
      prompt,
      `it must touch a token: current text is ${
        JSON.stringify(prompt.slice(start, end))
      }`,
    );
  }
  checkKept(name, tokens, prompt, positions);
  return {
    positions,
    ends: positions.slice(-1),
    matched: prompt.slice(start, end),
    fuzzy: false,
  };
}

function byTokens(
  tokens: Tokens,
  prompt: string,
  positions: readonly number[],
): PhraseMatch {
  const name = `tokens [${positions}]`;
  const inside = (p: number) =>
    Number.isInteger(p) && p >= 1 && p <= tokens.pieces.length;
  if (
    positions.length === 0 || !positions.every(inside) ||
    new Set(positions).size < positions.length
  ) {
    throw fail(
      name,
      tokens,
      prompt,
      `they must be different positions from 1 to ${tokens.pieces.length}: current [${positions}]`,
    );
  }
  checkKept(name, tokens, prompt, positions);
  const matched = positions.map((p) =>
    readable((tokens.pieces[p - 1] as Piece).piece)
  ).join(" ");
  return {
    positions: [...positions],
    ends: positions.slice(-1),
    matched,
    fuzzy: false,
  };
}

/** The phrase and what may stand for it, best first. */
function* candidates(
  phrase: string,
): Iterable<{ text: string; fuzzy: boolean }> {
  const bare = phrase.replace(/^(?:an?|the)\s+/i, "");
  const forms = bare === phrase || bare === "" ? [phrase] : [phrase, bare];
  for (const text of forms) yield { text, fuzzy: false };
  for (const text of forms) {
    // Two letters must stay or be there: "a" is no singular of "as".
    if (!/\p{L}{2}$/u.test(text)) continue;
    for (const end of ["s", "es"]) yield { text: text + end, fuzzy: true };
    for (const end of [/(\p{L}{2})s$/iu, /(\p{L}{2})es$/iu]) {
      if (end.test(text)) yield { text: text.replace(end, "$1"), fuzzy: true };
    }
  }
}

/** Letters of scripts with spaces between words, and digits: two of a kind side by side are of one word. */
const JOINED = /(?:[\p{Lu}\p{Ll}\p{Lt}\p{Lm}\p{M}]{2}|\p{N}{2})$/u;

function occurrences(
  pieces: readonly Piece[],
  ids: readonly number[],
  prompt: string,
): number[] {
  const starts: number[] = [];
  // "fish" is no word of "jellyfish", whose last piece it is.
  const inWord = (at: number): boolean => {
    const next = String.fromCodePoint(prompt.codePointAt(at) ?? 32);
    return JOINED.test(prompt.slice(0, at) + next);
  };
  for (let at = 0; ids.length > 0 && at + ids.length <= pieces.length;) {
    const end = at + ids.length;
    if (
      ids.every((id, i) => pieces[at + i]?.id === id) &&
      !inWord(pieces[at]!.start) && !inWord(pieces[end - 1]!.end)
    ) {
      starts.push(at);
      at = end;
    } else at++;
  }
  return starts;
}

function checkKept(
  name: string,
  tokens: Tokens,
  prompt: string,
  positions: readonly number[],
): void {
  const last = Math.max(...positions);
  if (last > tokens.count) {
    throw fail(
      name,
      tokens,
      prompt,
      `it must be in the ${tokens.count} tokens kept after truncation: current position is ${last}`,
    );
  }
}

function fail(
  name: string,
  tokens: Tokens,
  prompt: string,
  why: string,
): RangeError {
  const table = tokenTable(tokens).map((row) => `${row.index}:${row.piece}`)
    .join(" ");
  const shown = prompt.length > 200 ? `${prompt.slice(0, 197)}...` : prompt;
  return new RangeError(
    `Cannot place ${name}: ${why}; prompt is ${
      JSON.stringify(shown)
    } with tokens ${table || "(none)"}`,
  );
}

/** Byte characters back to text. */
function readable(piece: string): string {
  const bare = piece.length > 4 && piece.endsWith("</w>")
    ? piece.slice(0, -4)
    : piece;
  if (/^[\x21-\x7e]*$/.test(bare)) return bare;
  const bytes = Uint8Array.from(bare, (char) => BYTE_CHARS.indexOf(char));
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      bytes,
    );
  } catch {
    return `<${
      Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(" ")
    }>`;
  }
}
