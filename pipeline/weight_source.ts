/** Where the weights of networks come from, and how they are loaded. */
import type { StorageType } from "../kernels/backend.ts";

/** Where weights come from: a component of a checkpoint, or anything like it. */
export interface WeightSource {
  /** For messages. */
  readonly name: string;
  /** Names, shapes and, where `readBytes` is there, types as safetensors names them. */
  readonly tensors: ReadonlyMap<
    string,
    { readonly shape: readonly number[]; readonly dtype?: string }
  >;
  /** The numbers of one tensor as float32. */
  read(
    name: string,
    options?: { signal?: AbortSignal | undefined },
  ): Promise<Float32Array>;
  /** Its bytes, little-endian, at the start of `into` where they fit: F16 and F32 need no other copy. */
  readBytes?(
    name: string,
    options?: {
      signal?: AbortSignal | undefined;
      into?: Uint8Array<ArrayBuffer> | undefined;
    },
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** Where nothing is to be read: told of every tensor that a network asks for, instead of a look-up. */
  readonly collect?: (name: string, shape: readonly number[]) => void;
}

/** How weights are loaded; for all networks. */
export interface LoadOptions {
  /**
   * How matrices and kernels are stored on the device: `f32`, or `f16` in half the bytes. Numbers of an
   * F16 checkpoint are the same in both. Default f32.
   */
  readonly storage?: StorageType | undefined;
  /** Cancels. */
  readonly signal?: AbortSignal | undefined;
  /** Called after each tensor. */
  readonly onTensor?: ((done: number, total: number) => void) | undefined;
  /** Buffers to read into, for one network after the other. */
  readonly scratch?: Scratch | undefined;
}

/**
 * Two buffers that tensors are read into by turns. Fresh ones for every tensor would pile up until an
 * engine collects them, in Bun to gigabytes.
 */
export class Scratch {
  readonly #buffers = [new Uint8Array(0), new Uint8Array(0)];

  /** Makes room for the largest tensor of each turn. */
  reserve(most: readonly [number, number]): void {
    most.forEach((bytes, i) => {
      if (bytes > this.#buffers[i]!.length) {
        this.#buffers[i] = new Uint8Array(bytes);
      }
    });
  }

  /** The buffer of a turn. */
  of(turn: number): Uint8Array<ArrayBuffer> {
    return this.#buffers[turn % 2]!;
  }
}
