/**
 * Prompt -> token ids [77], and phrase -> token positions: CLIP's byte-level BPE with spans.
 *
 * `text -> NFC -> lower case -> words (CLIP regex) -> UTF-8 bytes -> merges by rank`; the last
 * piece of a word carries `</w>`. White space only separates words, so collapsing it is implied.
 *
 * @module
 * @see Radford et al. 2021, CLIP, `simple_tokenizer.py`; transformers, `CLIPTokenizer`. The two
 * differ on HTML entities and mojibake (only the former repairs them); this follows transformers.
 */

import {
  addedTokens,
  BYTE_CHARS,
  BYTE_ORDER,
  contentOf,
  lengthOf,
  mergeLines,
  pairKey,
  parse,
  readMerges,
  readVocab,
  shorten,
  type Special,
} from "./bpe_files.ts";

/** One BPE piece of a text and where it came from. */
export interface Piece {
  /** Row of the embedding table. */
  readonly id: number;
  /** The vocabulary's spelling: byte characters, `</w>` at the end of a word. */
  readonly piece: string;
  /** First UTF-16 index of the original text that the piece covers. */
  readonly start: number;
  /** One past the last index. Pieces that share a character both cover all of it. */
  readonly end: number;
}

/** A tokenised prompt. */
export interface Tokens {
  /** `[maxLength]`: BOS, pieces, EOT, padding. */
  readonly ids: Int32Array<ArrayBuffer>;
  /** All pieces of the text in order: index `i` is position `i + 1` of `ids`. */
  readonly pieces: readonly Piece[];
  /** How many pieces are in `ids`; less than `pieces.length` only after `truncate`. */
  readonly count: number;
}

/** The texts of a tokenizer folder. */
export interface TokenizerFiles {
  /** `vocab.json`. */
  readonly vocab: string;
  /** `merges.txt`. */
  readonly merges: string;
  /** `tokenizer_config.json`; without it CLIP's own names and length 77 hold. */
  readonly config?: string;
  /** `special_tokens_map.json`; asked for names the config does not give. */
  readonly specialTokens?: string;
}

interface Word {
  readonly ids: readonly number[];
  readonly bytes: readonly number[]; // UTF-8 bytes of each piece
}
/** `text[i]` (UTF-16) was made from `[from[i], to[i])` of the original. */
interface Mapped {
  readonly text: string;
  readonly from: readonly number[];
  readonly to: readonly number[];
}

const END = "</w>"; // end of word
const BOS = "<|startoftext|>";
const EOT = "<|endoftext|>";
const MAX_TEXT = 10_000; // UTF-16 units; merging one long word is quadratic
const MAX_CACHED = 4096; // words
// \p{White_Space}, not \s: JavaScript's \s has U+FEFF and lacks U+0085.
const WORD =
  /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
const UTF8 = new TextEncoder();

/** CLIP's tokenizer for one vocabulary. */
export class Tokenizer {
  /** Length of `ids`, specials included: `model_max_length`. */
  readonly maxLength: number;
  /** Id of the beginning mark. */
  readonly bos: number;
  /** Id of the end mark. */
  readonly eos: number;
  /** Id after the end mark: EOT for SD1.x, 0 (`!`) for SDXL's second tokenizer. */
  readonly pad: number;

  readonly #pieces: ReadonlyMap<number, string>;
  readonly #bytes: readonly number[]; // byte -> id
  readonly #lastBytes: readonly number[]; // byte with </w> -> id
  readonly #ranks: ReadonlyMap<number, readonly [rank: number, id: number]>;
  readonly #special: ReadonlyMap<string, Special>;
  readonly #cache = new Map<string, Word>();

  private constructor(
    vocab: ReadonlyMap<string, number>,
    merges: string,
    options: Record<string, unknown>,
  ) {
    this.#pieces = new Map([...vocab].map(([piece, id]) => [id, piece]));
    const need = (piece: string, why: string): number => {
      const id = vocab.get(piece);
      if (id === undefined) {
        throw new SyntaxError(
          `Cannot read vocab.json: ${why} must be in it: ${
            JSON.stringify(piece)
          } is missing`,
        );
      }
      return id;
    };
    this.#bytes = BYTE_CHARS.map((c) => need(c, "every byte token"));
    this.#lastBytes = BYTE_CHARS.map((c) => need(c + END, "every byte token"));
    this.#ranks = readMerges(merges, need);

    const name = (key: string, other: string) =>
      contentOf(options[key], key) ?? other;
    const named = [
      name("bos_token", BOS),
      name("eos_token", EOT),
      name("pad_token", name("eos_token", EOT)),
    ].map((text) => [text, need(text, "every special token")] as const);
    [this.bos, this.eos, this.pad] = named.map(([, id]) => id) as [
      number,
      number,
      number,
    ];
    this.#special = new Map([
      ...named.map(([text, id]) => [text, { id, normalized: false }] as const),
      ...addedTokens(options.added_tokens_decoder),
    ]);
    this.maxLength = lengthOf(options.model_max_length);
  }

  /**
   * Build a tokenizer from the files of a `tokenizer` folder.
   *
   * @param files The texts of the files, not their paths.
   * @returns The tokenizer.
   * @throws {SyntaxError} If a file does not parse, or the vocabulary lacks a byte, a special
   * token, or a part or the result of a merge; the message names it.
   */
  static fromFiles(files: TokenizerFiles): Tokenizer {
    const vocab = readVocab(files.vocab);
    return new Tokenizer(vocab, files.merges, {
      ...parse(files.specialTokens ?? "{}", "special_tokens_map.json"),
      ...parse(files.config ?? "{}", "tokenizer_config.json"),
    });
  }

  /**
   * Build CLIP's tokenizer from the merges alone: the vocabulary is the 256 byte characters,
   * the same with `</w>`, one entry per merge, then the two special tokens.
   *
   * @param merges The text of `merges.txt`.
   * @returns The tokenizer, length 77, padded with EOT.
   * @throws {SyntaxError} If a line is not two pieces.
   */
  static fromMerges(merges: string): Tokenizer {
    const bytes = BYTE_ORDER.map((b) => BYTE_CHARS[b] as string);
    const pieces = [...bytes, ...bytes.map((c) => c + END)];
    for (const [left, right] of mergeLines(merges)) pieces.push(left + right);
    pieces.push(BOS, EOT);
    return new Tokenizer(new Map(pieces.map((p, i) => [p, i])), merges, {});
  }

  /**
   * Tokenise a prompt.
   *
   * @param text The final prompt, at most 10,000 UTF-16 units.
   * @param options `truncate` drops what does not fit instead of throwing; the dropped pieces
   * stay in `pieces`, after `count`.
   * @returns Ids `[maxLength]` and the pieces with their spans.
   * @throws {RangeError} If the text is too long, saying which part falls off.
   */
  encode(text: string, options: { readonly truncate?: boolean } = {}): Tokens {
    const pieces = this.pieces(text);
    const room = this.maxLength - 2;
    const lost = pieces[room];
    if (lost !== undefined && !options.truncate) {
      throw new RangeError(
        `Cannot encode the prompt: it must have at most ${room} tokens: current ${pieces.length}, so ${
          JSON.stringify(shorten(text.slice(lost.start)))
        } falls off`,
      );
    }
    const count = Math.min(pieces.length, room);
    const ids = new Int32Array(this.maxLength).fill(this.pad);
    ids[0] = this.bos;
    for (let i = 0; i < count; i++) ids[i + 1] = (pieces[i] as Piece).id;
    ids[count + 1] = this.eos;
    return { ids, pieces, count };
  }

  /**
   * The pieces of a text without BOS, EOT, padding or a length limit of tokens.
   *
   * A special token written in the text is one piece, as in transformers (so `!` is id 0 where
   * it is the pad token). A lone surrogate counts as U+FFFD.
   *
   * @param text Any text of at most 10,000 UTF-16 units.
   * @returns The pieces in order.
   * @throws {RangeError} If the text is longer.
   */
  pieces(text: string): Piece[] {
    if (text.length > MAX_TEXT) {
      throw new RangeError(
        `Cannot encode the prompt: it must have at most ${MAX_TEXT} characters: current ${text.length}`,
      );
    }
    const out: Piece[] = [];
    const from = Array.from({ length: text.length }, (_, i) => i);
    const to = from.map((i) => i + 1);
    for (const part of this.#split({ text, from, to }, false)) {
      if ("id" in part) out.push(part);
      else {
        for (const inner of this.#split(normalize(part), true)) {
          if ("id" in inner) out.push(inner);
          else this.#words(inner, out);
        }
      }
    }
    return out;
  }

  /** Special tokens of one kind become pieces; the text between them stays mapped. */
  *#split(mapped: Mapped, normalized: boolean): Iterable<Piece | Mapped> {
    const names = [...this.#special.keys()]
      .filter((text) => this.#special.get(text)?.normalized === normalized)
      .sort((a, b) => b.length - a.length) // the longest wins, as in transformers
      .map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    let at = 0;
    const between = (end: number): Mapped => ({
      text: mapped.text.slice(at, end),
      from: mapped.from.slice(at, end),
      to: mapped.to.slice(at, end),
    });
    if (names.length > 0) {
      for (
        const { 0: piece, index } of mapped.text.matchAll(
          new RegExp(names.join("|"), "gu"),
        )
      ) {
        if (index > at) yield between(index);
        at = index + piece.length;
        yield {
          id: (this.#special.get(piece) as Special).id,
          piece,
          start: mapped.from[index] as number,
          end: mapped.to[at - 1] as number,
        };
      }
    }
    if (at < mapped.text.length) yield between(mapped.text.length);
  }

  #words(mapped: Mapped, out: Piece[]): void {
    for (const [text, index] of words(mapped.text)) {
      const { ids, bytes } = this.#word(text);
      const units = unitOfByte(text);
      let at = 0;
      ids.forEach((id, i) => {
        const last = at + (bytes[i] as number) - 1;
        out.push({
          id,
          piece: this.#pieces.get(id) as string,
          start: mapped.from[index + (units[at] as number)] as number,
          end: mapped.to[index + (units[last] as number)] as number,
        });
        at = last + 1;
      });
    }
  }

  /** BPE: merge every occurrence of the pair of lowest rank until no pair has a rank. */
  #word(text: string): Word {
    const known = this.#cache.get(text);
    if (known) return known;
    const utf8 = UTF8.encode(text);
    let ids = Array.from(
      utf8,
      (b, i) =>
        (i === utf8.length - 1 ? this.#lastBytes : this.#bytes)[b] as number,
    );
    let bytes = ids.map(() => 1);
    while (ids.length > 1) {
      let best: readonly [number, number] | undefined;
      let pair = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const key = pairKey(ids[i] as number, ids[i + 1] as number);
        const merge = this.#ranks.get(key);
        if (merge && (!best || merge[0] < best[0])) [best, pair] = [merge, key];
      }
      if (!best) break;
      const nextIds: number[] = [], nextBytes: number[] = [];
      for (let i = 0; i < ids.length; i++) {
        const [id, size] = [ids[i] as number, bytes[i] as number];
        if (i + 1 < ids.length && pairKey(id, ids[i + 1] as number) === pair) {
          nextIds.push(best[1]);
          nextBytes.push(size + (bytes[++i] as number));
        } else {
          nextIds.push(id);
          nextBytes.push(size);
        }
      }
      [ids, bytes] = [nextIds, nextBytes];
    }
    if (this.#cache.size >= MAX_CACHED) this.#cache.clear();
    if (text.length <= 64) this.#cache.set(text, { ids, bytes });
    return { ids, bytes };
  }
}

/** NFC, then lower case, keeping the way back; the texts may change length in both steps. */
function normalize({ text, from, to }: Mapped): Mapped {
  const out = { text: "", from: [] as number[], to: [] as number[] };
  let at = 0;
  for (const cluster of clusters(text)) {
    const end = at + cluster.length;
    let lower = "";
    // One code point at a time: a whole word would give Greek its final sigma, which CLIP's has not.
    for (const char of cluster.normalize("NFC")) lower += char.toLowerCase();
    for (let i = 0; i < lower.length; i++) {
      out.from.push(from[at] as number);
      out.to.push(to[end - 1] as number);
    }
    out.text += lower;
    at = end;
  }
  return out;
}

/** Parts that NFC composes independently: code points where NFC changes nothing. */
function clusters(text: string): string[] {
  const nfc = text.normalize("NFC");
  if (nfc === text) return [...text];
  const out: string[] = [];
  for (const char of text) {
    const last = out.at(-1);
    const joins = last !== undefined && (/\p{M}/u.test(char) ||
      (last + char).normalize("NFC") !==
        last.normalize("NFC") + char.normalize("NFC"));
    if (joins) out[out.length - 1] = last + char;
    else out.push(char);
  }
  return out.map((c) => c.normalize("NFC")).join("") === nfc ? out : [text];
}

/** CLIP's words; a mark that lower-casing made (`<|EndOfText|>`) is cut in three by transformers. */
function* words(text: string): Iterable<[word: string, index: number]> {
  for (const { 0: word, index } of text.matchAll(WORD)) {
    if (/^<\|[a-z]/.test(word)) {
      yield ["<|", index];
      yield [word.slice(2, -2), index + 2];
      yield ["|>", index + word.length - 2];
    } else yield [word, index];
  }
}

/** UTF-8 byte -> first UTF-16 unit of its code point. */
function unitOfByte(text: string): number[] {
  const out: number[] = [];
  let unit = 0;
  for (const char of text) {
    for (let b = UTF8.encode(char).length; b > 0; b--) out.push(unit);
    unit += char.length;
  }
  return out;
}
