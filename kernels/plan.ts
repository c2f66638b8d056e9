/**
 * The `plan` backend: nothing is computed, only counted. A network that runs on it takes and frees the
 * buffers that it would on a device, by the same pool, so its peak is known before a byte is loaded.
 */
import {
  type Backend,
  checkGroups,
  type CopyRange,
  type Dispatch,
  expectData,
  expectRange,
  type Floats,
  type Kernel,
  type KernelFamily,
  type MemoryUse,
  type PlannedKernel,
  type Recorder,
  sizeOf,
  type StageName,
  type StorageType,
  storedBytes,
  Tensor,
  type Work,
} from "./backend.ts";
import type { MatrixUnits } from "./matrix_units.ts";
import { checkTensorBytes, Pool, Stages } from "./pool.ts";

/** Counts bytes and work. */
export class Plan implements Backend {
  /** See `Backend`. */
  readonly kind = "plan";
  /** See `Backend`. */
  readonly description = "plan (nothing is computed)";
  /** See `Backend`. */
  readonly family: KernelFamily;
  /** See `Backend`. */
  readonly maxTensorBytes: number;
  /** See `Backend`. */
  tape: Recorder | undefined = undefined;
  /** See `Backend`. */
  readonly matrix: MatrixUnits | undefined;
  /** See `Backend`. */
  halfProducts = false;
  /** See `Backend`. */
  halfTiles = false;
  readonly #kernels = new Map<string, PlannedKernel>();
  #flops = 0;
  #dispatches = 0;
  #largest = 0;
  readonly #pool = new Pool<object>({
    create: () => ({}),
    destroy: () => {},
    beforeTrim: () => {},
  });
  readonly #stages = new Stages(this.#pool, () => {});

  /**
   * Starts with nothing.
   *
   * @param maxTensorBytes The adapter's binding limit: what exceeds it is an error, as on a device.
   * @param family Whose buffers are counted: that of the device which is planned for.
   * @param matrix The device's matrix units, if they are used.
   */
  constructor(
    maxTensorBytes = Infinity,
    family: KernelFamily = "software",
    matrix?: MatrixUnits,
  ) {
    this.maxTensorBytes = maxTensorBytes;
    this.family = family;
    this.matrix = matrix;
  }

  /** Floating-point operations of the matrix products so far: two per multiplication. */
  get flops(): number {
    return this.#flops;
  }

  /** What has run so far, each once. */
  get kernels(): PlannedKernel[] {
    return [...this.#kernels.values()];
  }

  /** Kernel runs so far. */
  get dispatches(): number {
    return this.#dispatches;
  }

  /** Bytes of the largest tensor so far. */
  get largestTensorBytes(): number {
    return this.#largest;
  }

  /** See `Backend`. */
  get memory(): MemoryUse {
    return this.#pool.memory;
  }

  /** See `Backend`. */
  resetPeak(): void {
    this.#pool.resetPeak();
  }

  /** See `Backend`. */
  alloc(shape: readonly number[], type: StorageType = "f32"): Tensor {
    const size = storedBytes(shape, type);
    checkTensorBytes(shape, size, this.maxTensorBytes);
    this.#largest = Math.max(this.#largest, size);
    const { buffer, bytes } = this.#pool.take(size);
    return new Tensor(this, [...shape], buffer, bytes, type);
  }

  /** See `Backend`. */
  upload(data: Floats | readonly number[], shape: readonly number[]): Tensor {
    const tensor = this.alloc(shape);
    expectData(tensor, data.length, "f32");
    return tensor;
  }

  /** See `Backend`. */
  write(tensor: Tensor, data: Floats, first?: number): void {
    expectData(tensor, data.length, "f32", first);
  }

  /** See `Backend`. */
  writeHalf(tensor: Tensor, bits: Uint16Array, first?: number): void {
    expectData(tensor, bits.length, "f16", first);
  }

  /** See `Backend`. */
  stage(name: StageName, from: Tensor, _first: number, count: number): void {
    this.#stages.fit(name, from.type, count);
  }

  /** See `Backend`. */
  copy(from: Tensor, to: Tensor, range: CopyRange): void {
    expectRange(from, to, range);
  }

  /** See `Backend`. */
  dispatch(kernel: Kernel, { params, constants = {}, groups }: Dispatch): void {
    checkGroups(kernel.name, groups);
    this.#dispatches++;
    const key = `${kernel.name} ${JSON.stringify(constants)}`;
    if (!this.#kernels.has(key)) this.#kernels.set(key, { kernel, constants });
    this.#flops += kernel.flops?.(params) ?? 0;
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
    return (inputs) => {
      if (this.tape || this.#pool.repeating) return work(inputs);
      return this.#pool.repeat(() => {
        const own = inputs.map(({ shape }) => this.alloc(shape));
        const results = work(own);
        for (const x of own) x.dispose();
        return results;
      });
    };
  }

  /** See `Backend`. */
  flush(): void {}

  /** Zeros. */
  read(
    tensors: readonly Tensor[],
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<Floats[]> {
    options.signal?.throwIfAborted();
    return Promise.resolve(
      tensors.map((x) => new Float32Array(sizeOf(x.shape))),
    );
  }

  /** See `Backend`. */
  trim(): void {
    this.#stages.free();
    this.#pool.trim();
  }

  /** See `Backend`. */
  release(storage: unknown, bytes: number): void {
    this.#pool.give(storage as object, bytes);
  }

  /** Frees everything. */
  [Symbol.dispose](): void {
    this.trim();
  }
}
