// renamed_tensors: part of a safetensors file under other names; slices and transposes are made on reading.
import type { ByteSource, ReadOptions } from "./byte_source.ts";
import type { TensorFile } from "./component.ts";
import { quote, WeightsError } from "./errors.ts";
import { floatsOf } from "./float_formats.ts";
import { DTYPE_BYTES, type TensorInfo } from "./safetensors_header.ts";

/** Some tensors of an open file under new names. Closing it leaves the file open. */
export class RenamedTensors implements TensorFile {
  /** By new name; `offset` and `sizeBytes` are of the bytes in the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #source: ByteSource;
  readonly #transposed: ReadonlySet<string>;

  /**
   * @param source The whole file; it stays the caller's.
   * @param tensors Where each lies, with the shape it is to have.
   * @param transposed Those `[rows, columns]` that lie in the file as `[columns, rows]`.
   */
  constructor(
    source: ByteSource,
    tensors: ReadonlyMap<string, TensorInfo>,
    transposed: ReadonlySet<string>,
  ) {
    this.#source = source;
    this.tensors = tensors;
    this.#transposed = transposed;
  }

  /**
   * Reads one tensor of F32, F16 or BF16 as float32.
   *
   * @throws {WeightsError} If there is no such tensor or it has another dtype.
   */
  async readFloat32(
    name: string,
    { signal }: Pick<ReadOptions, "signal"> = {},
  ): Promise<Float32Array<ArrayBuffer>> {
    const { dtype } = this.#info(name);
    // Without `into`: the result is all of its buffer.
    const { buffer } = await this.readBytes(name, { signal });
    const floats = floatsOf(dtype, buffer);
    if (floats !== undefined) return floats;
    throw new WeightsError(
      `Cannot read tensor ${
        quote(name)
      } of ${this.#source.name}: its dtype must be F32, F16 or BF16: current dtype is ${dtype}`,
    );
  }

  /**
   * Reads one tensor's little-endian elements in row-major order.
   *
   * @throws {WeightsError} If there is no such tensor.
   */
  async readBytes(
    name: string,
    options: ReadOptions = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { offset, sizeBytes, shape, dtype } = this.#info(name);
    const bytes = await this.#source.read(offset, sizeBytes, options);
    if (!this.#transposed.has(name)) return bytes;
    const [rows, columns] = shape as readonly [number, number];
    return transpose(bytes, rows, columns, DTYPE_BYTES[dtype]);
  }

  /** Does nothing: the file belongs to whoever opened it. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  #info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (info !== undefined) return info;
    throw new WeightsError(
      `Cannot read tensor ${
        quote(name)
      }: it must be in ${this.#source.name}: current network has ${this.tensors.size} others`,
    );
  }
}

/** `[columns, rows]` -> `[rows, columns]`, of elements of some bytes each. */
function transpose(
  bytes: Uint8Array<ArrayBuffer>,
  rows: number,
  columns: number,
  elementBytes: number,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(bytes.length);
  let at = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const from = (c * rows + r) * elementBytes;
      for (let b = 0; b < elementBytes; b++) out[at++] = bytes[from + b]!;
    }
  }
  return out;
}
