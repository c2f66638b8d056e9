/** The `cpu` backend: every kernel's float64 reference, run at once. The oracle of the tests. */
import {
  type Backend,
  type CopyRange,
  type Dispatch,
  expectAlive,
  expectData,
  expectRange,
  expectReadable,
  type Floats,
  type Kernel,
  type KernelFamily,
  type MemoryUse,
  type Recorder,
  sizeOf,
  type StorageType,
  Tensor,
  type Work,
} from "./backend.ts";
import { halfToNumber } from "./half.ts";
import type { MatrixUnits } from "./matrix_units.ts";

/** Runs the references in float64. Slow, exact, and there on every machine. */
export class Cpu implements Backend {
  /** See `Backend`. */
  readonly kind = "cpu";
  /** See `Backend`. */
  readonly description = "cpu (float64 references)";
  /** See `Backend`. */
  readonly family: KernelFamily;
  /** See `Backend`. */
  tape: Recorder | undefined = undefined;
  /** See `Backend`. */
  readonly matrix: MatrixUnits | undefined;
  /** See `Backend`. */
  halfProducts = false;
  /** See `Backend`. */
  halfTiles = false;
  #live = 0;
  #peak = 0;
  readonly #free = new Map<number, Float64Array[]>();

  /**
   * Starts with nothing.
   *
   * @param family Whose references run. Those of `software` are the quicker ones.
   * @param matrix Let products be rounded to 16 bits where networks bear it, as units of such sizes do.
   */
  constructor(family: KernelFamily = "software", matrix?: MatrixUnits) {
    this.family = family;
    this.matrix = matrix;
  }

  /** See `Backend`. */
  get memory(): MemoryUse {
    return {
      liveBytes: this.#live,
      peakBytes: this.#peak,
      reservedBytes: this.#live,
      peakReservedBytes: this.#peak,
    };
  }

  /** See `Backend`. */
  resetPeak(): void {
    this.#peak = this.#live;
  }

  /** See `Backend`. */
  readonly maxTensorBytes: number = Infinity;

  /** See `Backend`; float64 whatever the type, f16 ones hold rounded numbers. */
  alloc(shape: readonly number[], type: StorageType = "f32"): Tensor {
    const size = sizeOf(shape);
    const storage = this.#free.get(size)?.pop() ?? new Float64Array(size);
    this.#live += storage.byteLength;
    this.#peak = Math.max(this.#peak, this.#live);
    return new Tensor(this, [...shape], storage, storage.byteLength, type);
  }

  /** See `Backend`. */
  upload(data: Floats | readonly number[], shape: readonly number[]): Tensor {
    if (data.length !== sizeOf(shape)) {
      throw new RangeError(
        `Cannot upload [${shape}]: data must hold ${
          sizeOf(shape)
        } numbers: current ${data.length}`,
      );
    }
    const x = this.alloc(shape);
    (x.storage as Float64Array).set(data);
    return x;
  }

  /** See `Backend`. */
  write(tensor: Tensor, data: Floats, first?: number): void {
    expectData(tensor, data.length, "f32", first);
    (tensor.storage as Float64Array).set(data, first);
  }

  /** See `Backend`. */
  writeHalf(tensor: Tensor, bits: Uint16Array, first?: number): void {
    expectData(tensor, bits.length, "f16", first);
    const storage = (tensor.storage as Float64Array).subarray(first);
    for (let i = 0; i < bits.length; i++) storage[i] = halfToNumber(bits[i]!);
  }

  /** Nothing: the references read the tensor itself. */
  stage(): void {}

  /** See `Backend`. */
  copy(from: Tensor, to: Tensor, range: CopyRange): void {
    expectRange(from, to, range);
    const { first, at, count } = range;
    const numbers = from.storage as Float64Array;
    (to.storage as Float64Array).set(
      numbers.subarray(first, first + count),
      at,
    );
  }

  /** See `Backend`. */
  dispatch(kernel: Kernel, { bind, params, constants = {} }: Dispatch): void {
    expectAlive(kernel, bind);
    kernel.ref(bind.map((x) => x.storage as Float64Array), params, constants);
  }

  /** See `Backend`. */
  tuneFor(): Promise<void> {
    return Promise.resolve();
  }

  /** See `Backend`. */
  prepare(): Promise<void> {
    return Promise.resolve();
  }

  /** See `Backend`. */
  repeated(work: Work): Work {
    return work;
  }

  /** See `Backend`. */
  flush(): void {}

  /** See `Backend`. */
  read(
    tensors: readonly Tensor[],
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<Floats[]> {
    options.signal?.throwIfAborted();
    for (const x of tensors) expectReadable(x);
    // A turn of the event loop, so that Ctrl+C and timers are heard between passes.
    return new Promise((resolve) =>
      setTimeout(
        () => resolve(tensors.map((x) => (x.storage as Float64Array).slice())),
        0,
      )
    );
  }

  /** See `Backend`. */
  trim(): void {
    this.#free.clear();
  }

  /** See `Backend`. */
  release(storage: unknown, bytes: number): void {
    this.#live -= bytes;
    const array = storage as Float64Array;
    const list = this.#free.get(array.length) ?? [];
    if (list.length < 8) list.push(array);
    this.#free.set(array.length, list);
  }

  /** See `Backend`. */
  [Symbol.dispose](): void {
    this.#free.clear();
  }
}
