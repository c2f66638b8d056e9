/**
 * What a kernel is, what a tensor is, and the one interface that both backends implement.
 *
 * A network never asks which backend it runs on: it calls the typed wrappers of this folder, they
 * check shapes and record a dispatch. `webgpu.ts` runs the kernel's WGSL, `cpu.ts` its float64
 * reference.
 */
import { DeviceMemoryError } from "./errors.ts";
import type { MatrixUnits } from "./matrix_units.ts";

/** Numbers read from or written to a backend: float32 from a device, float64 from the references. */
export type Floats = Float32Array | Float64Array;

/** The scalars a kernel takes besides its bindings, by name. */
export type Params = Readonly<Record<string, number>>;

/**
 * One operation: WGSL for devices and the float64 reference that defines it.
 *
 * The WGSL binds the tensors of `bindings` in order, then one uniform struct with the fields of
 * `params` in order.
 */
export interface Kernel {
  /** Unique; labels the pipeline. */
  readonly name: string;
  /** WGSL source with one entry point `main`. */
  readonly wgsl: string;
  /**
   * One letter per tensor: `r` read-only, `w` read and write, both as storage; `a` and `b` the stages of
   * that name as textures of storage that is only read, `rgba32float`, 256 texels per row; `h` stage `a` of
   * f16, `rgba16float`.
   */
  readonly bindings: string;
  /** Field names of the uniform struct; a name that ends in `:f` is f32, others are u32. */
  readonly params: readonly string[];
  /** The definition: plain loops over float64, writing the `w` bindings. */
  readonly ref: (
    bind: readonly Float64Array[],
    params: Params,
    constants: Params,
  ) => void;
  /** Floating-point operations of its matrix products, two per multiplication; none if left out. */
  readonly flops?: (params: Params) => number;
}

/** What one dispatch needs. */
export interface Dispatch {
  /** Tensors in the kernel's binding order. */
  readonly bind: readonly Tensor[];
  /** Values of the kernel's params. */
  readonly params: Params;
  /** Values of WGSL `override` constants. */
  readonly constants?: Params;
  /** Workgroups in x, y, z. */
  readonly groups: readonly [number, number, number];
}

/** Numbers that `Backend.copy` copies. */
export interface CopyRange {
  /** The first of them. */
  readonly first: number;
  /** Where that goes. */
  readonly at: number;
  /** How many. */
  readonly count: number;
}

/** A kernel with its `override` constants: what a device compiles. */
export interface PlannedKernel {
  /** The kernel. */
  readonly kernel: Kernel;
  /** Values of its constants. */
  readonly constants: Params;
}

/** Bytes that a backend holds. Weights and activations together. */
export interface MemoryUse {
  /** Bytes of tensors alive now. */
  readonly liveBytes: number;
  /** The most `liveBytes` has been since the last `resetPeak()`. */
  readonly peakBytes: number;
  /** Bytes taken from the device, free pooled buffers included. */
  readonly reservedBytes: number;
  /** The most `reservedBytes` has been since the last `resetPeak()`: what the device must have. */
  readonly peakReservedBytes: number;
}

/**
 * How numbers are stored: `f16` halves the bytes of weights. Kernels add up in float32, and activations are `f32`,
 * but for the copies that matrix units multiply.
 */
export type StorageType = "f32" | "f16";

/** Gradients of an op's outputs in, gradients of its inputs out (undefined where not needed). */
export type Vjp = (
  outputGrads: readonly (Tensor | undefined)[],
  needs: readonly boolean[],
) => readonly (Tensor | undefined)[];

/** What ops report to; see `tape.ts`. */
export interface Recorder {
  /**
   * Notes an op.
   *
   * @param outputs What the op made.
   * @param inputs What it read, in the order of the vjp's results.
   * @param saved Tensors the vjp reads.
   * @param vjp Returns new tensors, or retained ones.
   */
  record(
    outputs: readonly Tensor[],
    inputs: readonly Tensor[],
    saved: readonly Tensor[],
    vjp: Vjp,
  ): void;
}

/**
 * Which implementation of the matrix kernels ops take: `software` for adapters that are processors,
 * `gpu` for the others; see `family.ts`.
 */
export type KernelFamily = "software" | "gpu";

/** Left and right matrices have a stage each. */
export type StageName = "a" | "b";

/** Makes new tensors of its inputs. */
export type Work = (inputs: readonly Tensor[]) => readonly Tensor[];

/** A place where tensors live and kernels run. */
export interface Backend extends Disposable {
  /** `webgpu` runs WGSL, `cpu` runs the references, `plan` runs nothing and counts bytes. */
  readonly kind: "webgpu" | "cpu" | "plan";
  /** Which kernels the ops take. Both give the same up to rounding. */
  readonly family: KernelFamily;
  /** Adapter and runtime, for people. */
  readonly description: string;
  /** What multiplies 16-bit matrices, if that was asked for; used while `halfProducts` is set. */
  readonly matrix?: MatrixUnits | undefined;
  /** Whether products may round what they multiply to 16 bits: while a network runs that bears it. */
  halfProducts: boolean;
  /**
   * Whether tiles of weights that are stored in 16 bits stay so in the gpu family, for devices with shader-f16. The
   * numbers are the same; which is faster depends on the adapter, see `tileTimes`.
   */
  halfTiles: boolean;
  /** The tape that records now, if any. Ops consult it. */
  tape: Recorder | undefined;
  /** Bytes held. */
  readonly memory: MemoryUse;
  /** Starts a new peak measurement. */
  resetPeak(): void;
  /** Most bytes of one tensor: what the adapter can bind at once. */
  readonly maxTensorBytes: number;
  /** A tensor with undefined content; `f16` ones are weights, filled by `writeHalf`, or copies for matrix units. */
  alloc(shape: readonly number[], type?: StorageType): Tensor;
  /** A tensor with the given content. */
  upload(data: Floats | readonly number[], shape: readonly number[]): Tensor;
  /** Overwrites a whole f32 tensor, or as many numbers as there are data from `first` on. */
  write(tensor: Tensor, data: Floats, first?: number): void;
  /**
   * The same for an f16 tensor, with the bits of its numbers (IEEE 754 binary16). What does not end with
   * the tensor begins and ends at even numbers.
   */
  writeHalf(tensor: Tensor, bits: Uint16Array, first?: number): void;
  /**
   * Finds out what is faster on this adapter for weights that are stored so, before what they need is planned. Results
   * do not depend on it.
   */
  tuneFor(weights: StorageType): Promise<void>;
  /** Makes kernels ready ahead of their first run, all at once; the device compiles in the meantime. */
  prepare(kernels: readonly PlannedKernel[]): Promise<void>;
  /**
   * Copies `count` numbers of a tensor, at most `STAGE_SIZE`, to where kernels read them as texture; both
   * `first` and `count` come in fours.
   */
  stage(name: StageName, from: Tensor, first: number, count: number): void;
  /** Copies a range of numbers of an f32 tensor to another one. */
  copy(from: Tensor, to: Tensor, range: CopyRange): void;
  /** Records one kernel run. */
  dispatch(kernel: Kernel, what: Dispatch): void;
  /**
   * The same work, to be done many times. A device records the runs of `work` and repeats them for as long as
   * all their buffers are free to be used so; else `work` runs as it is. Both give the same.
   *
   * @param work May depend on the numbers in its inputs and in tensors from outside, and on nothing else that
   *   changes. Frees what it makes, but for what it returns, and nothing else. What it uploads is constant.
   */
  repeated(work: Work): Work;
  /** Submits what has been recorded. Never waits. */
  flush(): void;
  /** Waits for the device and copies tensors out, all in one wait. */
  read(
    tensors: readonly Tensor[],
    options?: { signal?: AbortSignal | undefined },
  ): Promise<Floats[]>;
  /** Gives pooled but unused memory back. */
  trim(): void;
  /** Called by `Tensor.dispose`. */
  release(storage: unknown, bytes: number): void;
}

/**
 * A dense row-major array on a backend. Activations are channel-major: `[batch, channels, ...space]`,
 * tokens being the space of a sequence.
 *
 * Reference counted: `retain` and `dispose` pair up, and the storage goes back to the pool with the
 * last `dispose`.
 */
export class Tensor implements Disposable {
  /** Where it lives. */
  readonly backend: Backend;
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** The backend's own handle: a GPUBuffer or a Float64Array. */
  readonly storage: unknown;
  /** Bytes the backend counts for it. */
  readonly bytes: number;
  /** How its numbers are stored. */
  readonly type: StorageType;
  #references = 1;

  /** Backends make tensors; others call `alloc` or `upload`. */
  constructor(
    backend: Backend,
    shape: readonly number[],
    storage: unknown,
    bytes: number,
    type: StorageType = "f32",
  ) {
    this.backend = backend;
    this.shape = shape;
    this.storage = storage;
    this.bytes = bytes;
    this.type = type;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /** Whether the storage has gone back to the pool. */
  get disposed(): boolean {
    return this.#references === 0;
  }

  /** One more owner. */
  retain(): this {
    if (this.#references === 0) {
      throw new RangeError(
        `Cannot retain tensor [${this.shape}]: it must be alive: current state is disposed`,
      );
    }
    this.#references++;
    return this;
  }

  /** One owner less. */
  dispose(): void {
    if (this.#references === 0) {
      throw new RangeError(
        `Cannot dispose tensor [${this.shape}]: it must be alive: current state is disposed`,
      );
    }
    if (--this.#references === 0) {
      this.backend.release(this.storage, this.bytes);
    }
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Product of the sizes. */
export function sizeOf(shape: readonly number[]): number {
  let n = 1;
  for (const s of shape) n *= s;
  return n;
}

/** Splits `[batch, channels, ...space]` into batch, channels and number of cells. */
export function channelMajor(
  x: Tensor,
  what: string,
): [batch: number, channels: number, cells: number] {
  const [batch, channels, ...space] = x.shape;
  if (
    batch === undefined || channels === undefined || space.length === 0 ||
    x.size === 0
  ) {
    throw new RangeError(
      `Cannot run ${what}: x must be [batch, channels, ...space] and not empty: current shape is [${x.shape}]`,
    );
  }
  return [batch, channels, sizeOf(space)];
}

/** Whether two shapes are the same. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

/** Throws unless a tensor has the wanted shape. */
export function expectShape(
  x: Tensor,
  shape: readonly number[],
  what: string,
): void {
  if (!sameShape(x.shape, shape)) {
    throw new RangeError(
      `Cannot run ${what}: shape must be [${shape}]: current shape is [${x.shape}]`,
    );
  }
}

/** Bytes of the numbers of a tensor; f16 ones come in pairs. */
export function storedBytes(
  shape: readonly number[],
  type: StorageType,
): number {
  const size = sizeOf(shape);
  return type === "f16" ? 4 * Math.ceil(size / 2) : 4 * size;
}

/**
 * Throws unless a tensor is stored as wanted and data of `length` fills it, or lies inside it where it is
 * said at which number it begins.
 */
export function expectData(
  tensor: Tensor,
  length: number,
  type: StorageType,
  first?: number,
): void {
  if (first === undefined && length !== tensor.size) {
    throw new RangeError(
      `Cannot write [${tensor.shape}]: data must hold ${tensor.size} numbers: current ${length}`,
    );
  }
  const start = first ?? 0;
  const end = start + length;
  if (!Number.isInteger(start) || start < 0 || end > tensor.size) {
    throw new RangeError(
      `Cannot write [${tensor.shape}]: data must lie inside ${tensor.size} numbers: current ${length} from ${first} on`,
    );
  }
  // Halves go to a device in pairs.
  if (type === "f16" && (start % 2 || end % 2 && end !== tensor.size)) {
    throw new RangeError(
      `Cannot write [${tensor.shape}]: parts of f16 must begin and end at even numbers: current ${length} from ${first} on`,
    );
  }
  if (tensor.type !== type) {
    throw new TypeError(
      `Cannot write [${tensor.shape}]: it must be stored as ${type}: current type is ${tensor.type}`,
    );
  }
}

/** Throws unless all that a kernel binds is there. */
export function expectAlive({ name }: Kernel, bind: readonly Tensor[]): void {
  for (const [binding, x] of bind.entries()) {
    if (!x.disposed) continue;
    throw new RangeError(
      `Cannot run ${name}: binding ${binding} [${x.shape}] must be alive`,
    );
  }
}

/** Throws unless a tensor can be copied out: f16 ones are weights and copies, which stay where they are. */
export function expectReadable(tensor: Tensor): void {
  if (tensor.disposed) {
    throw new RangeError(`Cannot read [${tensor.shape}]: it must be alive`);
  }
  if (tensor.type !== "f32") {
    throw new TypeError(
      `Cannot read [${tensor.shape}]: it must be stored as f32: current type is ${tensor.type}`,
    );
  }
}

/** Throws unless a range can be copied. */
export function expectRange(
  from: Tensor,
  to: Tensor,
  { first, at, count }: CopyRange,
): void {
  const fits = first + count <= from.size && at + count <= to.size;
  if (from.disposed || to.disposed || from.storage === to.storage || !fits) {
    throw new RangeError(
      `Cannot copy ${count} numbers from ${first} of [${from.shape}] to ${at} of [${to.shape}]: both tensors must be alive, two, and hold them`,
    );
  }
  for (const x of [from, to]) {
    if (x.type !== "f32") {
      throw new TypeError(
        `Cannot copy [${x.shape}]: it must be stored as f32: current type is ${x.type}`,
      );
    }
  }
}

/** Throws unless a tensor has the wanted number of elements. */
export function expectSize(x: Tensor, size: number, what: string): void {
  if (x.size !== size) {
    throw new RangeError(
      `Cannot run ${what}: tensor must hold ${size} numbers: current shape is [${x.shape}]`,
    );
  }
}

/** Most numbers that `stage` takes, which is 8 MiB of them. */
export const STAGE_SIZE = { f32: 2 ** 21, f16: 2 ** 22 } as const;

/** Threads per workgroup of the one-thread-per-element kernels. */
export const WORKGROUP = 64;

/** Workgroups along an axis that every adapter runs; none runs more. */
const MOST_GROUPS = 65_535;

/**
 * Throws if a kernel run has more workgroups along an axis than WebGPU takes: a picture of two million pixels
 * in one piece.
 *
 * @throws {DeviceMemoryError} Since what helps is what helps where memory is short.
 */
export function checkGroups(name: string, groups: readonly number[]): void {
  const most = Math.max(...groups);
  if (most > MOST_GROUPS) {
    throw new DeviceMemoryError(
      `Cannot run ${name}: it must have at most ${MOST_GROUPS} workgroups along an axis: current ${most}; use a smaller picture`,
    );
  }
}

/** Workgroups for `count` threads in lines of `WORKGROUP`, folded into y past 65,535. */
export function elementGroups(
  count: number,
): readonly [number, number, number] {
  return foldGroups(Math.ceil(count / WORKGROUP));
}

/** Folds a count of workgroups into x and y: one axis stops at 65,535. */
export function foldGroups(count: number): readonly [number, number, number] {
  const y = Math.ceil(count / MOST_GROUPS);
  return [Math.ceil(count / y), y, 1];
}

/** Elements that one workgroup does in kernels that work by runs: their `RUN`. */
const RUN = 1024;

/**
 * Workgroups for lines of elements that share an index (a plane, a batch element), so that no thread
 * divides to find it: lines in y, runs of `RUN` along x and z.
 */
export function runGroups(
  lines: number,
  length: number,
): readonly [number, number, number] {
  const [x, z] = foldGroups(Math.ceil(length / RUN));
  if (lines > MOST_GROUPS) {
    throw new RangeError(
      `Cannot run a kernel: one axis of the grid holds ${MOST_GROUPS}: current ${lines}`,
    );
  }
  return [x, lines, z];
}

/** Records an op on the tape of its backend, if one records. */
export function record(
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  saved: readonly Tensor[],
  vjp: Vjp,
): void {
  outputs[0]?.backend.tape?.record(outputs, inputs, saved, vjp);
}
