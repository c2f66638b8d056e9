/**
 * RGB [h, w, 3] <-> PNG bytes, and the text chunks that carry a request.
 *
 * @module
 * @see W3C, Portable Network Graphics (PNG) Specification, third edition: 5 (chunks), 9 (filters).
 */

import { inflateSync } from "node:zlib";
import {
  broken,
  type Chunk,
  chunk,
  filterRows,
  join,
  latin1,
  readChunks,
  SIGNATURE,
  unfilterRows,
} from "./png_format.ts";

/** A decoded picture. */
export interface DecodedPng {
  /** In pixels. */
  readonly width: number;
  /** In pixels. */
  readonly height: number;
  /** `[height * width * 3]`, row-major, 0 to 255. */
  readonly rgb: Uint8Array<ArrayBuffer>;
}

/** What may be written beside the pixels. */
export interface EncodePngOptions {
  /** Keyword (1 to 79 Latin-1 characters) -> text, written in this order. */
  readonly text?: Readonly<Record<string, string>>;
}

type Deflate = (data: Uint8Array) => Uint8Array;

const MAX_PIXELS = 2 ** 26; // 8192 x 8192; 192 MB of RGB
const MAX_TEXT = 2 ** 24; // characters' bytes after inflating, all texts together
const BYTES_PER_PIXEL: Readonly<Record<number, number>> = {
  0: 1,
  2: 3,
  4: 2,
  6: 4,
}; // by colour type
const LATIN1 = /^[\x20-\x7e\xa0-\xff]*$/;
const LATIN1_LINES = /^[\n\x20-\x7e\xa0-\xff]*$/; // PNG 11.3.3.2: line feed is the only control
// fflate and not CompressionStream or node:zlib: the same pixels must give the same bytes on every runtime.
const FFLATE = ["fflate", "npm:fflate@0.8.2"];

/**
 * Encode a picture as an 8-bit RGB PNG.
 *
 * Each row takes the filter with the least sum of absolute differences. Deflate is fflate's at
 * level 9, loaded on first use; where it cannot be loaded, `node:zlib` stands in, and then the
 * bytes (never the pixels) may differ between runtimes.
 *
 * @param rgb `[height * width * 3]`, row-major, 0 to 255.
 * @param width In pixels.
 * @param height In pixels.
 * @param options Texts: `tEXt` where Latin-1 holds them, else `iTXt`.
 * @returns The file.
 * @throws {RangeError} If the size does not fit `rgb`, or a keyword or text is not allowed.
 *
 * @example
 * ```ts
 * import { decodePng, encodePng, readPngText } from "./png.ts";
 *
 * const png = await encodePng(new Uint8Array([255, 0, 0]), 1, 1, { text: { Title: "red" } });
 * if (readPngText(png).get("Title") !== "red") throw new Error("lost");
 * if (decodePng(png).rgb[0] !== 255) throw new Error("not red");
 * ```
 */
export async function encodePng(
  rgb: Uint8Array,
  width: number,
  height: number,
  options: EncodePngOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  checkSize("encode PNG", width, height);
  if (rgb.length !== width * height * 3) {
    throw new RangeError(
      `Cannot encode PNG: rgb must have ${width}x${height}x3 bytes: current ${rgb.length}`,
    );
  }
  const texts = Object.entries(options.text ?? {}).map(([key, text]) =>
    textChunk(key, text)
  );
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 2], 8); // 8 bits, RGB; deflate, adaptive filters, not interlaced
  const deflate = await loadDeflate();
  return join([
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", header),
    ...texts,
    chunk("IDAT", deflate(filterRows(rgb, width * 3, 3))),
    chunk("IEND", new Uint8Array(0)),
  ]);
}

/**
 * Read the texts of a PNG: `tEXt`, `zTXt` and `iTXt`. Of a repeated keyword the first counts.
 *
 * @param bytes The file; every chunk and its checksum is checked, the pixels are not.
 * @returns Keyword -> text, in file order.
 * @throws {SyntaxError} If it is no PNG, truncated, damaged, or a text is malformed.
 * @throws {RangeError} If the texts are longer than 16 MiB after inflating.
 */
export function readPngText(bytes: Uint8Array): Map<string, string> {
  const out = new Map<string, string>();
  let left = MAX_TEXT;
  for (const { type, data } of readChunks(bytes)) {
    if (type !== "tEXt" && type !== "zTXt" && type !== "iTXt") continue;
    const end = data.indexOf(0);
    const key = latin1(data.subarray(0, Math.max(end, 0)));
    if (end < 1 || end > 79 || (type !== "tEXt" && data.length < end + 2)) {
      throw broken(`${type} must start with a keyword of 1 to 79 bytes`, end);
    }
    const { raw, utf8 } = textBody(type, data.subarray(end + 1), left);
    left -= raw.length;
    if (left < 0) throw bomb("texts", MAX_TEXT);
    if (!out.has(key)) out.set(key, utf8 ? fromUtf8(raw, key) : latin1(raw));
  }
  return out;
}

/**
 * Decode an 8-bit grey, grey-alpha, RGB or RGBA PNG that is not interlaced. Alpha is dropped.
 *
 * @param bytes The file.
 * @returns Size and RGB.
 * @throws {SyntaxError} If it is no PNG, truncated or damaged.
 * @throws {RangeError} If its kind is not one of these, or it has more than 2^26 pixels.
 */
export function decodePng(bytes: Uint8Array): DecodedPng {
  const chunks = readChunks(bytes);
  const header = (chunks[0] as Chunk).data;
  const view = new DataView(
    header.buffer,
    header.byteOffset,
    header.byteLength,
  );
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  checkSize("decode PNG", width, height);
  const [depth, colour, method, filter, interlace] = header.subarray(8);
  const size = BYTES_PER_PIXEL[colour as number];
  if (
    depth !== 8 || size === undefined || method !== 0 || filter !== 0 ||
    interlace !== 0
  ) {
    throw new RangeError(
      `Cannot decode PNG: it must be 8-bit grey or RGB, with or without alpha, not interlaced: current depth ${depth}, colour type ${colour}, interlace ${interlace}`,
    );
  }
  const first = chunks.findIndex((c) => c.type === "IDAT");
  const last = chunks.findLastIndex((c) => c.type === "IDAT");
  const data = chunks.slice(first, last + 1);
  if (first < 0 || data.some((c) => c.type !== "IDAT")) {
    throw broken(
      "its IDAT chunks must be there and stand together",
      first < 0 ? 0 : "split",
    );
  }
  const expected = height * (width * size + 1);
  const rows = inflate(join(data.map((c) => c.data)), expected, "pixels");
  if (rows.length !== expected) {
    throw broken(`pixels must be ${expected} bytes`, rows.length);
  }
  const samples = unfilterRows(rows, width * size, size);
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      rgb[i * 3 + c] = samples[i * size + (size < 3 ? 0 : c)] as number;
    }
  }
  return { width, height, rgb };
}

let deflater: Promise<Deflate> | undefined;

function loadDeflate(): Promise<Deflate> {
  return deflater ??= findDeflate();
}

async function findDeflate(): Promise<Deflate> {
  const onDeno = "Deno" in globalThis;
  for (const name of FFLATE) {
    if (name.startsWith("npm:") && !onDeno) continue;
    try {
      const { zlibSync } = await import(name); // a variable: mod.ts must load without fflate
      return (data) => zlibSync(data, { level: 9 });
    } catch {
      // Not installed here: the next name, or node:zlib.
    }
  }
  const { deflateSync } = await import("node:zlib");
  return (data) => deflateSync(data, { level: 9 });
}

function textBody(
  type: string,
  body: Uint8Array,
  limit: number,
): { raw: Uint8Array; utf8: boolean } {
  if (type === "tEXt") return { raw: body, utf8: false };
  if (type === "zTXt") {
    if (body[0] !== 0) {
      throw broken("the compression of zTXt must be 0", String(body[0]));
    }
    return { raw: inflate(body.subarray(1), limit, "texts"), utf8: false };
  }
  const [compressed, method] = body;
  const language = body.indexOf(0, 2);
  const translated = language < 0 ? -1 : body.indexOf(0, language + 1);
  if (
    (compressed !== 0 && compressed !== 1) || method !== 0 || translated < 0
  ) {
    throw broken(
      "iTXt must have a flag of 0 or 1, method 0, a language and a translated keyword",
      "it does not",
    );
  }
  const raw = body.subarray(translated + 1);
  return { raw: compressed ? inflate(raw, limit, "texts") : raw, utf8: true };
}

function textChunk(key: string, text: string): Uint8Array {
  if (
    !LATIN1.test(key) || key.length < 1 || key.length > 79 ||
    /^ | $| {2}|\xa0/.test(key)
  ) {
    throw new RangeError(
      `Cannot encode PNG: a keyword must be 1 to 79 Latin-1 characters with single inner spaces: current ${
        JSON.stringify(key.slice(0, 100))
      }`,
    );
  }
  if (text.includes("\0") || !text.isWellFormed()) {
    throw new RangeError(
      `Cannot encode PNG: the text of ${
        JSON.stringify(key)
      } must have no NUL and no lone surrogate: current text has`,
    );
  }
  const bytes = (s: string) => Uint8Array.from(s, (c) => c.charCodeAt(0));
  return LATIN1_LINES.test(text)
    ? chunk("tEXt", bytes(`${key}\0${text}`))
    : chunk(
      "iTXt",
      join([bytes(`${key}\0\0\0\0\0`), new TextEncoder().encode(text)]),
    );
}

function inflate(data: Uint8Array, limit: number, what: string): Uint8Array {
  try {
    return inflateSync(data, { maxOutputLength: Math.max(limit, 1) });
  } catch (cause) {
    if ((cause as { code?: string }).code === "ERR_BUFFER_TOO_LARGE") {
      throw bomb(what, limit, cause);
    }
    throw broken(
      `compressed ${what} must be whole`,
      (cause as Error).message,
      cause,
    );
  }
}

function fromUtf8(data: Uint8Array, key: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      data,
    );
  } catch (cause) {
    throw broken(
      `the text of ${JSON.stringify(key)} must be UTF-8`,
      "it is not",
      cause,
    );
  }
}

function checkSize(what: string, width: number, height: number): void {
  const fits = Number.isInteger(width) && Number.isInteger(height) &&
    width > 0 && height > 0 &&
    width * height <= MAX_PIXELS;
  if (!fits) {
    throw new RangeError(
      `Cannot ${what}: both sides must be whole numbers above 0, at most 2^26 pixels: current ${width}x${height}`,
    );
  }
}

function bomb(what: string, limit: number, cause?: unknown): RangeError {
  return new RangeError(
    `Cannot read PNG: ${what} must inflate to at most ${limit} bytes: current is more`,
    { cause },
  );
}
