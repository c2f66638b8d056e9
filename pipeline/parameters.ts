/** Named weights of a checkpoint -> tensors on a backend: every name used once, every shape checked. */
import { type Backend, sizeOf, type Tensor } from "../kernels/backend.ts";
import { winogradWeight } from "../kernels/conv.ts";
import { WeightsError } from "../weights/errors.ts";

/** Where weights come from: a component of a checkpoint, or anything like it. */
export interface WeightSource {
  /** For messages. */
  readonly name: string;
  /** Names and shapes. */
  readonly tensors: ReadonlyMap<string, { readonly shape: readonly number[] }>;
  /** The numbers of one tensor as float32. */
  read(
    name: string,
    options?: { signal?: AbortSignal | undefined },
  ): Promise<Float32Array>;
}

/** A weight and a bias of as many numbers as there are channels. */
export interface Affine {
  /** `[channels]`. */
  readonly weight: Tensor;
  /** `[channels]`. */
  readonly bias: Tensor;
}

/** A linear layer or a convolution. */
export interface Layer {
  /** `[out, in]`, or for 3x3 convolutions with stride 1 `[16, out, in]`. */
  readonly weight: Tensor;
  /** `[out]`. */
  readonly bias: Tensor | undefined;
}

interface Wanted {
  readonly name: string;
  readonly shape: readonly number[];
  readonly tensor: Tensor;
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
  readonly #wanted: Wanted[] = [];
  readonly #known = new Set<string>();

  /**
   * Starts with nothing asked for.
   *
   * @param backend Where the tensors go.
   * @param source The checkpoint.
   */
  constructor(backend: Backend, source: WeightSource) {
    this.backend = backend;
    this.#source = source;
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
    this.#check(name, shape);
    const tensor = this.backend.alloc(shape);
    this.#wanted.push({ name, shape, tensor, winograd: false });
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
      weight: this.tensor(`${name}.weight`, [out, channels]),
      bias: bias ? this.tensor(`${name}.bias`, [out]) : undefined,
    };
  }

  /** A convolution `[out, in, 3, 3]`, kept as it is. */
  conv(name: string, out: number, channels: number): Layer {
    return {
      weight: this.tensor(`${name}.weight`, [out, channels, 3, 3]),
      bias: this.tensor(`${name}.bias`, [out]),
    };
  }

  /** A 3x3 convolution with stride 1, kept in Winograd form. */
  conv3x3(name: string, out: number, channels: number): Layer {
    const shape = [out, channels, 3, 3];
    this.#check(`${name}.weight`, shape);
    const weight = this.backend.alloc([16, out, channels]);
    this.#wanted.push({
      name: `${name}.weight`,
      shape,
      tensor: weight,
      winograd: true,
    });
    return { weight, bias: this.tensor(`${name}.bias`, [out]) };
  }

  /**
   * Reads every tensor asked for, one at a time.
   *
   * @throws {WeightsError} If the checkpoint holds a tensor that nobody asked for, or bad numbers.
   */
  async load(
    options: {
      signal?: AbortSignal | undefined;
      onTensor?: (done: number, total: number) => void;
    } = {},
  ): Promise<void> {
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
    let done = 0;
    for (const { name, shape, tensor, winograd } of this.#wanted) {
      options.signal?.throwIfAborted();
      const data = await this.#source.read(name, { signal: options.signal });
      for (let i = 0; i < data.length; i++) {
        if (!Number.isFinite(data[i])) {
          throw new WeightsError(
            `Cannot load ${this.#source.name}: tensor ${name} must be finite: current value ${i} is ${
              data[i]
            }`,
          );
        }
      }
      if (winograd) {
        using raw = this.backend.upload(data, shape);
        winogradWeight(raw, tensor);
      } else this.backend.write(tensor, data);
      options.onTensor?.(++done, this.#wanted.length);
    }
  }

  /** Frees every tensor. */
  [Symbol.dispose](): void {
    for (const { tensor } of this.#wanted.splice(0)) tensor.dispose();
  }

  #check(name: string, shape: readonly number[]): void {
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
