/** Named weights of a checkpoint -> tensors on a backend: every name used once, every shape checked. */
import {
  type Backend,
  sizeOf,
  type StorageType,
  storedBytes,
  type Tensor,
} from "../kernels/backend.ts";
import { prefersWinograd, winogradWeight } from "../kernels/conv.ts";
import { WeightsError } from "../weights/errors.ts";
import { checkFloats, checkHalves, narrow } from "./finite_weights.ts";
import {
  type LoadOptions,
  Scratch,
  type WeightSource,
} from "./weight_source.ts";

/** A weight and a bias of as many numbers as there are channels. */
export interface Affine {
  /** `[channels]`. */
  readonly weight: Tensor;
  /** `[channels]`. */
  readonly bias: Tensor;
}

/** A linear layer or a convolution. */
export interface Layer {
  /** `[out, in]`; 3x3 convolutions `[out, in, 3, 3]`, or with stride 1 perhaps in Winograd form `[16, out, in]`. */
  readonly weight: Tensor;
  /** `[out]`. */
  readonly bias: Tensor | undefined;
}

/** A layer that shares a tensor with others. */
export interface Rows {
  /** Its name in the checkpoint. */
  readonly name: string;
  /** Its rows. */
  readonly out: number;
}

/** How layers lie in the tensor that they share. */
export interface StackOptions {
  /** Parts that the rows of each layer come in; see `Parameters.stacked`. */
  readonly turns?: number;
  /** Whether they have biases. Default true. */
  readonly bias?: boolean;
}

/** Where some numbers of a checkpoint's tensor go. */
interface Place {
  readonly tensor: Tensor;
  /** The first of them in `tensor`. */
  readonly first: number;
  readonly count: number;
}

interface Wanted {
  readonly name: string;
  readonly shape: readonly number[];
  /** One after the other. */
  readonly places: readonly Place[];
  readonly winograd: boolean;
}

/**
 * Collects what a network asks for, then fills it, one tensor at a time.
 *
 * A network is built first, with tensors of the right shape but no content; `load` then checks that
 * the checkpoint has nothing else and streams the numbers in.
 */
export class Parameters implements Disposable {
  /** Where the tensors live. */
  readonly backend: Backend;
  readonly #source: WeightSource;
  readonly #storage: StorageType;
  readonly #wanted: Wanted[] = [];
  readonly #tensors: Tensor[] = [];
  #scratch: Scratch | undefined;
  readonly #known = new Set<string>();

  /**
   * Starts with nothing asked for.
   *
   * @param backend Where the tensors go.
   * @param source The checkpoint.
   * @param storage Of matrices and kernels.
   */
  constructor(
    backend: Backend,
    source: WeightSource,
    storage: StorageType = "f32",
  ) {
    this.backend = backend;
    this.#source = source;
    this.#storage = storage;
  }

  /** Whether the checkpoint holds a tensor. */
  has(name: string): boolean {
    return this.#source.tensors.has(name);
  }

  /** The names in the checkpoint, for `skip`. */
  names(): Iterable<string> {
    return this.#source.tensors.keys();
  }

  /** Says that a tensor is known and not needed. */
  skip(name: string): void {
    this.#known.add(name);
  }

  /**
   * Asks for a tensor.
   *
   * @param shape Its shape; axes of size 1 at the end do not count, so that `[out, in, 1, 1]` is `[out, in]`.
   * @throws {WeightsError} If it is not there or has another shape.
   */
  tensor(name: string, shape: readonly number[]): Tensor {
    return this.#want(name, shape, "f32");
  }

  /** A matrix or kernel, stored as the whole network is. */
  matrix(name: string, shape: readonly number[]): Tensor {
    return this.#want(name, shape, this.#storage);
  }

  /**
   * A table `[rows, channels]`, in parts of some rows each where it is more than the adapter can bind.
   */
  rows(name: string, [rows, channels]: readonly [number, number]): Tensor[] {
    this.#check(name, [rows, channels]);
    const perRow = storedBytes([1, channels], this.#storage);
    const most = Math.max(1, Math.floor(this.backend.maxTensorBytes / perRow));
    const tensors: Tensor[] = [];
    for (let first = 0; first < rows; first += most) {
      const shape = [Math.min(most, rows - first), channels];
      tensors.push(this.#alloc(shape, this.#storage));
    }
    const places = tensors.map(whole);
    this.#wanted.push({
      name,
      shape: [rows, channels],
      places,
      winograd: false,
    });
    return tensors;
  }

  /**
   * Linear layers of the same input as one, so that one product does them all: their rows one below the
   * other, or by turns.
   *
   * @param options.turns The rows of each layer come in so many equal parts: first those of the first turn,
   *   layer by layer, then those of the second one, and so on. Default 1.
   */
  stacked(
    layers: readonly Rows[],
    channels: number,
    { turns = 1, bias = true }: StackOptions = {},
  ): Layer {
    // Halves are written in pairs.
    const even = layers.every(({ out }) => out / turns * channels % 2 === 0);
    const type = even ? this.#storage : "f32";
    return {
      weight: this.#stack(layers, turns, ".weight", [channels], type),
      bias: bias ? this.#stack(layers, turns, ".bias", [], "f32") : undefined,
    };
  }

  #stack(
    layers: readonly Rows[],
    turns: number,
    suffix: string,
    line: readonly number[],
    type: StorageType,
  ): Tensor {
    for (const { name, out } of layers) {
      this.#check(name + suffix, [out, ...line]);
    }
    const rows = layers.reduce((sum, { out }) => sum + out, 0);
    const tensor = this.#alloc([rows, ...line], type);
    const perTurn = tensor.size / turns;
    let first = 0; // in a turn
    for (const { name, out } of layers) {
      const shape = [out, ...line];
      const count = sizeOf(shape) / turns;
      const places = Array.from({ length: turns }, (_, turn): Place => ({
        tensor,
        first: turn * perTurn + first,
        count,
      }));
      const winograd = false;
      this.#wanted.push({ name: name + suffix, shape, places, winograd });
      first += count;
    }
    return tensor;
  }

  /** `name.weight` and `name.bias`, both `[channels]`. */
  affine(name: string, channels: number): Affine {
    return {
      weight: this.tensor(`${name}.weight`, [channels]),
      bias: this.tensor(`${name}.bias`, [channels]),
    };
  }

  /** A linear layer or 1x1 convolution `[out, in]`. */
  linear(name: string, out: number, channels: number, bias = true): Layer {
    return {
      weight: this.matrix(`${name}.weight`, [out, channels]),
      bias: bias ? this.tensor(`${name}.bias`, [out]) : undefined,
    };
  }

  /** A convolution `[out, in, 3, 3]`, kept as it is. */
  conv(name: string, out: number, channels: number): Layer {
    return {
      weight: this.matrix(`${name}.weight`, [out, channels, 3, 3]),
      bias: this.tensor(`${name}.bias`, [out]),
    };
  }

  /**
   * A 3x3 convolution with stride 1: in Winograd form, 16/9 as large, where that is faster and weights
   * are stored as f32; else as it is.
   */
  conv3x3(name: string, out: number, channels: number): Layer {
    const shape = [out, channels, 3, 3];
    const form = [16, out, channels];
    const weight = this.#storage === "f32" &&
        prefersWinograd(this.backend, [out, channels])
      ? this.#want(`${name}.weight`, shape, "f32", form)
      : this.matrix(`${name}.weight`, shape);
    return { weight, bias: this.tensor(`${name}.bias`, [out]) };
  }

  /**
   * Reads every tensor asked for, one at a time.
   *
   * @throws {WeightsError} If the checkpoint holds a tensor that nobody asked for, or bad numbers.
   */
  async load(options: LoadOptions = {}): Promise<void> {
    const { signal } = options;
    if (this.#source.collect) return;
    const extra = [...this.#source.tensors.keys()].filter((name) =>
      !this.#known.has(name)
    );
    if (extra.length) {
      throw new WeightsError(
        `Cannot load ${this.#source.name}: every tensor must belong to the network its config describes: current extra ${extra.length}: ${
          extra.slice(0, 3).join(", ")
        }`,
      );
    }
    if (this.backend.kind === "plan") return;
    this.#scratch = this.#makeScratch(options.scratch);
    // The next tensor is read while this one is checked and written.
    let next = this.#read(0, signal);
    for (let i = 0; i < this.#wanted.length; i++) {
      signal?.throwIfAborted();
      const data = await next;
      next = this.#read(i + 1, signal);
      this.#fill(this.#wanted[i]!, data);
      options.onTensor?.(i + 1, this.#wanted.length);
    }
    this.#scratch = undefined;
  }

  /** Numbers of one wanted tensor: f16 bits where they go to the device as they are. */
  #read(
    index: number,
    signal: AbortSignal | undefined,
  ): Promise<Float32Array | Uint16Array | undefined> {
    const wanted = this.#wanted[index];
    if (!wanted) return Promise.resolve(undefined);
    const { name } = wanted;
    const source = this.#source;
    const half = source.tensors.get(name)!.dtype === "F16";
    const into = this.#scratch?.of(index);
    const data = this.#fileBytes(wanted) > 0
      ? source.readBytes!(name, { signal, into }).then(({ buffer, length }) =>
        half
          ? new Uint16Array(buffer, 0, length / 2)
          : new Float32Array(buffer, 0, length / 4)
      )
      : source.read(name, { signal });
    data.catch(() => {}); // its error is thrown when it is waited for, if it ever is
    return data;
  }

  /** Bytes of a wanted tensor in its file; 0 where it is not read as bytes. */
  #fileBytes({ name, shape, places }: Wanted): number {
    const { dtype } = this.#source.tensors.get(name)!;
    if (!this.#source.readBytes) return 0;
    if (dtype === "F32") return 4 * sizeOf(shape);
    return dtype === "F16" && places[0]!.tensor.type === "f16"
      ? 2 * sizeOf(shape)
      : 0;
  }

  /** Buffers that hold the largest tensor of each turn. */
  #makeScratch(scratch = new Scratch()): Scratch {
    const most: [number, number] = [0, 0];
    this.#wanted.forEach((wanted, i) => {
      most[i % 2] = Math.max(most[i % 2]!, this.#fileBytes(wanted));
    });
    scratch.reserve(most);
    return scratch;
  }

  #fill(
    { name, shape, places, winograd }: Wanted,
    data: Float32Array | Uint16Array | undefined,
  ): void {
    const what = `Cannot load ${this.#source.name}: tensor ${name}`;
    if (data instanceof Uint16Array) {
      checkHalves(data, what);
    } else checkFloats(data!, what);
    if (winograd) {
      using raw = this.backend.upload(data as Float32Array, shape);
      winogradWeight(raw, places[0]!.tensor);
      return;
    }
    let from = 0;
    for (const { tensor, first, count } of places) {
      const part = data!.subarray(from, from += count);
      if (tensor.type === "f32") {
        this.backend.write(tensor, part as Float32Array, first);
      } else {
        this.backend.writeHalf(
          tensor,
          part instanceof Uint16Array ? part : narrow(part, what),
          first,
        );
      }
    }
  }

  /** Frees every tensor. */
  [Symbol.dispose](): void {
    this.#wanted.length = 0;
    for (const tensor of this.#tensors.splice(0)) tensor.dispose();
  }

  #alloc(shape: readonly number[], type: StorageType): Tensor {
    const tensor = this.backend.alloc(shape, type);
    this.#tensors.push(tensor);
    return tensor;
  }

  #want(
    name: string,
    shape: readonly number[],
    type: StorageType,
    winograd?: readonly number[],
  ): Tensor {
    this.#check(name, shape);
    const tensor = this.#alloc(winograd ?? shape, type);
    this.#wanted.push({
      name,
      shape,
      places: [whole(tensor)],
      winograd: winograd !== undefined,
    });
    return tensor;
  }

  #check(name: string, shape: readonly number[]): void {
    if (this.#source.collect) {
      this.#source.collect(name, shape);
      return;
    }
    const found = this.#source.tensors.get(name);
    if (!found) {
      throw new WeightsError(
        `Cannot load ${this.#source.name}: it must hold tensor ${name} [${shape}]: current file has none`,
      );
    }
    if (this.#known.has(name)) {
      throw new WeightsError(
        `Cannot load ${this.#source.name}: tensor ${name} is asked for twice`,
      );
    }
    const trimmed = [...found.shape];
    while (trimmed.length > shape.length && trimmed.at(-1) === 1) trimmed.pop();
    if (
      trimmed.length !== shape.length ||
      trimmed.some((s, i) => s !== shape[i]) || sizeOf(shape) === 0
    ) {
      throw new WeightsError(
        `Cannot load ${this.#source.name}: tensor ${name} must be [${shape}]: current shape is [${found.shape}]`,
      );
    }
    this.#known.add(name);
  }
}

/** All of a tensor. */
function whole(tensor: Tensor): Place {
  return { tensor, first: 0, count: tensor.size };
}
