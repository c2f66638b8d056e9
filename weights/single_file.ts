// single_file: one .safetensors file with a whole pipeline -> what a diffusers folder gives.
//
//   model.diffusion_model.*                    unet           ldm_names.ts
//   first_stage_model.*                        vae            ldm_names.ts
//   cond_stage_model.*, conditioner.*          text_encoder   clip_names.ts
//
// The family follows from names (ldm_kinds.ts), sizes from shapes (ldm_sizes.ts), configs from both
// (ldm_configs.ts). Every tensor is one of a network or listed in ldm_extras.ts.
import { basename } from "node:path";
import type { ByteSource, ReadOptions } from "./byte_source.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { clipTensors, openClipTensors, type TextSizes } from "./clip_names.ts";
import {
  CLIP_VOCABULARY,
  type ClipPadding,
  clipTokenizerFiles,
} from "./clip_tokenizer.ts";
import {
  Component,
  type ComponentName,
  type ComponentOptions,
} from "./component.ts";
import { MissingFileError, quote, WeightsError } from "./errors.ts";
import {
  type ConfigOverrides,
  modelIndex,
  overridden,
  schedulerConfig,
  textConfigOf,
  unetConfigOf,
  vaeConfigOf,
} from "./ldm_configs.ts";
import { type Extra, EXTRAS, LORA_NAMES, unusedLayer } from "./ldm_extras.ts";
import { type LdmFamily, ldmFamily, PREFIXES } from "./ldm_kinds.ts";
import { unetTensors, vaeTensors } from "./ldm_names.ts";
import { type LdmPrediction, ldmPrediction } from "./ldm_prediction.ts";
import { clipSizes, openClipSizes, unetSizes, vaeSizes } from "./ldm_sizes.ts";
import { LdmShapes, type LdmTensor, locate } from "./ldm_tensors.ts";
import { localPath } from "./location.ts";
import { RenamedTensors } from "./renamed_tensors.ts";
import { Safetensors } from "./safetensors.ts";
import { openSource } from "./source.ts";
import type { JsonObject, JsonValue } from "./strict_json.ts";

/** Options of {@linkcode openSingleFile}. */
export interface SingleFileOptions extends ReadOptions {
  /** What the UNet predicts. Left out: what the file says of itself, see ldm_prediction.ts. */
  readonly prediction?: LdmPrediction | undefined;
  /** Config values that no tensor shows and the family has otherwise. */
  readonly configOverrides?: ConfigOverrides | undefined;
}

/** What is known of one network. */
interface Part {
  readonly config: JsonObject;
  readonly tensors: readonly LdmTensor[];
}

/**
 * Opens a `.safetensors` file that holds a whole SD1.x, SD2.x or SDXL pipeline.
 *
 * @param location Path, `file:` or `http(s):` URL of the file. Only its header is read.
 * @returns The checkpoint. The caller closes it.
 * @throws {WeightsError} If it is damaged, something else, or holds a tensor too few or too many.
 */
export async function openSingleFile(
  location: string | URL,
  options: SingleFileOptions = {},
): Promise<SingleFile> {
  const { signal } = options;
  const source = await openSource(location, { signal });
  return await SingleFile.fromSource(source, location, options);
}

/** A checkpoint in one file. Made by {@linkcode openSingleFile}. */
export class SingleFile implements Checkpoint {
  /** The path or URL it was opened with. */
  readonly location: string | URL;
  /** The last name of the location without `.safetensors`, for people. */
  readonly name: string;
  /** Always true. */
  readonly singleFile = true;
  /** Which family it is of. */
  readonly family: LdmFamily;
  /** What `model_index.json` would be. */
  readonly index: JsonObject;
  /** What the UNet predicts. */
  readonly prediction: LdmPrediction;
  readonly #source: ByteSource;
  readonly #files: ReadonlyMap<string, JsonObject>;
  readonly #components: ReadonlyMap<ComponentName, Component>;
  readonly #tokenizers = new Map<
    ClipPadding,
    Promise<ReadonlyMap<string, string>>
  >();

  private constructor(
    source: ByteSource,
    location: string | URL,
    family: LdmFamily,
    parts: ReadonlyMap<ComponentName, Part>,
    scheduler: JsonObject,
    file: Safetensors,
  ) {
    this.location = location;
    this.name = fileName(location);
    this.family = family;
    this.index = modelIndex(family);
    this.prediction = scheduler["prediction_type"] as LdmPrediction;
    this.#source = source;
    const files = new Map([
      ["model_index.json", this.index],
      ["scheduler/scheduler_config.json", scheduler],
    ]);
    const components = new Map<ComponentName, Component>();
    for (const [part, { config, tensors }] of parts) {
      files.set(`${part}/config.json`, config);
      const found = locate(file.name, file.tensors, tensors);
      const swapped = tensors.filter(({ storage }) =>
        storage && "transposed" in storage
      );
      const renamed = new RenamedTensors(
        source,
        found,
        new Set(swapped.map(({ name }) => name)),
      );
      components.set(
        part,
        new Component(`${this.name}/${part}`, config, [renamed]),
      );
    }
    this.#files = files;
    this.#components = components;
  }

  /**
   * Reads the header and sees what it is.
   *
   * @param source The file. It belongs to the result, and is closed if this fails.
   * @param location Where it lies, for its name.
   * @throws {WeightsError} As {@linkcode openSingleFile}.
   */
  static async fromSource(
    source: ByteSource,
    location: string | URL,
    options: SingleFileOptions = {},
  ): Promise<SingleFile> {
    const { signal } = options;
    const file = await Safetensors.open(source, { signal });
    try {
      const family = ldmFamily(file.name, file.tensors);
      const zeroSnr = file.tensors.has("ztsnr");
      const prediction = ldmPrediction({
        file: file.name,
        family,
        metadata: file.metadata,
        vMark: file.tensors.has("v_pred"),
        zeroSnrMark: zeroSnr,
        globalStep: await readNumber(file, "global_step", options),
      }, options.prediction);
      const scale = await readNumber(file, "scale_factor", options);
      const { configOverrides: overrides = {} } = options;
      const { parts, extras } = describe(file, family, prediction, scale);
      checkEveryTensor(file, parts, extras);
      const scheduler = schedulerConfig(family, prediction, zeroSnr);
      return new SingleFile(
        source,
        location,
        family,
        new Map(
          [...parts].map(([name, { config, tensors }]) => [name, {
            config: overridden(name, config, overrides),
            tensors,
          }]),
        ),
        overridden("scheduler", scheduler, overrides),
        file,
      );
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * One network under diffusers' names. Closing it leaves the file open.
   *
   * @throws {WeightsError} If this family has no such network, or a variant is asked for.
   */
  component(
    name: ComponentName,
    options: ComponentOptions = {},
  ): Promise<Component> {
    try {
      options.signal?.throwIfAborted();
      const component = this.#components.get(name);
      if (component === undefined) {
        throw new WeightsError(
          `Cannot open ${name} of ${this.name}: it must be one of ${
            [...this.#components.keys()].join(", ")
          }: current file has none`,
        );
      }
      if (options.variant !== undefined) {
        throw new WeightsError(
          `Cannot open ${name} of ${this.name}: a variant must be of a folder: current one is a single file; leave the variant out`,
        );
      }
      return Promise.resolve(component);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * A config that a folder would have as a file.
   *
   * @throws {MissingFileError} If a folder would have none.
   */
  async json(
    relativePath: string,
    options: ReadOptions = {},
  ): Promise<JsonValue> {
    const value = await this.optionalJson(relativePath, options);
    if (value !== undefined) return value;
    throw this.#missing(relativePath);
  }

  /** The same, or `undefined` if a folder would have none. */
  async optionalJson(
    relativePath: string,
    options: ReadOptions = {},
  ): Promise<JsonValue | undefined> {
    const config = this.#files.get(relativePath);
    if (config !== undefined) return config;
    const text = await this.optionalText(relativePath, options);
    return text === undefined || !relativePath.endsWith(".json")
      ? undefined
      : JSON.parse(text);
  }

  /**
   * A text file that a folder would have: of the tokenizers, or a config.
   *
   * @throws {MissingFileError} If a folder would have none.
   */
  async text(relativePath: string, options: ReadOptions = {}): Promise<string> {
    const value = await this.optionalText(relativePath, options);
    if (value !== undefined) return value;
    throw this.#missing(relativePath);
  }

  /** The same, or `undefined` if a folder would have none. */
  async optionalText(
    relativePath: string,
    options: ReadOptions = {},
  ): Promise<string | undefined> {
    options.signal?.throwIfAborted();
    const config = this.#files.get(relativePath);
    if (config !== undefined) return JSON.stringify(config, null, 2);
    const [folder, name, more] = relativePath.split("/");
    if (name === undefined || more !== undefined) return undefined;
    const padding = paddingOf(this.family, folder!);
    if (padding === undefined) return undefined;
    return (await this.#tokenizer(padding, options)).get(name);
  }

  /** Closes the file; calling it twice does no harm. */
  async close(): Promise<void> {
    await this.#source.close();
  }

  /** The same as {@linkcode SingleFile.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Read once, since its four files are asked for one by one. */
  #tokenizer(
    padding: ClipPadding,
    options: ReadOptions,
  ): Promise<ReadonlyMap<string, string>> {
    let files = this.#tokenizers.get(padding);
    if (files === undefined) {
      files = clipTokenizerFiles(padding, options);
      this.#tokenizers.set(padding, files);
      files.catch(() => this.#tokenizers.delete(padding)); // an abort is not for ever
    }
    return files;
  }

  #missing(relativePath: string): MissingFileError {
    return new MissingFileError(
      `Cannot read ${relativePath} of ${this.name}: it must be a file of a pipeline folder: current single file stands for ${
        [...this.#files.keys()].join(", ")
      } and a tokenizer`,
    );
  }
}

/** Which padding each tokenizer has: OpenCLIP pads with zeros. */
function paddingOf(
  family: LdmFamily,
  folder: string,
): ClipPadding | undefined {
  if (folder === "tokenizer") return family === "sd2" ? "!" : "<|endoftext|>";
  return folder === "tokenizer_2" && family === "sdxl" ? "!" : undefined;
}

/** Every network's config and tensors, and what else may be in the file. */
function describe(
  file: Safetensors,
  family: LdmFamily,
  prediction: LdmPrediction,
  scale: number | undefined,
): { parts: Map<ComponentName, Part>; extras: readonly Extra[] } {
  const shapes = (prefix: string): LdmShapes =>
    new LdmShapes(file.name, file.tensors, prefix);
  const parts = new Map<ComponentName, Part>();
  const extras = [...EXTRAS];
  const texts: TextSizes[] = [];
  const clip = (part: ComponentName, prefix: string): void => {
    const sizes = clipSizes(shapes(prefix));
    const config = textConfigOf(sizes, "quick_gelu");
    parts.set(part, { config, tensors: clipTensors(prefix, sizes) });
    texts.push(sizes);
  };
  const openClip = (part: ComponentName, prefix: string, pooled: boolean) => {
    const sizes = openClipSizes(shapes(prefix), pooled);
    const config = textConfigOf(sizes, "gelu");
    parts.set(part, { config, tensors: openClipTensors(prefix, sizes) });
    if (!pooled) extras.push(unusedLayer(prefix, sizes.layers));
    texts.push(sizes);
  };
  if (family === "sd1") {
    // Files of 2022 and before transformers 4.31 differ in this.
    const inner = `${PREFIXES.sd1}text_model.`;
    const nested = [...file.tensors.keys()].some((n) => n.startsWith(inner));
    clip("text_encoder", nested ? inner : PREFIXES.sd1);
  } else if (family === "sd2") openClip("text_encoder", PREFIXES.sd2, false);
  else {
    clip("text_encoder", PREFIXES.xl1);
    openClip("text_encoder_2", PREFIXES.xl2, true);
  }
  const unet = unetSizes(shapes(PREFIXES.unet));
  checkText(file.name, unet.text, texts);
  parts.set("unet", {
    config: unetConfigOf(family, unet, prediction, texts[1]?.projection),
    tensors: unetTensors(PREFIXES.unet, unet),
  });
  const vae = vaeSizes(shapes(PREFIXES.vae));
  parts.set("vae", {
    config: vaeConfigOf(family, vae, prediction, scale),
    tensors: vaeTensors(PREFIXES.vae, vae),
  });
  return { parts, extras };
}

/** The UNet must take what the text encoders give, and these what the tokenizer gives. */
function checkText(
  file: string,
  wanted: number,
  texts: readonly TextSizes[],
): void {
  const given = texts.map(({ channels }) => channels);
  if (given.reduce((a, b) => a + b) !== wanted) {
    throw new WeightsError(
      `Cannot use ${file}: its UNet must attend to the channels of its text encoders: current ${wanted} of ${
        given.join(" + ")
      }`,
    );
  }
  for (const { vocabulary } of texts) {
    if (vocabulary !== CLIP_VOCABULARY) {
      throw new WeightsError(
        `Cannot use ${file}: its token embedding must have the ${CLIP_VOCABULARY} rows of CLIP's vocabulary: current ${vocabulary}`,
      );
    }
  }
}

/** Insists that nothing in the file is unaccounted for. */
function checkEveryTensor(
  file: Safetensors,
  parts: ReadonlyMap<ComponentName, Part>,
  extras: readonly Extra[],
): void {
  const known = new Set(
    [...parts.values()].flatMap(({ tensors }) => tensors.map((t) => t.ldm)),
  );
  const unknown = [...file.tensors.keys()].filter((name) =>
    !known.has(name) && !extras.some(({ names }) => names.test(name))
  );
  if (unknown.length === 0) return;
  const lora = unknown.filter((name) => LORA_NAMES.test(name));
  if (lora.length > 0) {
    // Whether they were merged cannot be seen, and a picture without them may be another one.
    throw new WeightsError(
      `Cannot use ${file.name}: a LoRA must be merged into the checkpoint, not lie beside it: current file has ${lora.length} of its tensors, such as ${
        sample(lora)
      }; merge it, or if that was done, save the file again without them`,
    );
  }
  throw new WeightsError(
    `Cannot use ${file.name}: every tensor must belong to its UNet, VAE or text encoder: current file has ${unknown.length} others: ${
      sample(unknown)
    }`,
  );
}

function sample(names: readonly string[]): string {
  const shown = names.slice(0, 3).map(quote).join(", ");
  return names.length > 3 ? `${shown}, ...` : shown;
}

/** A tensor of one number, if it is there. */
async function readNumber(
  file: Safetensors,
  name: string,
  { signal }: ReadOptions,
): Promise<number | undefined> {
  const info = file.tensors.get(name);
  if (info === undefined) return undefined;
  if (info.shape.some((size) => size !== 1)) {
    throw new WeightsError(
      `Cannot use ${file.name}: tensor ${name} must be one number: current shape is ${
        quote(info.shape)
      }`,
    );
  }
  const values = /^(F|BF)\d+$/.test(info.dtype)
    ? await file.readFloat32(name, { signal })
    : await file.readInt32(name, { signal });
  return values[0];
}

function fileName(location: string | URL): string {
  const path = localPath(location) ?? new URL(location).pathname;
  const name = basename(path).replace(/\.safetensors$/i, "");
  try {
    return localPath(location) === undefined ? decodeURIComponent(name) : name;
  } catch {
    return name;
  }
}
