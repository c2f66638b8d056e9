/** A request against a model, before anything is loaded: its words, its shapes, its memory. */
import type { Backend, StorageType } from "../kernels/backend.ts";
import { deviceMemory } from "../kernels/device_memory.ts";
import { DeviceMemoryError } from "../kernels/errors.ts";
import { Plan } from "../kernels/plan.ts";
import { matchRegions } from "./generate.ts";
import { methodOf } from "./guidance/methods.ts";
import { defaultSites, guidedSites } from "./guidance/sites.ts";
import {
  chooseMemory,
  limitsOf,
  type MemoryEstimate,
  type MemoryLimits,
  planNetworks,
  storageTypes,
} from "./memory.ts";
import { promptOf } from "./metadata.ts";
import type { ModelFacts } from "./model_facts.ts";
import type { PhraseMatch } from "./phrase.ts";
import { checkRequest, type FullRequest } from "./request.ts";
import { checkCells } from "./shape.ts";
import { siteGrids } from "./unet_config.ts";

/** What is asked of a device's memory. */
export interface MemoryOptions {
  /**
   * How weights are stored on the device: `f32`, `f16` in half the bytes, or `auto`: f16 where the
   * checkpoint's numbers have 16 bits and it is large, or where f32 does not fit. Default auto.
   */
  readonly weights?: "auto" | StorageType | undefined;
  /** Bytes that may be taken from the device. Default what the system says is left, if it says so. */
  readonly memoryBytes?: number | undefined;
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
 * Checks a request against a model without running it, and finds its phrases.
 *
 * @throws {TypeError | RangeError} If something is wrong; the message says what.
 */
export function checkForModel(
  value: unknown,
  { limits, tokenizers, unet }: Pick<
    ModelFacts,
    "limits" | "tokenizers" | "unet"
  >,
): CheckedRequest {
  const checked = checkRequest(value, limits);
  const { regions, negativePrompt, truncate } = checked.request;
  const notes = [...checked.notes];
  const text = promptOf(checked.request);
  for (
    const [what, words] of [
      ["prompt", text],
      ["negative prompt", negativePrompt],
    ] as const
  ) {
    for (const tokenizer of tokenizers) {
      const { pieces, count } = tokenizer.encode(words, { truncate });
      const lost = pieces[count];
      if (lost && tokenizer === tokenizers[0]) {
        notes.push(
          `the ${what} was cut to ${count} tokens: ${
            JSON.stringify(words.slice(lost.start))
          } fell off`,
        );
      }
    }
  }
  const matches = matchRegions(tokenizers, text, regions, truncate);
  notes.push(...checkShapes(checked.request, { unet, limits }));
  return { ...checked, notes, matches };
}

/**
 * Checks a request's guidance and shapes against the network that they guide.
 *
 * @returns What to tell about boxes that are smaller than a cell.
 * @throws {RangeError} If a site is not there, or a region leaves no cell on a guided map.
 */
function checkShapes(
  { guidance, regions, width, height }: FullRequest,
  { unet, limits }: Pick<ModelFacts, "unet" | "limits">,
): string[] {
  const method = methodOf(guidance);
  method?.check(unet);
  if (!method) return [];
  const name = (i: number): string =>
    `region ${i} ${JSON.stringify(regions[i]!.phrase)}`;
  const { shapes } = method;
  const masked = shapes ? -1 : regions.findIndex(({ mask }) => mask);
  if (masked >= 0) {
    throw new RangeError(
      `Cannot guide mask of ${
        name(masked)
      } with ${guidance.method}: it must have boxes, which the energy of this method is made of: current shape is a mask; use winwinlay or layout-control`,
    );
  }
  // Methods made of boxes take the nearest cell for a box that has none.
  const sites = shapes?.sites(unet) ?? guidedSites(unet, defaultSites(unet));
  const grids = siteGrids(unet, sites, [
    width / limits.multiple,
    height / limits.multiple,
  ]);
  return regions.flatMap((region, i) =>
    checkCells(region, name(i), grids, shapes?.raster ?? "nearest")
  );
}

/** What a backend offers, as far as anybody knows. */
export async function memoryLimits(
  backend: Backend,
  { memoryBytes }: Pick<MemoryOptions, "memoryBytes"> = {},
): Promise<MemoryLimits> {
  // The references keep float64 where they like: their bytes are not planned.
  if (backend.kind === "cpu" && memoryBytes === undefined) {
    return { maxTensorBytes: Infinity };
  }
  return limitsOf(backend, memoryBytes ?? (await deviceMemory(backend))?.bytes);
}

/**
 * How a request is run within a device's memory, before anything is loaded.
 *
 * @param request A checked one; left out, a guided picture of the model's own size.
 * @throws {DeviceMemoryError} If it cannot fit; says what the least is.
 */
export async function planMemory(
  facts: ModelFacts,
  limits: MemoryLimits,
  options: Pick<MemoryOptions, "weights"> & {
    readonly request?: FullRequest | undefined;
  } = {},
): Promise<MemoryEstimate> {
  const request = options.request ?? checkRequest({
    prompt: "x",
    regions: [{ phrase: "x", tokens: [1], boxes: [[0, 0, 0.5, 0.5]] }],
    steps: 2,
  }, facts.limits).request;
  const bytes = await floatBytes(facts, limits);
  const types = storageTypes(options.weights ?? "auto", bytes, facts.bits);
  return await chooseMemory(facts, request, limits, types);
}

/**
 * The plan of the model's usual picture; undefined if it does not fit though the storage of weights was
 * asked for by name: whether a picture fits is then seen when its size is known.
 */
export async function planAhead(
  facts: ModelFacts,
  limits: MemoryLimits,
  options: MemoryOptions,
): Promise<MemoryEstimate | undefined> {
  try {
    return await planMemory(facts, limits, options);
  } catch (error) {
    const named = (options.weights ?? "auto") !== "auto";
    if (named && error instanceof DeviceMemoryError) return undefined;
    throw error;
  }
}

/** Bytes of the weights in float32. */
async function floatBytes(
  facts: ModelFacts,
  { family }: MemoryLimits,
): Promise<number> {
  using plan = new Plan(Infinity, family);
  const { text, unet, vae } = await planNetworks(plan, facts, "f32");
  const bytes = plan.memory.liveBytes;
  for (const x of [...text.map((t) => t.encoder), unet, vae]) {
    x[Symbol.dispose]();
  }
  return bytes;
}
