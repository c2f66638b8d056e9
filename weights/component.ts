// component: the files of one network in a diffusers folder -> named tensors.
//
//   <base>.safetensors                   one file,
//   <base>.safetensors.index.json        or an index of shards,
//   <base>.fp16.safetensors              or one of these two as fp16
//   <base>.safetensors.index.fp16.json
//
// Names in the files are given as they are: renaming old ones is the network's job.
import { readdir } from "node:fs/promises";
import type { ReadOptions } from "./byte_source.ts";
import {
  DeniedFileError,
  isAbsent,
  MissingFileError,
  quote,
  WeightsError,
} from "./errors.ts";
import { readJsonObject } from "./json_file.ts";
import { displayName, joinLocation, localPath } from "./location.ts";
import { Safetensors, type TensorInfo } from "./safetensors.ts";
import { openSource } from "./source.ts";
import { isJsonObject, type JsonObject } from "./strict_json.ts";

/** The parts of a pipeline that have weights. */
export type ComponentName = "unet" | "vae" | "text_encoder" | "text_encoder_2";

/** Options of {@linkcode DiffusersFolder.component}. */
export interface ComponentOptions extends ReadOptions {
  /** Read only the files of this variant. Left out: the plain files, else fp16. */
  readonly variant?: "fp16" | undefined;
}

/** `base` names the safetensors files, `pickle` the ones that are not read. */
export const COMPONENTS = {
  unet: {
    className: "UNet2DConditionModel",
    base: "diffusion_pytorch_model",
    pickle: "diffusion_pytorch_model",
  },
  vae: {
    className: "AutoencoderKL",
    base: "diffusion_pytorch_model",
    pickle: "diffusion_pytorch_model",
  },
  text_encoder: {
    className: "CLIPTextModel",
    base: "model",
    pickle: "pytorch_model",
  },
  text_encoder_2: {
    className: "CLIPTextModelWithProjection",
    base: "model",
    pickle: "pytorch_model",
  },
} as const;

const WHY_NO_PICKLE =
  "pickle files are not read because loading one runs code from it; convert it to safetensors";

/** Named tensors that are read one at a time: a {@linkcode Safetensors} file, or part of one. */
export interface TensorFile {
  /** Every tensor by name. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Reads one tensor of F32, F16 or BF16 as float32, `[product(shape)]`. */
  readFloat32(
    name: string,
    options?: Pick<ReadOptions, "signal">,
  ): Promise<Float32Array<ArrayBuffer>>;
  /** Reads one tensor's little-endian bytes. */
  readBytes(
    name: string,
    options?: ReadOptions,
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** Closes it; calling it twice does no harm. */
  close(): Promise<void>;
}

/** The config and the tensors of one network. Made by {@linkcode DiffusersFolder.component}. */
export class Component implements AsyncDisposable {
  /** `<folder>/<component>`, for messages. */
  readonly name: string;
  /** The content of `config.json`; it has no prototype. */
  readonly config: JsonObject;
  /** Every tensor of every shard. `offset` counts in the tensor's own file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #files: readonly TensorFile[];
  readonly #fileOf = new Map<string, TensorFile>();

  /**
   * Use {@linkcode DiffusersFolder.component}.
   *
   * @param name For messages.
   * @param config The content of `config.json`.
   * @param files The open weight files, no tensor in two of them.
   */
  constructor(name: string, config: JsonObject, files: readonly TensorFile[]) {
    this.name = name;
    this.config = config;
    this.#files = files;
    const tensors = new Map<string, TensorInfo>();
    for (const file of files) {
      for (const [key, info] of file.tensors) {
        tensors.set(key, info);
        this.#fileOf.set(key, file);
      }
    }
    this.tensors = tensors;
  }

  /**
   * Reads one tensor as float32.
   *
   * @param tensor A key of `tensors`.
   * @returns The values in row-major order, `[product(shape)]`.
   * @throws {WeightsError} If there is no such tensor, or it is not F32, F16 or BF16.
   */
  async read(
    tensor: string,
    options: Pick<ReadOptions, "signal"> = {},
  ): Promise<Float32Array<ArrayBuffer>> {
    return await this.#file(tensor).readFloat32(tensor, options);
  }

  /**
   * Reads one tensor as it lies in its file.
   *
   * @param tensor A key of `tensors`.
   * @returns Its little-endian bytes, `[sizeBytes]`.
   * @throws {WeightsError} If there is no such tensor.
   */
  async readBytes(
    tensor: string,
    options: ReadOptions = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#file(tensor).readBytes(tensor, options);
  }

  /** Closes the weight files; calling it twice does no harm. */
  async close(): Promise<void> {
    await closeAll(this.#files);
  }

  /** The same as {@linkcode Component.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #file(tensor: string): TensorFile {
    const file = this.#fileOf.get(tensor);
    if (file === undefined) {
      throw new WeightsError(
        `Cannot read tensor ${
          quote(tensor)
        }: it must be in ${this.name}: current weights have ${this.tensors.size} others`,
      );
    }
    return file;
  }
}

/**
 * Opens the weight files of a component: the names diffusers writes, in order of precision.
 *
 * @param location Path or URL of the diffusers folder.
 * @param name Which component.
 * @returns The open files. The caller closes them.
 * @throws {MissingFileError} If there is none.
 * @throws {WeightsError} If one is damaged, or an index does not fit its shards.
 */
export async function openWeights(
  location: string | URL,
  name: ComponentName,
  options: ComponentOptions,
): Promise<readonly Safetensors[]> {
  const { base } = COMPONENTS[name];
  const plain = [`${base}.safetensors`, `${base}.safetensors.index.json`];
  const half = [
    `${base}.fp16.safetensors`,
    `${base}.safetensors.index.fp16.json`,
  ];
  const candidates = options.variant === "fp16" ? half : [...plain, ...half];
  let denied: DeniedFileError | undefined;
  for (const file of candidates) {
    try {
      return file.endsWith(".json")
        ? await openShards(location, name, file, options)
        : [await openTensors(location, `${name}/${file}`, options)];
    } catch (error) {
      if (!isAbsent(error)) throw error;
      if (error instanceof DeniedFileError) denied = error;
    }
  }
  throw new MissingFileError(
    `Cannot open ${name} of ${displayName(location)}: it must have one of ${
      candidates.join(", ")
    }: current ${
      denied ? "server answers 403" : "folder has none"
    }${await describeWeights(location, name)}`,
    { cause: denied },
  );
}

async function openTensors(
  location: string | URL,
  relativePath: string,
  options: ReadOptions,
): Promise<Safetensors> {
  const { signal } = options;
  const source = await openSource(joinLocation(location, relativePath), {
    signal,
  });
  return await Safetensors.open(source, { signal });
}

/**
 * Opens the shards of an index and checks that index and shards list the same tensors.
 *
 * @throws {MissingFileError} If there is no such index, or {@linkcode DeniedFileError}.
 * @throws {WeightsError} If one of its shards is missing or denied, or holds something else.
 */
async function openShards(
  location: string | URL,
  name: ComponentName,
  indexFile: string,
  options: ReadOptions,
): Promise<Safetensors[]> {
  const index = await readJsonObject(
    location,
    `${name}/${indexFile}`,
    options,
  );
  const fail = (rule: string, current: string, cause?: unknown): WeightsError =>
    new WeightsError(
      `Cannot read ${name}/${indexFile} of ${
        displayName(location)
      }: ${rule}: current ${current}`,
      { cause },
    );
  const shards = new Map<string, Set<string>>(); // file -> the tensors it must have
  const weightMap = index["weight_map"];
  if (!isJsonObject(weightMap) || Object.keys(weightMap).length === 0) {
    throw fail("weight_map must be an object with entries", quote(weightMap));
  }
  for (const [tensor, file] of Object.entries(weightMap)) {
    if (typeof file !== "string" || !isPlainName(file)) {
      throw fail(
        `the file of tensor ${
          quote(tensor)
        } must be a plain name ending in .safetensors`,
        quote(file),
      );
    }
    const listed = shards.get(file) ?? new Set();
    shards.set(file, listed.add(tensor));
  }
  const files: Safetensors[] = [];
  try {
    for (const [shard, listed] of shards) {
      let file: Safetensors;
      try {
        file = await openTensors(location, `${name}/${shard}`, options);
      } catch (cause) {
        if (!isAbsent(cause)) throw cause;
        throw fail(
          "every shard must exist",
          cause instanceof DeniedFileError
            ? `answer for ${quote(shard)} is 403`
            : `${quote(shard)} does not`,
          cause,
        );
      }
      files.push(file);
      for (const tensor of listed) {
        if (!file.tensors.has(tensor)) {
          throw fail(
            `tensor ${quote(tensor)} must be in ${quote(shard)}`,
            "shard does not have it",
          );
        }
      }
      for (const tensor of file.tensors.keys()) {
        if (!listed.has(tensor)) {
          throw fail(
            `tensor ${quote(tensor)} of ${
              quote(shard)
            } must be listed for that shard`,
            `entry is ${quote(weightMap[tensor])}`,
          );
        }
      }
    }
    return files;
  } catch (error) {
    await closeAll(files);
    throw error;
  }
}

/**
 * What else lies where weights were looked for.
 *
 * @param location Path or URL of the diffusers folder.
 * @param name A component to look into, else the folder itself.
 * @returns The end of an error message, or nothing.
 */
export async function describeWeights(
  location: string | URL,
  name?: ComponentName,
): Promise<string> {
  const folder = name === undefined ? location : joinLocation(location, name);
  const found: string[] = [];
  const path = localPath(folder);
  if (path !== undefined) {
    const names = await readdir(path).catch(() => []);
    found.push(
      ...names.filter((file) => /\.(bin|ckpt|pt|pth|safetensors)$/.test(file))
        .toSorted(),
    );
  } else if (name !== undefined) { // a server gives no list: ask for the usual names
    const { pickle } = COMPONENTS[name];
    for (const file of [`${pickle}.bin`, `${pickle}.fp16.bin`]) {
      try {
        await using _ = await openSource(joinLocation(folder, file));
        found.push(file);
      } catch (error) {
        if (!(error instanceof WeightsError)) throw error;
      }
    }
  }
  if (found.length === 0) return "";
  const files = `, only ${found.slice(0, 5).join(", ")}`;
  return found.every((file) => !file.endsWith(".safetensors"))
    ? `${files}; ${WHY_NO_PICKLE}`
    : files;
}

async function closeAll(files: readonly TensorFile[]): Promise<void> {
  await Promise.all(files.map((file) => file.close()));
}

function isPlainName(file: string): boolean {
  return /^[^/\\:\p{Cc}]+\.safetensors$/u.test(file) && !file.includes("..");
}
