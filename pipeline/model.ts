/** Opens a checkpoint: the embedded model, a diffusers folder on disk or over http. */
import type { Backend } from "../kernels/backend.ts";
import { Cpu } from "../kernels/cpu.ts";
import type { DeviceChoice } from "../kernels/adapter.ts";
import { NoDeviceError } from "../kernels/errors.ts";
import { WebGpu } from "../kernels/webgpu.ts";
import { EMBEDDED_MODELS, embeddedModel } from "../weights/embedded.ts";
import { WeightsError } from "../weights/errors.ts";
import { openFolder } from "../weights/folder.ts";
import {
  generate,
  type GenerateOptions,
  type GenerateResult,
  matchRegions,
  type Networks,
  pixelsPerCell,
} from "./generate.ts";
import type { PhraseMatch } from "./tokenize.ts";
import {
  checkPreset,
  checkRequest,
  type FullRequest,
  type GenerateRequest,
  PAPER,
  type RequestLimits,
} from "./request.ts";
import { scheduleConfig } from "./scheduler.ts";
import { loadTextEncoder } from "./text_encoder.ts";
import { Tokenizer } from "./tokenize.ts";
import { loadUnet } from "./unet.ts";
import { loadVae } from "./vae.ts";

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
  const known = typeof location === "string"
    ? embeddedModel(location)
    : undefined;
  await using folder = await openFolder(known ?? location, { signal }).catch(
    (error) => {
      const bare = typeof location === "string" && /^[\w.-]+$/.test(location);
      if (!(error instanceof WeightsError) || !bare) throw error;
      throw new WeightsError(
        `Cannot open model "${location}": it must be ${
          EMBEDDED_MODELS.join(" or ")
        }, or a diffusers folder: ${error.message}`,
        { cause: error },
      );
    },
  );
  const name = known ? String(location) : folder.name;
  const progress = (part: string) => (done: number, total: number): void =>
    onProgress?.(part, done, total);
  const [vocab, merges, config, specialTokens] = await Promise.all([
    folder.text("tokenizer/vocab.json", { signal }),
    folder.text("tokenizer/merges.txt", { signal }),
    folder.optionalText("tokenizer/tokenizer_config.json", { signal }),
    folder.optionalText("tokenizer/special_tokens_map.json", { signal }),
  ]);
  const tokenizer = Tokenizer.fromFiles({
    vocab,
    merges,
    ...(config === undefined ? {} : { config }),
    ...(specialTokens === undefined ? {} : { specialTokens }),
  });
  const scheduler = await folder.json("scheduler/scheduler_config.json", {
    signal,
  });
  const schedule = scheduleConfig(
    scheduler as Record<string, unknown>,
    `${name}/scheduler`,
  );
  const presetFile = await folder.optionalJson("winwinlay.json", { signal });
  const own = presetFile === undefined
    ? PAPER
    : checkPreset(presetFile, `${name}/winwinlay.json`);

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
    const multiple = pixelsPerCell(vae);
    const side = unet.config.sampleSize * multiple;
    return new Model(name, networks, {
      model: name,
      size: [side, side],
      multiple,
      presets: { model: own, paper: PAPER },
      mostSteps: schedule.trainSteps,
    }, parts);
  } catch (error) {
    for (const p of parts) p[Symbol.dispose]();
    throw error;
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
  check(
    request: GenerateRequest,
  ): { request: FullRequest; notes: string[]; matches: PhraseMatch[] } {
    const checked = checkRequest(request, this.limits);
    const { template, prompt, regions, negativePrompt } = checked.request;
    const { tokenizer } = this.networks;
    tokenizer.encode(negativePrompt);
    const matches = matchRegions(
      tokenizer,
      template.replace("{}", () => prompt),
      regions,
    );
    return { ...checked, matches };
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
