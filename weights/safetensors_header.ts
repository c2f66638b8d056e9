// safetensors_header: the first part of a safetensors file -> checked TensorInfo.
//
//   u64 little-endian  n, the length of the header
//   n bytes            JSON: name -> { dtype, shape, data_offsets: [begin, end] }
//   the rest           the tensors, little-endian, back to back, no holes
//
// The header is checked as a whole before any number in it is used.
// Format: https://github.com/huggingface/safetensors
import type { ByteSource, ReadOptions } from "./byte_source.ts";
import { quote, WeightsError } from "./errors.ts";
import {
  isJsonObject,
  type JsonObject,
  type JsonValue,
  parseStrictJson,
} from "./strict_json.ts";

/** The element type of a tensor, as the file names it. */
export type Dtype =
  | "BOOL"
  | "U8"
  | "I8"
  | "F8_E4M3"
  | "F8_E5M2"
  | "F8_E8M0"
  | "U16"
  | "I16"
  | "F16"
  | "BF16"
  | "U32"
  | "I32"
  | "F32"
  | "U64"
  | "I64"
  | "F64"
  | "C64";

/** Bytes per element of each dtype that may be listed. */
export const DTYPE_BYTES: Readonly<Record<Dtype, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  U16: 2,
  I16: 2,
  F16: 2,
  BF16: 2,
  U32: 4,
  I32: 4,
  F32: 4,
  U64: 8,
  I64: 8,
  F64: 8,
  C64: 8,
};

/** What the header says about one tensor, checked. */
export interface TensorInfo {
  /** The key in the header. */
  readonly name: string;
  /** The element type. */
  readonly dtype: Dtype;
  /** Row-major sizes; `[]` is one number. */
  readonly shape: readonly number[];
  /** First byte, counted from the start of the file. */
  readonly offset: number;
  /** `product(shape) * bytes of dtype`. */
  readonly sizeBytes: number;
}

const LENGTH_BYTES = 8;
const MAX_HEADER_BYTES = 100_000_000; // the limit of the reference implementation
const ENTRY_KEYS = ["dtype", "shape", "data_offsets"];

/** A checked header. */
export interface SafetensorsHeader {
  /** Every tensor by name, in file order. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The `__metadata__`; empty if there is none. */
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Reads and checks the header of a safetensors file.
 *
 * @param source The file.
 * @returns What it holds; every tensor lies inside the file.
 * @throws {WeightsError} If anything about the header is wrong.
 */
export async function readSafetensorsHeader(
  source: ByteSource,
  options: ReadOptions = {},
): Promise<SafetensorsHeader> {
  const { text, dataStart } = await readHeaderText(source, options);
  const header = parseStrictJson(text, {
    name: `the header of ${source.name}`,
    integersOnly: true,
    refusePrototypeKeys: true,
  }) as JsonObject; // readHeaderText saw the brace
  const metadata = checkMetadata(source, header["__metadata__"]);
  const tensors = Object.keys(header)
    .filter((name) => name !== "__metadata__")
    .map((name) => checkEntry(source, name, header[name], dataStart));
  return { metadata, tensors: checkLayout(source, tensors, dataStart) };
}

async function readHeaderText(
  source: ByteSource,
  options: ReadOptions,
): Promise<{ text: string; dataStart: number }> {
  if (source.size < LENGTH_BYTES) {
    throw headerError(
      source,
      "the file must have at least 8 bytes",
      `size is ${source.size}`,
    );
  }
  const start = await source.read(0, LENGTH_BYTES, options);
  const length = new DataView(start.buffer).getBigUint64(0, true);
  if (length === 0n) {
    throw headerError(source, "its header must not be empty", "length is 0");
  }
  if (length > MAX_HEADER_BYTES) {
    throw headerError(
      source,
      `its header must have at most ${MAX_HEADER_BYTES} bytes`,
      `length is ${length}${hint(start)}`,
    );
  }
  if (Number(length) > source.size - LENGTH_BYTES) {
    throw headerError(
      source,
      "its header must fit the file",
      `${length} of ${
        source.size - LENGTH_BYTES
      } bytes; the file may be cut off`,
    );
  }
  const bytes = await source.read(LENGTH_BYTES, Number(length), options);
  if (bytes[0] !== 0x7b) {
    throw headerError(
      source,
      'its header must start with "{"',
      `byte is ${bytes[0]}`,
    );
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
      .decode(bytes);
    return { text, dataStart: LENGTH_BYTES + bytes.length };
  } catch (cause) {
    throw headerError(source, "its header must be UTF-8", "bytes are not", {
      cause,
    });
  }
}

/** What people open by mistake. */
function hint(start: Uint8Array): string {
  const text = String.fromCharCode(...start);
  if (text === "version ") {
    return "; it looks like a Git LFS pointer, fetch the file itself";
  }
  if (text.startsWith("PK")) {
    return "; it looks like a PyTorch pickle, which is not read";
  }
  if (text.startsWith("<")) return "; it looks like a web page";
  return "";
}

function checkMetadata(
  source: ByteSource,
  value: JsonValue | undefined,
): Map<string, string> {
  const metadata = new Map<string, string>();
  if (value === undefined) return metadata;
  if (!isJsonObject(value)) {
    throw headerError(
      source,
      "__metadata__ must be an object of strings",
      quote(value),
    );
  }
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string") {
      throw headerError(
        source,
        "__metadata__ must be an object of strings",
        `${quote(key)} is ${quote(text)}`,
      );
    }
    metadata.set(key, text);
  }
  return metadata;
}

function checkEntry(
  source: ByteSource,
  name: string,
  entry: JsonValue | undefined,
  dataStart: number,
): TensorInfo {
  const fail = (rule: string, current: string): WeightsError =>
    headerError(source, `tensor ${quote(name)} ${rule}`, current);
  if (
    !isJsonObject(entry) ||
    Object.keys(entry).toSorted().join() !== "data_offsets,dtype,shape"
  ) {
    throw fail(`must be an object of ${ENTRY_KEYS.join(", ")}`, quote(entry));
  }
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    throw fail(`must have a known dtype`, `dtype is ${quote(dtype)}`);
  }
  if (!isArray(shape)) {
    throw fail("must have an array as its shape", quote(shape));
  }
  let sizeBytes: number = DTYPE_BYTES[dtype as Dtype];
  for (const size of shape) {
    if (!isCount(size)) {
      throw fail("must have counts as its shape", quote(shape));
    }
    sizeBytes *= size;
    if (!Number.isSafeInteger(sizeBytes)) {
      throw fail("must have fewer than 2^53 bytes", `shape is ${quote(shape)}`);
    }
  }
  if (!isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw fail("must have two counts as its data_offsets", quote(offsets));
  }
  const [begin, end] = offsets as [number, number];
  if (end < begin) {
    throw fail(
      "must end after it begins",
      `data_offsets are ${quote(offsets)}`,
    );
  }
  if (end > source.size - dataStart) {
    throw fail(
      "must end inside the file",
      `data_offsets are ${quote(offsets)} of ${
        source.size - dataStart
      } bytes; the file may be cut off`,
    );
  }
  if (end - begin !== sizeBytes) {
    throw fail(
      `must have the ${sizeBytes} bytes of ${dtype} ${quote(shape)}`,
      `data_offsets give ${end - begin}`,
    );
  }
  return {
    name,
    dtype: dtype as Dtype,
    shape: shape as readonly number[],
    offset: dataStart + begin,
    sizeBytes,
  };
}

/** Tensors must lie back to back and fill the file. */
function checkLayout(
  source: ByteSource,
  tensors: readonly TensorInfo[],
  dataStart: number,
): Map<string, TensorInfo> {
  // an empty tensor at the same place comes before the one that has bytes
  const sorted = tensors.toSorted((a, b) =>
    a.offset - b.offset || a.sizeBytes - b.sizeBytes
  );
  let at = dataStart;
  for (const { name, offset, sizeBytes } of sorted) {
    if (offset !== at) {
      throw headerError(
        source,
        `tensor ${
          quote(name)
        } must begin where the one before it ends, at ${at}`,
        `${offset < at ? "overlap" : "hole"}: it begins at ${offset}`,
      );
    }
    at += sizeBytes;
  }
  if (at !== source.size) {
    throw headerError(
      source,
      "the file must end after its last tensor",
      `${source.size - at} bytes too many`,
    );
  }
  return new Map(sorted.map((info) => [info.name, info]));
}

function headerError(
  source: ByteSource,
  rule: string,
  current: string,
  options?: ErrorOptions,
): WeightsError {
  return new WeightsError(
    `Cannot read ${source.name}: ${rule}: current ${current}`,
    options,
  );
}

function isArray(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value);
}

function isCount(value: JsonValue): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 &&
    !Object.is(value, -0);
}
