// safetensors: a strict reader by ranges.
// The header is checked when the file is opened, so a read never leaves the file
// and never allocates much more than the tensor it returns. Tensors are
// little-endian, as is every machine that WebGPU runs on.
import type { ByteSource, ReadOptions } from "./byte_source.ts";
import { quote, WeightsError } from "./errors.ts";
import { floatsOf } from "./float_formats.ts";
import {
  type Dtype,
  readSafetensorsHeader,
  type TensorInfo,
} from "./safetensors_header.ts";

export type { Dtype, TensorInfo } from "./safetensors_header.ts";

/** An open safetensors file. Its header is in memory, its tensors are not. */
export class Safetensors implements AsyncDisposable {
  /** Every tensor by name, in file order. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The `__metadata__` of the header; empty if there is none. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #source: ByteSource;

  private constructor(
    source: ByteSource,
    tensors: ReadonlyMap<string, TensorInfo>,
    metadata: ReadonlyMap<string, string>,
  ) {
    this.#source = source;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /**
   * Reads and checks the header.
   *
   * @param source The file. It belongs to the result, and is closed if this fails.
   * @returns The open file. The caller closes it.
   * @throws {WeightsError} If anything about the header is wrong.
   */
  static async open(
    source: ByteSource,
    options: ReadOptions = {},
  ): Promise<Safetensors> {
    try {
      const { tensors, metadata } = await readSafetensorsHeader(
        source,
        options,
      );
      return new Safetensors(source, tensors, metadata);
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  /** The path or URL as error messages show it. */
  get name(): string {
    return this.#source.name;
  }

  /**
   * Reads one tensor of F32, F16 or BF16 as float32.
   *
   * @param name A key of `tensors`.
   * @returns The values in row-major order, `[product(shape)]`.
   * @throws {WeightsError} If there is no such tensor or it has another dtype.
   */
  async readFloat32(
    name: string,
    { signal }: Pick<ReadOptions, "signal"> = {},
  ): Promise<Float32Array<ArrayBuffer>> {
    const info = this.#info(name);
    // of no bytes: the dtype alone says whether there is anything to read
    if (floatsOf(info.dtype, new ArrayBuffer(0)) === undefined) {
      throw this.#dtypeError(info, "F32, F16 or BF16");
    }
    // Without `into`: the result is all of its buffer.
    const { buffer } = await this.#read(info, { signal });
    return floatsOf(info.dtype, buffer)!;
  }

  /**
   * Reads one tensor of integers or booleans as int32.
   *
   * @param name A key of `tensors`.
   * @returns The values in row-major order, `[product(shape)]`.
   * @throws {WeightsError} If there is no such tensor, it has another dtype, or a
   * value does not fit 32 bits.
   */
  async readInt32(
    name: string,
    { signal }: Pick<ReadOptions, "signal"> = {},
  ): Promise<Int32Array<ArrayBuffer>> {
    const info = this.#info(name);
    const View = INTEGER_VIEWS.get(info.dtype);
    if (View === undefined) {
      throw this.#dtypeError(info, [...INTEGER_VIEWS.keys()].join(", "));
    }
    const { buffer } = await this.#read(info, { signal });
    const values = new View(buffer);
    if (values instanceof Int32Array) return values as Int32Array<ArrayBuffer>;
    const result = new Int32Array(values.length);
    for (let i = 0; i < values.length; i++) {
      const value = values[i]!;
      result[i] = Number(value); // wraps, which the next line sees
      if (result[i] !== Number(value)) {
        throw new WeightsError(
          `Cannot read tensor ${
            quote(name)
          } of ${this.name}: its values must fit 32 bits: current ${value} at ${i}`,
        );
      }
    }
    return result;
  }

  /**
   * Reads one tensor as it lies in the file.
   *
   * @param name A key of `tensors`.
   * @returns Its little-endian bytes, `[sizeBytes]`, in a buffer of their own.
   * @throws {WeightsError} If there is no such tensor.
   */
  async readBytes(
    name: string,
    options: ReadOptions = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#read(this.#info(name), options);
  }

  /** Closes the file; calling it twice does no harm. */
  async close(): Promise<void> {
    await this.#source.close();
  }

  /** The same as {@linkcode Safetensors.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #read(
    info: TensorInfo,
    options: ReadOptions,
  ): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#source.read(info.offset, info.sizeBytes, options);
  }

  #info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (info === undefined) {
      throw new WeightsError(
        `Cannot read tensor ${
          quote(name)
        }: it must be in ${this.name}: current file has ${this.tensors.size} others`,
      );
    }
    return info;
  }

  #dtypeError(info: TensorInfo, legal: string): WeightsError {
    return new WeightsError(
      `Cannot read tensor ${
        quote(info.name)
      } of ${this.name}: its dtype must be ${legal}: current dtype is ${info.dtype}`,
    );
  }
}

type IntegerView = new (buffer: ArrayBuffer) => ArrayLike<number | bigint>;

const INTEGER_VIEWS: ReadonlyMap<Dtype, IntegerView> = new Map<
  Dtype,
  IntegerView
>([
  ["BOOL", Uint8Array],
  ["U8", Uint8Array],
  ["I8", Int8Array],
  ["U16", Uint16Array],
  ["I16", Int16Array],
  ["U32", Uint32Array],
  ["I32", Int32Array],
  ["U64", BigUint64Array],
  ["I64", BigInt64Array],
]);
