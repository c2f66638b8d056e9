/**
 * Will it fit? Runs a request on the plan backend, where nothing is computed and every byte is counted,
 * and picks the fastest way of running it that fits.
 */
import type {
  Backend,
  KernelFamily,
  PlannedKernel,
  StorageType,
} from "../kernels/backend.ts";
import { DeviceMemoryError } from "../kernels/errors.ts";
import type { MatrixUnits } from "../kernels/matrix_units.ts";
import { Plan } from "../kernels/plan.ts";
import type { JsonObject } from "../weights/strict_json.ts";
import {
  type Networks,
  paint,
  type PhaseMemory,
  type RunMemory,
} from "./generate.ts";
import type { WeightSource } from "./weight_source.ts";
import type { FullRequest } from "./request.ts";
import type { ScheduleConfig } from "./schedule_config.ts";
import { loadTextEncoder } from "./text_encoder.ts";
import type { Tokenizer } from "./tokenize.ts";
import { loadUnet } from "./unet.ts";
import { loadVae } from "./vae.ts";

/** What of a model a plan needs: no weights. */
export interface PlannedModel {
  /** For messages. */
  readonly name: string;
  /** `config.json` by component. */
  readonly configs: Readonly<Record<string, JsonObject>>;
  /** One, or SDXL's two. */
  readonly tokenizers: readonly Tokenizer[];
  /** Of its scheduler. */
  readonly schedule: ScheduleConfig;
  /** See `Networks`. Default false. */
  readonly zeroNegative?: boolean;
}

/** How a run trades speed for memory, weights included. */
export interface MemoryChoice extends RunMemory {
  /** How weights are stored. */
  readonly weights: StorageType;
}

/** A choice, and what it takes. */
export interface MemoryEstimate extends PhaseMemory {
  /** The choice. */
  readonly choice: MemoryChoice;
  /** The most of all phases. */
  readonly peakBytes: number;
  /** The largest tensor, which the adapter must be able to bind. */
  readonly largestTensorBytes: number;
  /** What the device must compile. */
  readonly kernels: readonly PlannedKernel[];
}

/** What a device offers. */
export interface MemoryLimits {
  /** Bytes that may be taken; undefined where nobody knows. */
  readonly bytes?: number | undefined;
  /** Most bytes of one tensor. */
  readonly maxTensorBytes: number;
  /** Which kernels run there: they hold different things. Default software. */
  readonly family?: KernelFamily;
  /** Its matrix units, if they are used. */
  readonly matrix?: MatrixUnits | undefined;
  /** Its `Backend.halfTiles`, which says what must be compiled. Default false. */
  readonly halfTiles?: boolean;
}

/** Latent cells along a tile's side that are tried, after the whole. Smaller ones show seams. */
const TILES = [64, 56, 48, 40, 32, 24];

/**
 * The networks of a model on a plan: sizes without numbers.
 *
 * @throws {DeviceMemoryError} If one tensor is more than the plan's limit.
 */
export async function planNetworks(
  plan: Plan,
  { configs, tokenizers, schedule, zeroNegative = false }: PlannedModel,
  weights: StorageType,
): Promise<Networks> {
  const source = (part: string): WeightSource & { config: JsonObject } => ({
    name: part,
    config: configs[part]!,
    tensors: new Map(),
    read: () => Promise.reject(new Error("a plan reads nothing")),
    collect: () => {},
  });
  const options = { storage: weights };
  const text = await Promise.all(
    tokenizers.map(async (tokenizer, i) => ({
      tokenizer,
      encoder: await loadTextEncoder(
        plan,
        source(i === 0 ? "text_encoder" : `text_encoder_${i + 1}`),
        { ...options, projection: i > 0 },
      ),
    })),
  );
  return {
    backend: plan,
    text,
    unet: await loadUnet(plan, source("unet"), options),
    vae: await loadVae(plan, source("vae"), options),
    schedule,
    zeroNegative,
    freeText: () => {
      for (const { encoder } of text) encoder[Symbol.dispose]();
    },
  };
}

/**
 * What a request takes in a given way.
 *
 * @throws {DeviceMemoryError} If one tensor is more than the adapter can bind.
 */
export async function estimateMemory(
  model: PlannedModel,
  request: FullRequest,
  choice: MemoryChoice,
  { maxTensorBytes, family, matrix, halfTiles = false }: MemoryLimits = {
    maxTensorBytes: Infinity,
  },
): Promise<MemoryEstimate> {
  using plan = new Plan(maxTensorBytes, family, matrix);
  plan.halfTiles = halfTiles;
  const networks = await planNetworks(plan, model, choice.weights);
  // Steps are alike, and a guided one has also what one without guidance has.
  const short: FullRequest = {
    ...request,
    steps: Math.min(2, request.steps),
    // Seeds are alike too: from the third one on, each finds what one left that was sampled beside the best before it.
    ...(request.bestOf === undefined
      ? {}
      : { bestOf: Math.min(3, request.bestOf) }),
  };
  const { report } = await paint(networks, short, { memory: choice });
  return {
    ...report.memory,
    choice,
    peakBytes: report.peakBytes,
    largestTensorBytes: plan.largestTensorBytes,
    kernels: plan.kernels,
  };
}

/**
 * The fastest way that fits: float32 weights where that is allowed, both branches of classifier-free
 * guidance at once, nothing run twice, no tiles; giving these up one after the other.
 *
 * @param weights Storage types that may be used, the preferred one first.
 * @throws {DeviceMemoryError} If nothing fits; says what the least is.
 */
export async function chooseMemory(
  model: PlannedModel,
  request: FullRequest,
  limits: MemoryLimits,
  weights: readonly StorageType[],
): Promise<MemoryEstimate> {
  let least: MemoryEstimate | undefined;
  let unbound: DeviceMemoryError | undefined;
  const { bytes = Infinity } = limits;
  const ways = weights.flatMap((type) =>
    [false, true].map((freeText) => ({ type, freeText }))
  );
  for (const { type, freeText } of ways) {
    // What is given up, step by step; sampling and decoding do not depend on each other.
    const samplings: RunMemory[] = [{ together: true, recompute: false }];
    if (freeText) { // loading the text encoders again costs less than all of these
      samplings.push(
        { together: true, recompute: true },
        { together: false, recompute: false },
        { together: false, recompute: true },
      );
    }
    const tiles = [undefined, ...TILES];
    while (true) {
      const choice = {
        weights: type,
        freeText,
        ...samplings[0],
        tile: tiles[0],
      };
      let found: MemoryEstimate | undefined;
      try {
        found = await estimateMemory(
          model,
          request,
          choice,
          limits,
        );
      } catch (error) {
        if (!(error instanceof DeviceMemoryError)) throw error;
        unbound = error;
      }
      if (found && found.peakBytes <= bytes) return found;
      if (found && !(least && least.peakBytes <= found.peakBytes)) {
        least = found;
      }
      // Which of the two was more than can be bound? The smallest tile tells.
      const smallest = { ...choice, tile: TILES.at(-1) };
      const decoding = found
        ? found.decoding > bytes
        : await fitsBinding(model, request, smallest, limits);
      const sampling = found
        ? Math.max(found.sampling, found.text) > bytes
        : !decoding;
      const before = samplings.length + tiles.length;
      if (decoding && tiles.length > 1) tiles.shift();
      if (sampling && samplings.length > 1) samplings.shift();
      if (samplings.length + tiles.length === before) break;
    }
  }
  throw least ? tooMuch(model, request, least, bytes) : unbound!;
}

async function fitsBinding(
  model: PlannedModel,
  request: FullRequest,
  choice: MemoryChoice,
  limits: MemoryLimits,
): Promise<boolean> {
  try {
    await estimateMemory(model, request, choice, limits);
    return true;
  } catch (error) {
    if (error instanceof DeviceMemoryError) return false;
    throw error;
  }
}

function tooMuch(
  { name }: PlannedModel,
  { width, height }: FullRequest,
  least: MemoryEstimate,
  bytes: number,
): DeviceMemoryError {
  const gb = (n: number): string => `${(n / 1e9).toFixed(2)} GB`;
  return new DeviceMemoryError(
    `Cannot paint ${width}x${height} with ${name}: it must fit ${
      gb(bytes)
    } of device memory: current least is ${gb(least.peakBytes)} (weights ${
      gb(least.weights)
    } as ${least.choice.weights}, sampling ${
      gb(least.sampling - least.weights)
    }, decoding ${
      gb(least.decoding - least.weights)
    }); choose a smaller size, or a larger --memory if the device has more`,
  );
}

/** Storage types to try for a checkpoint whose numbers have so many bits, the preferred one first. */
export function storageTypes(
  asked: "auto" | StorageType,
  weightBytes: number,
  bits: 16 | 32,
): readonly StorageType[] {
  if (asked !== "auto") return [asked];
  // Small models gain nothing; large ones in 16 bits are the same numbers in half the bytes.
  if (weightBytes <= SMALL_BYTES) return ["f32", "f16"];
  return bits === 16 ? ["f16"] : ["f32", "f16"];
}

/** Models whose weights are below this are kept in float32, which is a little faster. */
const SMALL_BYTES = 512 * 2 ** 20;

/** Binding limit and kernels of a backend, and bytes it may take. */
export function limitsOf(
  backend: Backend,
  bytes: number | undefined,
): MemoryLimits {
  const { maxTensorBytes, family, matrix, halfTiles } = backend;
  return { maxTensorBytes, family, matrix, halfTiles, bytes };
}
