// ldm_tensors: one list of tensors under two names, and the file's side of it.
import { quote, WeightsError } from "./errors.ts";
import type { TensorInfo } from "./safetensors_header.ts";

/** How a tensor lies in the single file, where not as it is. */
export type Storage =
  /** One of three equal parts, one above the other: queries, keys, values. */
  | { readonly third: 0 | 1 | 2 }
  /** Rows and columns swapped. */
  | { readonly transposed: true };

/** One tensor of a network. */
export interface LdmTensor {
  /** Diffusers' name. */
  readonly name: string;
  /** The name in the single file. */
  readonly ldm: string;
  /** Its shape, in diffusers. */
  readonly shape: readonly number[];
  /** How it is stored. */
  readonly storage?: Storage;
}

/** The tensors of a network in order, under both names. */
export class LdmTensors {
  /** What was added. */
  readonly all: LdmTensor[] = [];
  readonly #prefix: string;

  /** @param prefix Of every name in the single file, such as `model.diffusion_model.`. */
  constructor(prefix: string) {
    this.#prefix = prefix;
  }

  /** One tensor. */
  tensor(
    ldm: string,
    name: string,
    shape: readonly number[],
    storage?: Storage,
  ): void {
    ldm = this.#prefix + ldm;
    this.all.push({ name, ldm, shape, ...storage ? { storage } : {} });
  }

  /** `.weight` of some shape and, unless left out, `.bias` of its first size. */
  layer(
    ldm: string,
    name: string,
    shape: readonly number[],
    bias = true,
  ): void {
    this.tensor(`${ldm}.weight`, `${name}.weight`, shape);
    if (bias) this.tensor(`${ldm}.bias`, `${name}.bias`, [shape[0]!]);
  }
}

/** The tensors of a single file by name, for questions about their shapes. */
export class LdmShapes {
  /** The file, for messages. */
  readonly file: string;
  readonly #tensors: ReadonlyMap<string, TensorInfo>;
  readonly #prefix: string;

  /**
   * @param file For messages.
   * @param tensors All of the file.
   * @param prefix Put before every name that is asked for.
   */
  constructor(
    file: string,
    tensors: ReadonlyMap<string, TensorInfo>,
    prefix: string,
  ) {
    this.file = file;
    this.#tensors = tensors;
    this.#prefix = prefix;
  }

  /** Whether there is a tensor. */
  has(name: string): boolean {
    return this.#tensors.has(this.#prefix + name);
  }

  /**
   * One size of a tensor's shape.
   *
   * @throws {WeightsError} If there is no such tensor or axis.
   */
  size(name: string, axis: number): number {
    const shape = this.#tensors.get(this.#prefix + name)?.shape;
    const size = shape?.[axis];
    if (size !== undefined && size > 0) return size;
    throw new WeightsError(
      `Cannot use ${this.file}: it must hold tensor ${this.#prefix}${name} with at least ${
        axis + 1
      } axes: current ${shape ? `shape is [${shape}]` : "file has none"}`,
    );
  }

  /** Number of axes of a tensor; 0 if there is none. */
  axes(name: string): number {
    return this.#tensors.get(this.#prefix + name)?.shape.length ?? 0;
  }

  /** How many of `name(0)`, `name(1)`, ... there are before the first that is missing. */
  count(name: (i: number) => string): number {
    let i = 0;
    while (this.has(name(i))) i++;
    return i;
  }
}

/**
 * Where each tensor of a network lies in the file.
 *
 * @param file For messages.
 * @param found All tensors of the file.
 * @param wanted The network's.
 * @returns By diffusers' name: type, shape in diffusers, and the bytes to read.
 * @throws {WeightsError} If one is missing or has another shape; the message has both names.
 */
export function locate(
  file: string,
  found: ReadonlyMap<string, TensorInfo>,
  wanted: readonly LdmTensor[],
): Map<string, TensorInfo> {
  const missing = wanted.filter(({ ldm }) => !found.has(ldm));
  if (missing.length > 0) {
    const [{ ldm, name, shape }] = missing as [LdmTensor];
    throw new WeightsError(
      `Cannot use ${file}: it must hold tensor ${ldm} (diffusers: ${name}, [${shape}]): current file lacks ${
        missing.length === 1
          ? "it"
          : `it and ${missing.length - 1} others of its network`
      }`,
    );
  }
  const result = new Map<string, TensorInfo>();
  for (const tensor of wanted) {
    const info = found.get(tensor.ldm)!;
    const stored = storedShape(tensor);
    if (!sameShape(info.shape, stored)) {
      throw new WeightsError(
        `Cannot use ${file}: tensor ${tensor.ldm} (diffusers: ${tensor.name}) must be [${stored}]: current shape is ${
          quote(info.shape)
        }`,
      );
    }
    const { name, shape, storage } = tensor;
    const third = storage && "third" in storage ? storage.third : undefined;
    const sizeBytes = third === undefined ? info.sizeBytes : info.sizeBytes / 3;
    const offset = info.offset + (third ?? 0) * sizeBytes;
    result.set(name, { name, dtype: info.dtype, shape, offset, sizeBytes });
  }
  return result;
}

function storedShape({ shape, storage }: LdmTensor): readonly number[] {
  if (!storage) return shape;
  const [rows, ...rest] = shape as [number, ...number[]];
  return "third" in storage ? [3 * rows, ...rest] : [rest[0]!, rows];
}

/** Axes of size 1 at the end do not count: a 1x1 convolution is a linear layer. */
function sameShape(a: readonly number[], b: readonly number[]): boolean {
  const trim = (shape: readonly number[]): readonly number[] =>
    shape.slice(0, 1 + shape.findLastIndex((size) => size !== 1));
  return trim(a).join() === trim(b).join();
}
