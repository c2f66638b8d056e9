/**
 * The parts of a PNG: chunks with checksums, and row filters.
 *
 * @module
 * @see W3C, Portable Network Graphics (PNG) Specification, third edition: 5 (chunks), 9 (filters).
 */

/** One chunk. */
export interface Chunk {
  /** Four letters. */
  readonly type: string;
  /** Without length, type and checksum; a view, not a copy. */
  readonly data: Uint8Array;
}

/** The first eight bytes of a PNG. */
export const SIGNATURE: readonly number[] = [
  0x89,
  0x50,
  0x4e,
  0x47,
  0x0d,
  0x0a,
  0x1a,
  0x0a,
];
const CRC_TABLE = crcTable();

/**
 * All chunks; the first is a whole IHDR, the last IEND, and nothing follows it.
 *
 * @param bytes The file.
 * @returns In file order.
 * @throws {SyntaxError} If it is no PNG, or truncated or damaged anywhere.
 */
export function readChunks(bytes: Uint8Array): Chunk[] {
  if (bytes.length < 8 || SIGNATURE.some((b, i) => bytes[i] !== b)) {
    throw new SyntaxError(
      "Cannot read PNG: it must start with the PNG signature: current file does not",
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks: Chunk[] = [];
  let at = 8;
  while (chunks.at(-1)?.type !== "IEND") {
    const left = bytes.length - at;
    if (left < 12) {
      throw broken(
        `it must end with an IEND chunk, but is truncated at byte ${at}`,
        `${left} bytes left`,
      );
    }
    const length = view.getUint32(at);
    const type = latin1(bytes.subarray(at + 4, at + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) {
      throw broken(
        `the chunk type at byte ${at + 4} must be four letters`,
        JSON.stringify(type),
      );
    }
    if (length > left - 12) {
      throw broken(
        `chunk ${type} at byte ${at} must fit the file, which has ${
          left - 12
        } bytes for it`,
        length,
      );
    }
    const crc = crc32(bytes.subarray(at + 4, at + 8 + length));
    if (crc !== view.getUint32(at + 8 + length)) {
      throw broken(
        `the checksum of chunk ${type} at byte ${at} must match its data`,
        "it does not",
      );
    }
    if (
      (chunks.length === 0) !== (type === "IHDR") ||
      (type === "IHDR" && length !== 13)
    ) {
      throw broken(
        "exactly one IHDR chunk of 13 bytes must come first",
        `${type} of ${length} at byte ${at}`,
      );
    }
    chunks.push({ type, data: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  if (at !== bytes.length) {
    throw broken("nothing must follow IEND", `${bytes.length - at} bytes`);
  }
  return chunks;
}

/**
 * One chunk as bytes.
 *
 * @param type Four letters.
 * @param data Its contents.
 * @returns Length, type, data, checksum.
 */
export function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(data.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(data, 8);
  view.setUint32(data.length + 8, crc32(out.subarray(4, data.length + 8)));
  return out;
}

/**
 * Concatenate.
 *
 * @param parts Bytes in order.
 * @returns One array.
 */
export function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/**
 * Filter each row in the way that gives the least sum of absolute differences.
 *
 * @param data `[rows, stride]`.
 * @param stride Bytes per row.
 * @param size Bytes per pixel.
 * @returns `[rows, 1 + stride]`: filter type, then the row.
 */
export function filterRows(
  data: Uint8Array,
  stride: number,
  size: number,
): Uint8Array {
  const rows = data.length / stride;
  const out = new Uint8Array(rows * (stride + 1));
  const trial = new Uint8Array(stride);
  for (let y = 0; y < rows; y++) {
    let least = Infinity;
    for (let type = 0; type < 5; type++) {
      let sum = 0;
      for (let i = 0; i < stride; i++) {
        const at = y * stride + i;
        const left = i < size ? 0 : data[at - size] as number;
        const up = y === 0 ? 0 : data[at - stride] as number;
        const upLeft = i < size || y === 0
          ? 0
          : data[at - stride - size] as number;
        const v = ((data[at] as number) - predict(type, left, up, upLeft)) &
          255;
        trial[i] = v;
        sum += v < 128 ? v : 256 - v;
      }
      if (sum >= least) continue;
      least = sum;
      out[y * (stride + 1)] = type;
      out.set(trial, y * (stride + 1) + 1);
    }
  }
  return out;
}

/**
 * The inverse of {@linkcode filterRows}.
 *
 * @param rows `[rows, 1 + stride]`.
 * @param stride Bytes per row.
 * @param size Bytes per pixel.
 * @returns `[rows, stride]`.
 * @throws {SyntaxError} If a filter type is not 0 to 4.
 */
export function unfilterRows(
  rows: Uint8Array,
  stride: number,
  size: number,
): Uint8Array {
  const out = new Uint8Array(rows.length / (stride + 1) * stride);
  for (let y = 0; y * stride < out.length; y++) {
    const type = rows[y * (stride + 1)] as number;
    if (type > 4) throw broken(`the filter of row ${y} must be 0 to 4`, type);
    for (let i = 0; i < stride; i++) {
      const at = y * stride + i;
      const left = i < size ? 0 : out[at - size] as number;
      const up = y === 0 ? 0 : out[at - stride] as number;
      const upLeft = i < size || y === 0
        ? 0
        : out[at - stride - size] as number;
      out[at] = (rows[at + y + 1] as number) + predict(type, left, up, upLeft);
    }
  }
  return out;
}

/** What a filter type expects: 0, left, up, their mean, or Paeth's choice. */
function predict(
  type: number,
  left: number,
  up: number,
  upLeft: number,
): number {
  if (type < 2) return type * left;
  if (type === 2) return up;
  if (type === 3) return (left + up) >> 1;
  const [a, b, c] = [
    Math.abs(up - upLeft),
    Math.abs(left - upLeft),
    Math.abs(left + up - 2 * upLeft),
  ];
  return a <= b && a <= c ? left : b <= c ? up : upLeft;
}

function crcTable(): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
    return n;
  });
}

function crc32(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc = (CRC_TABLE[(crc ^ byte) & 255] as number) ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

/**
 * Bytes as Latin-1.
 *
 * @param data Any bytes.
 * @returns One character for each.
 */
export function latin1(data: Uint8Array): string {
  let out = ""; // not TextDecoder: its "latin1" is windows-1252
  for (const byte of data) out += String.fromCharCode(byte);
  return out;
}

/**
 * The error of a file that is not a whole PNG.
 *
 * @param why What must hold.
 * @param current What is there.
 * @param cause The error behind it.
 * @returns The error, not thrown.
 */
export function broken(
  why: string,
  current: unknown,
  cause?: unknown,
): SyntaxError {
  return new SyntaxError(`Cannot read PNG: ${why}: current ${current}`, {
    cause,
  });
}
