/** Opens a checkpoint: the embedded model, a diffusers folder on disk or over http. */
import type { Backend } from "../kernels/backend.ts";
import { Cpu } from "../kernels/cpu.ts";
import type { DeviceChoice } from "../kernels/adapter.ts";
import { NoDeviceError } from "../kernels/errors.ts";
import { WebGpu } from "../kernels/webgpu.ts";
import { EMBEDDED_MODELS, embeddedModel } from "../weights/embedded.ts";
import { WeightsError } from "../weights/errors.ts";
import { type DiffusersFolder, openFolder } from "../weights/folder.ts";
import { readJsonObject } from "../weights/json_file.ts";
import {
  generate,
  type GenerateOptions,
  type GenerateResult,
  matchRegions,
  type Networks,
  pixelsPerCell,
} from "./generate.ts";
import { guidedSites } from "./guidance/winwinlay.ts";
import type { PhraseMatch } from "./phrase.ts";
import {
  checkPreset,
  checkRequest,
  type FullRequest,
  type GenerateRequest,
  PAPER,
  type RequestLimits,
} from "./request.ts";
import { type ScheduleConfig, scheduleConfig } from "./scheduler.ts";
import { loadTextEncoder } from "./text_encoder.ts";
import { Tokenizer } from "./tokenize.ts";
import { loadUnet, type UnetConfig, unetConfig } from "./unet.ts";
import { loadVae, vaeConfig } from "./vae.ts";

/** Options of `open`. */
export interface OpenOptions {
  /** `webgpu`, `cpu` (the slow references), or `auto`: WebGPU where there is an adapter, else cpu. Default auto. */
  readonly backend?: "auto" | "webgpu" | "cpu" | Backend;
  /** `native` is the runtime's own WebGPU, `dawn` the npm package `webgpu`. */
  readonly device?: DeviceChoice | undefined;
  /** Which files of a folder to read. */
  readonly variant?: "fp16" | undefined;
  /** Load the VAE's encoder too. Default false. */
  readonly encoder?: boolean;
  /** Cancels. */
  readonly signal?: AbortSignal | undefined;
  /** Called while weights load. */
  readonly onProgress?:
    | ((part: string, done: number, total: number) => void)
    | undefined;
}

/** Opens the backend that `options` ask for. */
export async function openBackend(
  options: Pick<OpenOptions, "backend" | "device"> = {},
): Promise<Backend> {
  const { backend = "auto", device } = options;
  if (typeof backend === "object") return backend;
  if (backend === "cpu") return new Cpu();
  try {
    return await WebGpu.open({ device });
  } catch (error) {
    // Asked for a device by name: its absence is an error, not a reason to be slow.
    if (backend === "webgpu" || device || !(error instanceof NoDeviceError)) {
      throw error;
    }
    return new Cpu();
  }
}

/**
 * Opens a model.
 *
 * @param location A name of `EMBEDDED_MODELS`, a diffusers folder, or its URL.
 * @returns The model; dispose it to free the device.
 * @throws {WeightsError} If there is no such model or it does not fit what is supported.
 * @throws {NoDeviceError} If WebGPU was asked for and there is no adapter.
 *
 * @example A picture from the embedded model
 * ```ts
 * import { open } from "../mod.ts";
 *
 * await using model = await open("tiny-scenes");
 * const { png } = await model.generate({
 *   prompt: "a red car and a blue house on grass",
 *   regions: [
 *     { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
 *     { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
 *   ],
 *   steps: 4,
 *   guidance: { steps: 1, iterations: 1 },
 * });
 * if (png.length < 1000) throw new Error("too small");
 * ```
 */
export async function open(
  location: string | URL = "tiny-scenes",
  options: OpenOptions = {},
): Promise<Model> {
  const { signal, variant, onProgress } = options;
  await using folder = await openModelFolder(location, { signal });
  const facts = await readFacts(folder, location, { signal });
  const { name, tokenizer, schedule } = facts;
  const progress = (part: string) => (done: number, total: number): void =>
    onProgress?.(part, done, total);

  const backend = await openBackend(options);
  const parts: Disposable[] = typeof options.backend === "object"
    ? []
    : [backend];
  try {
    const part = (kind: "text_encoder" | "unet" | "vae") =>
      folder.component(kind, { signal, variant });
    const textEncoder = await loadTextEncoder(
      backend,
      await part("text_encoder"),
      {
        signal,
        onTensor: progress("text_encoder"),
      },
    );
    parts.unshift(textEncoder);
    const unet = await loadUnet(backend, await part("unet"), {
      signal,
      onTensor: progress("unet"),
    });
    parts.unshift(unet);
    const vae = await loadVae(backend, await part("vae"), {
      signal,
      encoder: options.encoder ?? false,
      onTensor: progress("vae"),
    });
    parts.unshift(vae);
    backend.trim(); // what loading needed
    const networks = { backend, tokenizer, textEncoder, unet, vae, schedule };
    return new Model(name, networks, facts.limits, parts);
  } catch (error) {
    for (const p of parts) p[Symbol.dispose]();
    throw error;
  }
}

/** What a checkpoint says of itself before its weights are read. Made by `describeModel`. */
export interface ModelFacts {
  /** The embedded model's name or the folder's. */
  readonly name: string;
  /** Its tokenizer. */
  readonly tokenizer: Tokenizer;
  /** Its noise schedule. */
  readonly schedule: ScheduleConfig;
  /** The shape of its UNet. */
  readonly unet: UnetConfig;
  /** What requests are checked against: own size, presets. */
  readonly limits: RequestLimits;
}

/** A checked request. */
export interface CheckedRequest {
  /** With every default filled in. */
  readonly request: FullRequest;
  /** What was repaired. */
  readonly notes: string[];
  /** Each region's tokens. */
  readonly matches: PhraseMatch[];
}

/**
 * Reads a model's small files only: enough to check requests against it.
 *
 * @param location As in `open`.
 * @throws {WeightsError} If there is no such model or it is not supported.
 */
export async function describeModel(
  location: string | URL = "tiny-scenes",
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<ModelFacts> {
  await using folder = await openModelFolder(location, options);
  return await readFacts(folder, location, options);
}

/**
 * Checks a request against a model without running it, and finds its phrases.
 *
 * @throws {TypeError | RangeError} If something is wrong; the message says what.
 */
export function checkForModel(
  value: unknown,
  { limits, tokenizer, unet }: Pick<
    ModelFacts,
    "limits" | "tokenizer" | "unet"
  >,
): CheckedRequest {
  const checked = checkRequest(value, limits);
  const { template, prompt, regions, negativePrompt, guidance } =
    checked.request;
  tokenizer.encode(negativePrompt);
  const text = template.replace("{}", () => prompt);
  const matches = matchRegions(tokenizer, text, regions);
  if (guidance.method === "winwinlay") guidedSites(unet, guidance.sites);
  return { ...checked, matches };
}

async function openModelFolder(
  location: string | URL,
  options: { readonly signal?: AbortSignal | undefined },
): Promise<DiffusersFolder> {
  const known = typeof location === "string"
    ? embeddedModel(location)
    : undefined;
  try {
    return await openFolder(known ?? location, options);
  } catch (cause) {
    const bare = typeof location === "string" && /^[\w.-]+$/.test(location);
    if (!(cause instanceof WeightsError) || !bare) throw cause;
    throw new WeightsError(
      `Cannot open model "${location}": it must be ${
        EMBEDDED_MODELS.join(" or ")
      }, or a diffusers folder: ${cause.message}`,
      { cause },
    );
  }
}

async function readFacts(
  folder: DiffusersFolder,
  location: string | URL,
  { signal }: { readonly signal?: AbortSignal | undefined },
): Promise<ModelFacts> {
  const embedded = typeof location === "string" &&
    embeddedModel(location) !== undefined;
  const name = embedded ? location : folder.name;
  const [vocab, merges, config, specialTokens] = await Promise.all([
    folder.text("tokenizer/vocab.json", { signal }),
    folder.text("tokenizer/merges.txt", { signal }),
    folder.optionalText("tokenizer/tokenizer_config.json", { signal }),
    folder.optionalText("tokenizer/special_tokens_map.json", { signal }),
  ]);
  const json = (path: string) =>
    readJsonObject(folder.location, path, { signal });
  const scheduler = await json("scheduler/scheduler_config.json");
  const unet = unetConfig(await json("unet/config.json"), `${name}/unet`);
  const vae = vaeConfig(await json("vae/config.json"), `${name}/vae`);
  const presetFile = await folder.optionalJson("winwinlay.json", { signal });
  try {
    const schedule = scheduleConfig(scheduler, `${name}/scheduler`);
    const multiple = pixelsPerCell({ config: vae });
    const side = unet.sampleSize * multiple;
    return {
      name,
      tokenizer: Tokenizer.fromFiles({
        vocab,
        merges,
        ...(config === undefined ? {} : { config }),
        ...(specialTokens === undefined ? {} : { specialTokens }),
      }),
      schedule,
      unet,
      limits: {
        model: name,
        size: [side, side],
        multiple,
        presets: {
          model: presetFile === undefined
            ? PAPER
            : checkPreset(presetFile, `${name}/winwinlay.json`),
          paper: PAPER,
        },
        mostSteps: schedule.trainSteps,
      },
    };
  } catch (cause) {
    if (cause instanceof WeightsError) throw cause;
    // Plain errors of the readers: here it is the model's files that are wrong.
    throw new WeightsError((cause as Error).message, { cause });
  }
}

/** A checkpoint on a backend, ready to paint. Made by `open`. */
export class Model implements AsyncDisposable, Disposable {
  /** The embedded model's name or the folder's. */
  readonly name: string;
  /** Its parts, for lower-level use. */
  readonly networks: Networks;
  /** What requests are checked against: own size, presets. */
  readonly limits: RequestLimits;
  readonly #parts: Disposable[];

  /** Use `open`. */
  constructor(
    name: string,
    networks: Networks,
    limits: RequestLimits,
    parts: Disposable[],
  ) {
    this.name = name;
    this.networks = networks;
    this.limits = limits;
    this.#parts = parts;
  }

  /** Where it runs. */
  get backend(): Backend {
    return this.networks.backend;
  }

  /**
   * Checks a request without running it, and finds its phrases.
   *
   * @throws {TypeError | RangeError} If something is wrong; the message says what.
   */
  check(request: GenerateRequest): CheckedRequest {
    const { tokenizer, unet } = this.networks;
    const { limits } = this;
    return checkForModel(request, { tokenizer, limits, unet: unet.config });
  }

  /**
   * Paints.
   *
   * @throws {TypeError | RangeError} If the request is wrong.
   * @throws {DeviceLostError} If the device goes away.
   */
  generate(
    request: GenerateRequest,
    options: GenerateOptions = {},
  ): Promise<GenerateResult> {
    const { request: full, notes } = this.check(request);
    return generate(this.networks, full, notes, options);
  }

  /** Frees weights, and the device unless it was given. */
  [Symbol.dispose](): void {
    for (const part of this.#parts.splice(0)) part[Symbol.dispose]();
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
    return Promise.resolve();
  }
}
