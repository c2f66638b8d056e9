// byte_source: what every source of bytes promises, and the checks they share.
import { WeightsError } from "./errors.ts";

/** Options of everything here that waits. */
export interface ReadOptions {
  /** Ends the wait; the promise then rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Where the bytes may be put, to be used again for the next ones; where it is too small, or a source
   * has them already, the result is an array of its own.
   */
  readonly into?: Uint8Array<ArrayBuffer> | undefined;
}

/** Bytes of a known size, read by range. */
export interface ByteSource extends AsyncDisposable {
  /** The path or URL as error messages show it. */
  readonly name: string;
  /** The size of the whole, fixed when it was opened. */
  readonly size: number;
  /**
   * Reads exactly `length` bytes from `offset`.
   *
   * @param offset First byte, `0 <= offset <= size`.
   * @param length Number of bytes, `offset + length <= size`.
   * @returns The start of `into`, or a fresh array that the caller owns; its view starts at byte 0 of its
   *   buffer.
   * @throws {RangeError} If the range is not inside the source.
   * @throws {WeightsError} If the bytes cannot be had.
   */
  read(
    offset: number,
    length: number,
    options?: ReadOptions,
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** Frees the file; calling it twice does no harm. */
  close(): Promise<void>;
}

/** Throws a RangeError unless the range is inside the source. */
export function checkRange(
  source: ByteSource,
  offset: number,
  length: number,
): void {
  const legal = Number.isSafeInteger(offset) && Number.isSafeInteger(length) &&
    offset >= 0 && length >= 0 && offset + length <= source.size;
  if (!legal) {
    throw new RangeError(
      `Cannot read ${source.name}: the range must be inside its ${source.size} bytes: current ${length} bytes at ${offset}`,
    );
  }
}

/** The start of `into`, or an array of zeros; an engine that refuses the size gives a WeightsError. */
export function allocate(
  length: number,
  name: string,
  into?: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  if (into && into.length >= length) return into.subarray(0, length);
  try {
    return new Uint8Array(length);
  } catch (cause) {
    throw new WeightsError(
      `Cannot read ${name}: ${length} bytes must fit the memory: current engine refuses them`,
      { cause },
    );
  }
}

/** The error of a read after close. */
export function closedError(name: string): WeightsError {
  return new WeightsError(
    `Cannot read ${name}: it must be open: current state is closed`,
  );
}

/** The error of bytes that end too early. */
export function shortError(
  name: string,
  want: number,
  got: number,
  offset: number,
): WeightsError {
  return new WeightsError(
    `Cannot read ${name}: ${want} bytes must follow byte ${offset}: current file or answer ends after ${got}`,
  );
}
