/** What a device was told to do, to be told again without working it out anew. */
import { sameShape, type StorageType, type Tensor } from "./backend.ts";
import type { Taken } from "./pool.ts";

/** A tensor that the work made and handed out. */
interface Result<B> extends Taken<B> {
  readonly shape: readonly number[];
  readonly type: StorageType;
}

/**
 * The runs of a piece of work with the buffers that they are bound to. They may be submitted again while
 * those from outside are alive and all others free.
 */
export class Recording<B> {
  /** When buffers were destroyed last; recordings from before may be bound to them. */
  readonly era: number;
  /** In order. */
  readonly runs: (() => void)[] = [];
  /** Tensors from outside: weights, tables, what the text became. */
  readonly #outer = new Set<Tensor>();
  /** Buffers in use, with their bytes. */
  readonly #live = new Map<unknown, number>();
  /** Buffers that were in use at some time. */
  readonly #own = new Set<B>();
  #bytes = 0;
  #most = 0;
  #inputs: readonly Tensor[] = [];
  #results: readonly Result<B>[] = [];
  #spoilt = false;

  /** Starts with no run. */
  constructor(era: number) {
    this.era = era;
  }

  /** Where the inputs are copied to. */
  get inputs(): readonly B[] {
    return this.#inputs.map((x) => x.storage as B);
  }

  /** Most bytes that were in use at once, results included. */
  get mostBytes(): number {
    return this.#most;
  }

  /** What the work made, in order. */
  get results(): readonly Result<B>[] {
    return this.#results;
  }

  /** It cannot be repeated: something else was done than work on tensors. */
  spoil(): void {
    this.#spoilt = true;
  }

  /** A tensor was made. */
  took(buffer: B, bytes: number): void {
    this.#live.set(buffer, bytes);
    this.#own.add(buffer);
    this.#bytes += bytes;
    this.#most = Math.max(this.#most, this.#bytes);
  }

  /** A tensor was freed; if it was made outside, it will not be there to be freed again. */
  gave(buffer: unknown): void {
    const bytes = this.#live.get(buffer);
    if (bytes === undefined) this.#spoilt = true;
    else this.#bytes -= bytes;
    this.#live.delete(buffer);
  }

  /** Whether a tensor was made by the work. */
  made(x: Tensor): boolean {
    return this.#live.has(x.storage);
  }

  /** Notes what a run is bound to. */
  uses(tensors: readonly Tensor[]): void {
    for (const x of tensors) {
      if (!this.made(x)) this.#outer.add(x);
    }
  }

  /**
   * Ends the recording. Returns whether it may be repeated.
   *
   * @param inputs The copies that the work read, freed by now.
   * @param results What it returned.
   */
  end(inputs: readonly Tensor[], results: readonly Tensor[]): boolean {
    this.#inputs = inputs;
    this.#results = results.map(({ shape, storage, bytes, type }) => ({
      shape,
      buffer: storage as B,
      bytes,
      type,
    }));
    // What is alive and was not handed out was kept somewhere: the next time it will not be made again.
    const handedOut = new Set(results.map((x) => x.storage));
    return !this.#spoilt && handedOut.size === results.length &&
      handedOut.size === this.#live.size &&
      results.every((x) => this.made(x));
  }

  /** Whether the runs would do the work on these inputs now. */
  fits(
    inputs: readonly Tensor[],
    pool: { has(buffer: B): boolean },
  ): boolean {
    const alike = inputs.length === this.#inputs.length &&
      inputs.every((x, i) => sameShape(x.shape, this.#inputs[i]!.shape));
    if (!alike) return false;
    for (const x of this.#outer) if (x.disposed) return false;
    for (const buffer of this.#own) if (!pool.has(buffer)) return false;
    return true;
  }
}
