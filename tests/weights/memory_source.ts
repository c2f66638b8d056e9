// memory_source: a ByteSource over an array that remembers what was read.
import type { ByteSource } from "../../weights/source.ts";

/** Reads like a file; `reads` lists every `[offset, length]`. */
export class MemorySource implements ByteSource {
  readonly name = "memory.safetensors";
  readonly size: number;
  readonly reads: [number, number][] = [];
  closed = false;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, size: number = bytes.length) {
    this.#bytes = bytes;
    this.size = size;
  }

  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new Error(`Read outside the source: ${length} at ${offset}`);
    }
    this.reads.push([offset, length]);
    return Promise.resolve(
      new Uint8Array(this.#bytes.slice(offset, offset + length)),
    );
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
