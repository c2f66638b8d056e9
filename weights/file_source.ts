// file_source: bytes of a local file, by positioned reads.
import { type FileHandle, open, stat } from "node:fs/promises";
import {
  allocate,
  type ByteSource,
  checkRange,
  closedError,
  type ReadOptions,
  shortError,
} from "./byte_source.ts";
import { MissingFileError, WeightsError } from "./errors.ts";

const CHUNK_BYTES = 64 * 2 ** 20; // one read(2); an abort waits at most this long

/**
 * Opens a regular file.
 *
 * @param path Path of the file.
 * @param name What error messages call it.
 * @returns The open file. The caller closes it.
 * @throws {MissingFileError} If it does not exist.
 * @throws {WeightsError} If it is not a readable file.
 */
export async function openFile(
  path: string,
  name: string,
): Promise<ByteSource> {
  let handle: FileHandle | undefined;
  try {
    // stat comes first: opening a named pipe would wait for its writer
    const info = await stat(path);
    if (!info.isFile()) {
      throw new WeightsError(
        `Cannot open ${name}: it must be a file: current ${
          info.isDirectory() ? "folder" : "device"
        }`,
      );
    }
    handle = await open(path, "r");
    return new FileSource(handle, name, (await handle.stat()).size);
  } catch (cause) {
    await handle?.close();
    throw fileError(cause, name);
  }
}

function fileError(cause: unknown, name: string): WeightsError {
  if (cause instanceof WeightsError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new MissingFileError(
      `Cannot open ${name}: the file must exist: current path has no file`,
      { cause },
    );
  }
  return new WeightsError(
    `Cannot read ${name}: the file must be readable: current ${message}`,
    {
      cause,
    },
  );
}

class FileSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  #handle: FileHandle | undefined;

  constructor(handle: FileHandle, name: string, size: number) {
    this.#handle = handle;
    this.name = name;
    this.size = size;
  }

  async read(
    offset: number,
    length: number,
    options: ReadOptions = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    options.signal?.throwIfAborted();
    const handle = this.#handle;
    if (handle === undefined) throw closedError(this.name);
    checkRange(this, offset, length);
    const bytes = allocate(length, this.name, options.into);
    let done = 0;
    while (done < length) {
      let count: number;
      try {
        const want = Math.min(CHUNK_BYTES, length - done);
        count = (await handle.read(bytes, done, want, offset + done)).bytesRead;
      } catch (cause) {
        throw fileError(cause, this.name);
      }
      options.signal?.throwIfAborted();
      if (count === 0) throw shortError(this.name, length, done, offset);
      done += count;
    }
    return bytes;
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
