/** Opens a checkpoint: the embedded model, a diffusers folder or a single file, on disk or over http. */
import type { DeviceChoice } from "../kernels/adapter.ts";
import type { Backend, StorageType } from "../kernels/backend.ts";
import { Cpu } from "../kernels/cpu.ts";
import { NoDeviceError } from "../kernels/errors.ts";
import { chooseFamily, type KernelChoice } from "../kernels/family.ts";
import { WebGpu } from "../kernels/webgpu.ts";
import type { TextStage } from "./conditioning.ts";
import {
  generate,
  type GenerateOptions,
  type GenerateResult,
  type Networks,
} from "./generate.ts";
import { methodOf } from "./guidance/methods.ts";
import { unlessAborted } from "../weights/unless_aborted.ts";
import { checkObject } from "./check_values.ts";
import type { MemoryEstimate, MemoryLimits } from "./memory.ts";
import { Scratch } from "./weight_source.ts";
import type { FullRequest, GenerateRequest, RequestLimits } from "./request.ts";
import {
  loadDecoder,
  type LoadFrom,
  loadPart,
  loadText,
  type OnnxPart,
} from "./load_parts.ts";
import { shapeBoxes } from "./shape.ts";
import { loadUnet } from "./unet.ts";
import {
  type FileOptions,
  type ModelFacts,
  openModelFolder,
  readFacts,
} from "./model_facts.ts";
import {
  type CheckedRequest,
  checkForModel,
  memoryLimits,
  type MemoryOptions,
  planAhead,
  planMemory,
} from "./model_request.ts";

/** Options of `open`. */
export interface OpenOptions extends FileOptions, MemoryOptions {
  /** `webgpu`, `cpu` (the slow references), or `auto`: WebGPU where there is an adapter, else cpu. Default auto. */
  readonly backend?: "auto" | "webgpu" | "cpu" | Backend | undefined;
  /** `native` is the runtime's own WebGPU, `dawn` the npm package `webgpu`. */
  readonly device?: DeviceChoice | undefined;
  /**
   * `gpu` or `software` kernels on WebGPU, or `auto`: what suits the adapter. `matrix` is `gpu` with the UNet's
   * products in 16 bits, on Dawn and GPUs with matrix units. Default auto.
   */
  readonly kernels?: KernelChoice | undefined;
  /**
   * Parts to run from their ONNX exports though there are safetensors too. Parts that have only an ONNX
   * export run from it anyway.
   */
  readonly onnx?: readonly OnnxPart[] | undefined;
  /** Load the VAE's encoder too. Default false. */
  readonly encoder?: boolean | undefined;
  /** Called while weights load, with the tensors of the part that are there and its tensors in all. */
  readonly onProgress?:
    | ((part: string, done: number, total: number) => void)
    | undefined;
}

/** Opens the backend that `options` ask for. */
export async function openBackend(
  options: Pick<OpenOptions, "backend" | "device" | "kernels"> = {},
): Promise<Backend> {
  const { backend = "auto", device, kernels } = options;
  if (typeof backend === "object") return backend;
  if (backend === "cpu" && kernels === "matrix") {
    throw new NoDeviceError(
      "Cannot multiply by matrix units on cpu: they belong to GPUs; leave --kernels or --backend out",
    );
  }
  const cpu = () =>
    new Cpu(chooseFamily({ isFallbackAdapter: true }, kernels).family);
  if (backend === "cpu") return cpu();
  try {
    return await WebGpu.open({ device, kernels });
  } catch (error) {
    // Asked for by name: its absence is an error, not a reason to be slow.
    const asked = backend === "webgpu" || device || kernels === "matrix";
    if (asked || !(error instanceof NoDeviceError)) throw error;
    return cpu();
  }
}

/**
 * Opens a model.
 *
 * @param location A name of `EMBEDDED_MODELS`, a diffusers folder, a `.safetensors` file with a whole pipeline, the URL of either, or `owner/name` in the hub's cache.
 * @returns The model; dispose it to free the device.
 * @throws {WeightsError} If there is no such model or it does not fit what is supported.
 * @throws {NoDeviceError} If WebGPU was asked for and there is no adapter.
 * @throws {DeviceMemoryError} If its weights do not fit the device.
 * @throws The reason of `options.signal`.
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
  checkOptions(options);
  const { signal, variant, onProgress } = options;
  await using folder = await openModelFolder(location, options);
  const facts = await readFacts(folder, location, { signal, variant });

  const backend = await openBackend(options);
  const parts: Disposable[] = typeof options.backend === "object"
    ? []
    : [backend];
  let compiled = Promise.resolve();
  try {
    let limits = await memoryLimits(backend, options);
    let plan = await planAhead(facts, limits, options);
    const weights = plan?.choice.weights ?? options.weights as StorageType;
    const { halfTiles } = backend;
    await backend.tuneFor(weights);
    if (backend.halfTiles !== halfTiles) { // the same bytes by other kernels
      limits = { ...limits, halfTiles: backend.halfTiles };
      plan = await planAhead(facts, limits, options);
    }
    compiled = backend.prepare(plan?.kernels ?? []);
    compiled.catch(() => {}); // said below, once the weights are there
    const { onnx = [] } = options;
    const from: LoadFrom = { folder, facts, backend, weights, variant, onnx };
    const first = { ...from, scratch: new Scratch() };
    const text = await loadText(first, { signal, onProgress });
    parts.unshift(...text.map(({ encoder }) => encoder));
    const unet = await loadPart(first, "unet", loadUnet, {
      signal,
      onProgress,
    });
    parts.unshift(unet);
    const vae = await loadDecoder(first, options);
    parts.unshift(vae);
    await compiled;
    await backend.read([], { signal }); // an error, if weights found no room
    backend.trim(); // what loading needed
    const { schedule, zeroNegative } = facts;
    const networks = { backend, text, unet, vae, schedule, zeroNegative };
    const reload = async (
      signal: AbortSignal | undefined,
    ): Promise<TextStage[]> => {
      await using folder = await openModelFolder(location, {
        ...options,
        signal,
      });
      return await loadText({ ...from, folder }, { signal });
    };
    return new Model(facts, networks, { weights, limits, parts, reload });
  } catch (error) {
    await Promise.allSettled([compiled]); // it must not find its device gone
    for (const p of parts) p[Symbol.dispose]();
    throw error;
  }
}

/** What `open` gives a model besides its networks. */
export interface ModelParts {
  /** How weights are stored. */
  readonly weights: StorageType;
  /** What the device offers. */
  readonly limits: MemoryLimits;
  /** To dispose, the backend among them unless it was given. */
  readonly parts: readonly Disposable[];
  /** Loads the text encoders again. */
  readonly reload: (
    signal: AbortSignal | undefined,
  ) => Promise<readonly TextStage[]>;
}

/** A checkpoint on a backend, ready to paint. Made by `open`. */
export class Model implements AsyncDisposable, Disposable {
  /** The embedded model's name or the folder's. */
  readonly name: string;
  /** What its small files say. */
  readonly facts: ModelFacts;
  /** Its parts, for lower-level use. */
  readonly networks: Networks;
  /** How its weights are stored. */
  readonly weights: StorageType;
  readonly #limits: MemoryLimits;
  readonly #plans = new Map<string, MemoryEstimate>();
  readonly #parts: Set<Disposable>;
  readonly #reload: ModelParts["reload"];
  #text: readonly TextStage[] | undefined;
  #turn: Promise<void> = Promise.resolve();

  /** Use `open`. */
  constructor(
    facts: ModelFacts,
    networks: Networks,
    { weights, limits, parts, reload }: ModelParts,
  ) {
    this.name = facts.name;
    this.facts = facts;
    this.networks = networks;
    this.weights = weights;
    this.#text = networks.text;
    this.#limits = limits;
    this.#parts = new Set(parts);
    this.#reload = reload;
  }

  /** Where it runs. */
  get backend(): Backend {
    return this.networks.backend;
  }

  /** What requests are checked against: own size, presets. */
  get limits(): RequestLimits {
    return this.facts.limits;
  }

  /**
   * Checks a request without running it, and finds its phrases.
   *
   * @throws {TypeError | RangeError} If something is wrong; the message says what.
   */
  check(request: unknown): CheckedRequest {
    return checkForModel(request, this.facts);
  }

  /**
   * What a checked request will take, weights included, and how it will be run.
   *
   * @throws {DeviceMemoryError} If it cannot fit; says what the least is.
   */
  async plan(request: FullRequest): Promise<MemoryEstimate> {
    const { width, height, guidance, regions, truncate, bestOf } = request;
    const tokens = checkForModel(request, this.facts).matches.map((m) => [
      m.positions.length,
      m.ends.length,
    ]);
    // Methods made of boxes attend to the cells in them: more cells, more memory.
    const method = methodOf(guidance);
    const counted = !method || method.shapes !== undefined;
    const boxes = regions.map((r) => shapeBoxes(r)).map((list) =>
      counted ? list.length : list
    );
    const steps = Math.min(2, request.steps);
    const key = JSON.stringify(
      [width, height, guidance, tokens, boxes, truncate, steps, bestOf && 2],
    );
    let plan = this.#plans.get(key);
    if (!plan) {
      const { weights } = this;
      plan = await planMemory(this.facts, this.#limits, { weights, request });
      this.#plans.set(key, plan);
    }
    return plan;
  }

  /**
   * Paints. One picture at a time: a second call waits for the first, so no callback must wait for one.
   *
   * @throws {TypeError | RangeError} If the request is wrong; `check` tells it alone.
   * @throws {DeviceMemoryError} If it cannot fit the device, before anything is computed.
   * @throws {DeviceLostError} If the device goes away.
   * @throws The reason of `options.signal`, and what callbacks throw.
   */
  async generate(
    request: GenerateRequest,
    options: GenerateOptions = {},
  ): Promise<GenerateResult> {
    const { signal } = options;
    const { request: full, notes } = this.check(request);
    const before = this.#turn;
    const { promise: after, resolve: done } = Promise.withResolvers<void>();
    this.#turn = before.then(() => after);
    try {
      await unlessAborted(before, signal);
      if (this.#parts.size === 0) {
        throw new Error(
          `Cannot paint with ${this.name}: the model must be open: current one is disposed`,
        );
      }
      return await this.#paint(full, notes, options);
    } finally {
      done();
    }
  }

  async #paint(
    full: FullRequest,
    notes: readonly string[],
    options: GenerateOptions,
  ): Promise<GenerateResult> {
    const memory = options.memory ?? (await this.plan(full)).choice;
    const more = memory.tile === undefined ? [] : [
      `the picture is decoded in tiles of ${memory.tile} latent cells, which may differ slightly in colour`,
    ];
    const text = this.#text ??= await this.#loadText(options.signal);
    const freeText = (): void => {
      this.#text = undefined;
      for (const { encoder } of text) {
        this.#parts.delete(encoder);
        encoder[Symbol.dispose]();
      }
    };
    return await generate(
      { ...this.networks, text, freeText },
      full,
      [...notes, ...more],
      { ...options, memory },
    );
  }

  /** After `freeText`. */
  async #loadText(
    signal: AbortSignal | undefined,
  ): Promise<readonly TextStage[]> {
    const text = await this.#reload(signal);
    for (const { encoder } of text) this.#parts.add(encoder);
    this.backend.trim();
    return text;
  }

  /** Frees weights, and the device unless it was given. */
  [Symbol.dispose](): void {
    const parts = [...this.#parts];
    this.#parts.clear();
    // The backend last.
    for (const part of parts.filter((p) => p !== this.backend)) {
      part[Symbol.dispose]();
    }
    if (parts.includes(this.backend)) this.backend[Symbol.dispose]();
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
    return Promise.resolve();
  }
}

const BACKENDS = ["auto", "webgpu", "cpu"];
const OPTIONS = [
  "backend",
  "configOverrides",
  "device",
  "encoder",
  "kernels",
  "memoryBytes",
  "onProgress",
  "onnx",
  "prediction",
  "signal",
  "variant",
  "weights",
];

/** Throws for what would be ignored or fail far from here. */
function checkOptions(options: OpenOptions): void {
  const { backend = "auto", weights = "auto" } = checkObject(
    options,
    "options of open",
    OPTIONS,
  ) as OpenOptions;
  if (typeof backend === "string") checkChoice("backend", backend, BACKENDS);
  checkChoice("weights", weights, ["auto", "f32", "f16"]);
}

function checkChoice(
  key: string,
  value: string,
  choices: readonly string[],
): void {
  if (choices.includes(value)) return;
  throw new TypeError(
    `Cannot use options of open: ${key} must be ${
      choices.join(", ")
    }: current ${JSON.stringify(value)}`,
  );
}
