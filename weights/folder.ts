// folder: a diffusers folder -> its configs, small files and components.
//
//   model_index.json                           which class each component has
//   unet/config.json, unet/*.safetensors       one network (component.ts)
//   scheduler/, tokenizer/                     small JSON and text files
import { basename, resolve } from "node:path";
import type { ReadOptions } from "./byte_source.ts";
import {
  Component,
  type ComponentName,
  type ComponentOptions,
  COMPONENTS,
  describeWeights,
  openWeights,
} from "./component.ts";
import { MissingFileError, quote, WeightsError } from "./errors.ts";
import { repoOfSnapshot } from "./hub_cache.ts";
import { readJson, readJsonObject, unlessMissing } from "./json_file.ts";
import { displayName, joinLocation, localPath } from "./location.ts";
import { readText } from "./source.ts";
import type { JsonObject, JsonValue } from "./strict_json.ts";

export { Component } from "./component.ts";
export type { ComponentName, ComponentOptions } from "./component.ts";

const PIPELINES = [
  "StableDiffusionPipeline",
  "StableDiffusionXLPipeline",
  // optimum's and diffusers' names for folders with ONNX parts
  "OnnxStableDiffusionPipeline",
  "ORTStableDiffusionPipeline",
  "ORTStableDiffusionXLPipeline",
];

/**
 * Opens a diffusers folder and checks its `model_index.json`.
 *
 * @param location Path, `file:` or `http(s):` URL of the folder.
 * @returns The folder; its weight files are opened when a component is asked for.
 * @throws {WeightsError} If it is no diffusers folder, or one of another pipeline.
 *
 * @example One tensor of the embedded model
 * ```ts
 * import { embeddedModel } from "../weights/embedded.ts";
 * import { openFolder } from "../weights/folder.ts";
 *
 * await using folder = await openFolder(embeddedModel("tiny-scenes")!);
 * const unet = await folder.component("unet");
 * const bias = await unet.read("conv_out.bias"); // [4]
 * if (bias.length !== 4) throw new Error(`Got ${bias.length}`);
 * ```
 */
export async function openFolder(
  location: string | URL,
  options: ReadOptions = {},
): Promise<DiffusersFolder> {
  let index: JsonObject;
  try {
    index = await readJsonObject(location, "model_index.json", options);
  } catch (cause) {
    if (!(cause instanceof MissingFileError)) throw cause;
    const found = await describeWeights(location);
    const repo = repoOfSnapshot(localPath(location) ?? "");
    throw new MissingFileError(
      `Cannot open model ${
        displayName(location)
      }: it must be a folder with model_index.json: current folder has none${found}${
        repo ? `; run \`weights pull ${repo}\`` : ""
      }`,
      { cause },
    );
  }
  const className = index["_class_name"];
  if (typeof className !== "string" || !PIPELINES.includes(className)) {
    throw new WeightsError(
      `Cannot open model ${displayName(location)}: its _class_name must be ${
        PIPELINES.slice(0, 2).join(" or ")
      }: current _class_name is ${quote(className)}`,
    );
  }
  return new DiffusersFolder(location, index);
}

/** An open diffusers folder. Made by {@linkcode openFolder}. */
export class DiffusersFolder implements AsyncDisposable {
  /** The path or URL it was opened with. */
  readonly location: string | URL;
  /** The last name of the location, for people. */
  readonly name: string;
  /** Always false. */
  readonly singleFile = false;
  /** The content of `model_index.json`. */
  readonly index: JsonObject;
  readonly #components = new Set<Component>();

  /**
   * Use {@linkcode openFolder}, which checks what is given here.
   *
   * @param location Path or URL of the folder.
   * @param index The content of its `model_index.json`.
   */
  constructor(location: string | URL, index: JsonObject) {
    this.location = location;
    this.index = index;
    this.name = folderName(location);
  }

  /**
   * Opens the weight files of one component and reads its config.
   *
   * @param name Which component; it is also the name of its folder.
   * @param options `variant: "fp16"` reads only the fp16 files.
   * @returns The component. Closing the folder closes it too.
   * @throws {WeightsError} If a file is missing, damaged or of another class.
   */
  async component(
    name: ComponentName,
    options: ComponentOptions = {},
  ): Promise<Component> {
    const { className } = COMPONENTS[name];
    const entry = this.index[name];
    const current = Array.isArray(entry) ? entry[1] : entry;
    const onnx = typeof current === "string" && /^(?:Onnx|ORT)/.test(current);
    if (current !== className && !onnx) {
      throw new WeightsError(
        `Cannot open ${name} of ${this.name}: its class in model_index.json must be ${className}: current class is ${
          quote(current)
        }`,
      );
    }
    const config = await readJsonObject(
      this.location,
      `${name}/config.json`,
      options,
    );
    let files;
    try {
      files = await openWeights(this.location, name, options);
    } catch (cause) {
      if (!onnx || !(cause instanceof MissingFileError)) throw cause;
      throw new MissingFileError(
        `Cannot open ${name} of ${this.name}: it must have safetensors: current class is ${current}${
          name === "unet"
            ? "; guidance needs the UNet's gradient, which ONNX has not: put its safetensors beside it"
            : ""
        }`,
        { cause },
      );
    }
    const component = new Component(`${this.name}/${name}`, config, files);
    this.#components.add(component);
    return component;
  }

  /**
   * Reads a JSON file of the folder.
   *
   * @param relativePath Names separated by `/`, such as `scheduler/scheduler_config.json`.
   * @returns The value; its objects have no prototype.
   * @throws {MissingFileError} If there is no such file.
   * @throws {WeightsError} If it is not JSON with unique keys.
   */
  async json(
    relativePath: string,
    options: ReadOptions = {},
  ): Promise<JsonValue> {
    return await readJson(this.location, relativePath, options);
  }

  /**
   * Reads a JSON file of the folder that may be missing; a server may answer 403 for it.
   *
   * @param relativePath As in {@linkcode DiffusersFolder.json}.
   * @returns The value, or `undefined` if there is no such file.
   * @throws {WeightsError} If the file is there but cannot be used.
   */
  async optionalJson(
    relativePath: string,
    options: ReadOptions = {},
  ): Promise<JsonValue | undefined> {
    return await unlessMissing(this.json(relativePath, options));
  }

  /**
   * Reads a text file of the folder.
   *
   * @param relativePath As in {@linkcode DiffusersFolder.json}.
   * @returns The text.
   * @throws {MissingFileError} If there is no such file.
   * @throws {WeightsError} If it is not UTF-8.
   */
  async text(relativePath: string, options: ReadOptions = {}): Promise<string> {
    return await readText(joinLocation(this.location, relativePath), options);
  }

  /**
   * Reads a text file of the folder that may be missing; a server may answer 403 for it.
   *
   * @param relativePath As in {@linkcode DiffusersFolder.json}.
   * @returns The text, or `undefined` if there is no such file.
   * @throws {WeightsError} If the file is there but cannot be used.
   */
  async optionalText(
    relativePath: string,
    options: ReadOptions = {},
  ): Promise<string | undefined> {
    return await unlessMissing(this.text(relativePath, options));
  }

  /** Closes every component opened from here; calling it twice does no harm. */
  async close(): Promise<void> {
    await Promise.all(
      [...this.#components].map((component) => component.close()),
    );
    this.#components.clear();
  }

  /** The same as {@linkcode DiffusersFolder.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function folderName(location: string | URL): string {
  const path = localPath(location);
  if (path !== undefined) return basename(resolve(path));
  const { pathname, host } = new URL(location);
  const last = pathname.split("/").findLast((part) => part !== "") ?? host;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}
