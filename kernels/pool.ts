/**
 * Which buffer a tensor gets, and how many bytes are held: one policy for the device and for the plan
 * that foretells it, so that an estimate is what a run then takes.
 */

import type { MemoryUse, StageName, StorageType } from "./backend.ts";
import { DeviceMemoryError } from "./errors.ts";

/** Makes and frees buffers of a given number of bytes. */
export interface BufferMaker<B> {
  /** A new buffer. */
  create(bytes: number): B;
  /** Gives one back to the device. */
  destroy(buffer: B): void;
  /** Told before buffers are destroyed: nothing that is recorded may still need them. */
  beforeTrim(): void;
}

/** Buffers are multiples of this, so that near sizes share them. */
const STEP = 256;
/**
 * A free buffer may be larger than what is asked for by this factor. In passes of SD1.5 at 512 x 512
 * the device then holds 1.2 to 2 times the bytes in use; with 1, 1.9 to 5 times.
 */
const ROOMY = 2;

/** A buffer and its real size. */
export interface Taken<B> {
  /** The buffer. */
  readonly buffer: B;
  /** Its bytes, at least those asked for. */
  readonly bytes: number;
}

/** Bytes of a new buffer for so many bytes of numbers. */
export function bufferBytes(bytes: number): number {
  return Math.max(STEP, Math.ceil(bytes / STEP) * STEP);
}

/**
 * Throws if one tensor is more than the adapter can bind.
 *
 * @throws {DeviceMemoryError} With both sizes.
 */
export function checkTensorBytes(
  shape: readonly number[],
  bytes: number,
  most: number,
): void {
  if (bufferBytes(bytes) > most) {
    throw new DeviceMemoryError(
      `Cannot make tensor [${shape}]: one tensor must fit the adapter's binding limit of ${most} bytes: current size is ${bytes}`,
    );
  }
}

/** A free buffer. */
interface Idle<B> {
  readonly buffer: B;
  readonly id: number;
}

/**
 * A pool of buffers by size.
 *
 * Work that is repeated has buffers for itself, so that it finds the same ones free each time, in whatever
 * order tensors come and go outside. What needs one outside and finds none takes one of these for good.
 */
export class Pool<B> {
  readonly #maker: BufferMaker<B>;
  readonly #outside = new Map<number, Idle<B>[]>();
  readonly #inside = new Map<number, Idle<B>[]>();
  readonly #ids = new Map<B, number>();
  /** Where free buffers are, and those in use will be. */
  readonly #homes = new Map<B, Map<number, Idle<B>[]>>();
  readonly #idle = new Set<B>();
  #home = this.#outside;
  #lastId = 0;
  #live = 0;
  #peak = 0;
  #pooled = 0;
  #held = 0;
  #peakReserved = 0;
  #largest = 0;
  #doubtful = 0;

  /** Starts empty. */
  constructor(maker: BufferMaker<B>) {
    this.#maker = maker;
  }

  /** Bytes of buffers in use. */
  get live(): number {
    return this.#live;
  }

  /** The most `live` has been since `resetPeak`. */
  get peak(): number {
    return this.#peak;
  }

  /** Bytes taken from the device: in use, free, and beside the buffers. */
  get reserved(): number {
    return this.#live + this.#pooled + this.#held;
  }

  /** The most `reserved` has been since `resetPeak`. */
  get peakReserved(): number {
    return this.#peakReserved;
  }

  /** All four counts. */
  get memory(): MemoryUse {
    return {
      liveBytes: this.#live,
      peakBytes: this.#peak,
      reservedBytes: this.reserved,
      peakReservedBytes: this.#peakReserved,
    };
  }

  /** Starts new measurements. */
  resetPeak(): void {
    this.#peak = this.#live;
    this.#peakReserved = this.reserved;
  }

  /** The number of a buffer, in the order in which they were made; the same in runs that are alike. */
  id(buffer: B): number {
    return this.#ids.get(buffer) ?? 0;
  }

  /** Whether the work that runs now is one that is repeated. */
  get repeating(): boolean {
    return this.#home === this.#inside;
  }

  /** Runs work that is repeated. */
  repeat<T>(work: () => T): T {
    this.#home = this.#inside;
    try {
      return work();
    } finally {
      this.#home = this.#outside;
    }
  }

  /**
   * A buffer for `bytes`: the oldest free one of the next size that is not much larger, so that equal
   * steps get equal buffers whatever came before them; else a new one.
   */
  take(bytes: number): Taken<B> {
    const least = bufferBytes(bytes);
    let taken = this.#takeFrom(this.#home, least);
    if (!this.repeating) taken ??= this.#takeFrom(this.#inside, least);
    if (!taken) {
      // Larger than any before: another stage begins, which the buffers of the last one do not serve.
      if (least > this.#largest) {
        this.trim();
        this.#largest = least;
      }
      taken = { buffer: this.#maker.create(least), bytes: least };
      this.#ids.set(taken.buffer, ++this.#lastId);
    }
    this.#homes.set(taken.buffer, this.#home);
    this.#live += taken.bytes;
    this.#peak = Math.max(this.#peak, this.#live);
    this.#peakReserved = Math.max(this.#peakReserved, this.reserved);
    return taken;
  }

  #takeFrom(
    free: ReadonlyMap<number, Idle<B>[]>,
    least: number,
  ): Taken<B> | undefined {
    let size = Infinity;
    for (const [at, list] of free) {
      if (list.length && at >= least && at < size) size = at;
    }
    if (size > least * ROOMY) return undefined;
    const list = free.get(size)!;
    let oldest = 0;
    for (let i = 1; i < list.length; i++) {
      if (list[i]!.id < list[oldest]!.id) oldest = i;
    }
    return this.#remove(list, oldest, size);
  }

  #remove(list: Idle<B>[], index: number, bytes: number): Taken<B> {
    const { buffer } = list.splice(index, 1)[0]!;
    this.#idle.delete(buffer);
    this.#pooled -= bytes;
    return { buffer, bytes };
  }

  /** Whether a buffer is free. */
  has(buffer: B): boolean {
    return this.#idle.has(buffer);
  }

  /** Takes buffers that are free, and counts `mostBytes` that were in use for a while, theirs included. */
  claim(taken: readonly Taken<B>[], mostBytes: number): void {
    this.#peak = Math.max(this.#peak, this.#live + mostBytes);
    for (const { buffer, bytes } of taken) {
      const list = this.#homes.get(buffer)!.get(bytes)!;
      this.#remove(list, list.findIndex((x) => x.buffer === buffer), bytes);
      this.#live += bytes;
    }
  }

  /** Gives a buffer back to the pool. */
  give(buffer: B, bytes: number): void {
    this.#live -= bytes;
    if (this.id(buffer) <= this.#doubtful) {
      this.#maker.beforeTrim();
      this.#destroy(buffer);
      return;
    }
    this.#pooled += bytes;
    this.#idle.add(buffer);
    const home = this.#homes.get(buffer)!;
    const list = home.get(bytes);
    const entry = { buffer, id: this.id(buffer) };
    if (list) list.push(entry);
    else home.set(bytes, [entry]);
  }

  /** Counts bytes that are taken from the device beside the buffers; negative ones are given back. */
  hold(bytes: number): void {
    this.#held += bytes;
    this.#peakReserved = Math.max(this.#peakReserved, this.reserved);
  }

  /** Frees what is not in use, and starts over: what comes then takes what it would take first. */
  trim(): void {
    this.#largest = 0;
    if (this.#pooled === 0) return;
    this.#maker.beforeTrim();
    for (const buffer of this.#idle) this.#destroy(buffer);
    this.#idle.clear();
    this.#outside.clear();
    this.#inside.clear();
    this.#pooled = 0;
  }

  /** The device had no room for one of the buffers: none of them is handed out again. */
  distrust(): void {
    this.trim();
    this.#doubtful = this.#lastId;
  }

  #destroy(buffer: B): void {
    this.#ids.delete(buffer);
    this.#homes.delete(buffer);
    this.#maker.destroy(buffer);
  }
}

/** Texels in a row of a stage: those that are used, and some so that rows do not share cache lines. */
export const STAGE_ROW = { used: 256, all: 260 };
const TEXEL_NUMBERS = 4;
/** They grow by so many rows. */
const STAGE_STEP = 64;

/** Which stage, and how its numbers are stored. */
export type StageKey = `${StageName} ${StorageType}`;

/** Sizes of the textures that `Backend.stage` fills: they grow to what is asked for, and are counted. */
export class Stages<B> {
  readonly #pool: Pool<B>;
  readonly #resize: (key: StageKey, rows: number) => void;
  readonly #rows = new Map<StageKey, number>();

  /**
   * Starts with none.
   *
   * @param resize Makes one of so many rows in place of the last; 0 for none.
   */
  constructor(pool: Pool<B>, resize: (key: StageKey, rows: number) => void) {
    this.#pool = pool;
    this.#resize = resize;
  }

  /** Makes room for so many numbers. */
  fit(name: StageName, type: StorageType, count: number): void {
    const texels = Math.ceil(count / TEXEL_NUMBERS);
    const rows = Math.ceil(texels / STAGE_ROW.used / STAGE_STEP) * STAGE_STEP;
    const key: StageKey = `${name} ${type}`;
    if (rows > (this.#rows.get(key) ?? 0)) this.#set(key, rows);
  }

  /** Gives them back to the device. */
  free(): void {
    for (const key of [...this.#rows.keys()]) this.#set(key, 0);
  }

  #set(key: StageKey, rows: number): void {
    const bytes = key.endsWith("f16") ? 2 : 4;
    this.#pool.hold(
      (rows - (this.#rows.get(key) ?? 0)) * STAGE_ROW.all * TEXEL_NUMBERS *
        bytes,
    );
    if (rows) this.#rows.set(key, rows);
    else this.#rows.delete(key);
    this.#resize(key, rows);
  }
}
