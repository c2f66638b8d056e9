/** What a checkpoint says of itself before its weights are read: configs, tokenizers, schedule, presets. */
import { EMBEDDED_MODELS, embeddedModel } from "../weights/embedded.ts";
import { WeightsError } from "../weights/errors.ts";
import type { ConfigOverrides } from "../weights/ldm_configs.ts";
import {
  cachedSnapshot,
  exists,
  hubCacheFolder,
  parseHubName,
  safeJoin,
} from "../weights/hub_cache.ts";
import type { Checkpoint } from "../weights/checkpoint.ts";
import { asJsonObject } from "../weights/json_file.ts";
import { openCheckpoint } from "../weights/open_checkpoint.ts";
import type { JsonObject } from "../weights/strict_json.ts";
import { checkTextFits } from "./conditioning.ts";
import { pixelsPerCell } from "./decode.ts";
import { WINWINLAY } from "./guidance/winwinlay.ts";
import type { PlannedModel } from "./memory.ts";
import { checkPreset, PAPER, type RequestLimits } from "./request.ts";
import {
  type Prediction,
  type ScheduleConfig,
  scheduleConfig,
} from "./schedule_config.ts";
import { textConfig } from "./text_encoder.ts";
import { Tokenizer } from "./tokenize.ts";
import { type UnetConfig, unetConfig } from "./unet_config.ts";
import { vaeConfig } from "./vae.ts";

/** How a checkpoint's files are read. */
export interface FileOptions {
  /** Which files of a folder to read. */
  readonly variant?: "fp16" | undefined;
  /** What the UNet of a single file predicts. Left out: what the file says of itself. */
  readonly prediction?: Prediction | undefined;
  /** Config values of a single file that its tensors do not show, such as heads and groups. */
  readonly configOverrides?: ConfigOverrides | undefined;
  /** Cancels. */
  readonly signal?: AbortSignal | undefined;
}

/** What a checkpoint says of itself before its weights are read. Made by `describeModel`. */
export interface ModelFacts extends PlannedModel {
  /** The embedded model's name or the folder's. */
  readonly name: string;
  /** Its tokenizer; SDXL has two. */
  readonly tokenizers: readonly Tokenizer[];
  /** Its noise schedule. */
  readonly schedule: ScheduleConfig;
  /** The shape of its UNet. */
  readonly unet: UnetConfig;
  /** What requests are checked against: own size, presets. */
  readonly limits: RequestLimits;
  /** Zeros stand for an empty negative prompt. */
  readonly zeroNegative: boolean;
  /** Bits of the UNet's numbers in its files. */
  readonly bits: 16 | 32;
}

/**
 * Reads a model's small files only: enough to check requests against it.
 *
 * @param location As in `open`.
 * @throws {WeightsError} If there is no such model or it is not supported.
 */
export async function describeModel(
  location: string | URL = "tiny-scenes",
  options: FileOptions = {},
): Promise<ModelFacts> {
  await using folder = await openModelFolder(location, options);
  return await readFacts(folder, location, options);
}

/**
 * Where `owner/name`, `owner/name@revision` or a file of it lies in the hub's cache.
 *
 * @returns Undefined for anything else, and for a path that is there.
 * @throws {WeightsError} If it was never pulled.
 */
export async function cachedLocation(
  location: string | URL,
): Promise<string | undefined> {
  if (typeof location !== "string" || await exists(location)) return undefined;
  const [, repo = location, file] =
    /^([^/]+\/[^/]+)\/(.+\.safetensors)$/.exec(location) ?? [];
  const name = parseHubName(repo);
  if (name === undefined) return undefined;
  const snapshot = await cachedSnapshot(name);
  const path = snapshot && file ? safeJoin(snapshot, file) : snapshot;
  if (path !== undefined && await exists(path)) return path;
  throw new WeightsError(
    `Cannot open model "${location}": it must be a path, or be in the cache ${hubCacheFolder()}: current one is neither; run \`weights pull ${repo}${
      file ? ` ${file}` : ""
    }\``,
  );
}

export async function openModelFolder(
  location: string | URL,
  { signal, prediction, configOverrides }: FileOptions,
): Promise<Checkpoint> {
  const known = typeof location === "string"
    ? embeddedModel(location)
    : undefined;
  const cached = known ?? await cachedLocation(location);
  try {
    return await openCheckpoint(cached ?? location, {
      signal,
      prediction,
      configOverrides,
    });
  } catch (cause) {
    const bare = typeof location === "string" && /^[\w.-]+$/.test(location);
    if (!(cause instanceof WeightsError) || !bare) throw cause;
    throw new WeightsError(
      `Cannot open model "${location}": it must be ${
        EMBEDDED_MODELS.join(" or ")
      }, a diffusers folder or a .safetensors file: ${cause.message}`,
      { cause },
    );
  }
}

export async function readFacts(
  folder: Checkpoint,
  location: string | URL,
  { signal, variant }: FileOptions,
): Promise<ModelFacts> {
  const embedded = typeof location === "string" &&
    embeddedModel(location) !== undefined;
  const cached = typeof location === "string" && folder.location !== location;
  const name = embedded || cached ? location : folder.name;
  const xl = /XLPipeline$/.test(String(folder.index["_class_name"]));
  const json = async (path: string): Promise<JsonObject> =>
    asJsonObject(await folder.json(path, { signal }), `${name}/${path}`);
  const parts = [
    "text_encoder",
    ...(xl ? ["text_encoder_2"] : []),
    "unet",
    "vae",
  ];
  const configs: Record<string, JsonObject> = {};
  for (const part of parts) {
    // optimum keeps the decoder's config beside its export
    const other = part === "vae"
      ? await folder.optionalJson("vae_decoder/config.json", { signal })
      : undefined;
    const own = `${part}/config.json`;
    configs[part] = other !== undefined &&
        await folder.optionalJson(own, { signal }) === undefined
      ? asJsonObject(other, `${name}/vae_decoder/config.json`)
      : await json(own);
  }
  const scheduler = await json("scheduler/scheduler_config.json");
  const unet = unetConfig(configs["unet"]!, `${name}/unet`);
  const vae = vaeConfig(configs["vae"]!, `${name}/vae`);
  if (xl !== (unet.added !== undefined)) {
    throw new WeightsError(
      `Cannot use ${name}: pipeline and UNet must both be SDXL's or neither: current _class_name is ${
        folder.index["_class_name"]
      } and addition_embed_type ${unet.added ? "text_time" : "none"}`,
    );
  }
  const encoders = parts.filter((part) => part.startsWith("text_encoder"))
    .map((part) => textConfig(configs[part]!, `${name}/${part}`));
  checkTextFits(name, encoders, unet);
  const presetFile = await folder.optionalJson("winwinlay.json", { signal });
  const weights = await folder.component("unet", { signal, variant });
  const halves = [...weights.tensors.values()].every(({ dtype }) =>
    dtype !== "F32"
  );
  try {
    const schedule = scheduleConfig(scheduler, `${name}/scheduler`);
    const multiple = pixelsPerCell({ config: vae });
    const side = unet.sampleSize * multiple;
    const own = {
      ...PAPER,
      guidanceScale: xl ? SDXL_SCALE : PAPER.guidanceScale,
      guidance: { ...PAPER.guidance, ...WINWINLAY.defaultsFor?.(unet) },
    };
    return {
      name,
      configs,
      tokenizers: await Promise.all(
        (xl ? ["tokenizer", "tokenizer_2"] : ["tokenizer"]).map((part) =>
          readTokenizer(folder, part, signal)
        ),
      ),
      schedule,
      unet,
      zeroNegative: xl && folder.index["force_zeros_for_empty_prompt"] === true,
      bits: halves ? 16 : 32,
      limits: {
        model: name,
        size: [side, side],
        multiple,
        presets: {
          model: presetFile === undefined
            ? own
            : checkPreset(presetFile, `${name}/winwinlay.json`, own),
          paper: PAPER,
        },
        mostSteps: schedule.trainSteps,
        takesSizes: xl,
        unet,
      },
    };
  } catch (cause) {
    if (cause instanceof WeightsError) throw cause;
    // Plain errors of the readers: here it is the model's files that are wrong.
    throw new WeightsError((cause as Error).message, { cause });
  }
}

/** Scale of classifier-free guidance for SDXL: diffusers' default for it. */
const SDXL_SCALE = 5;

async function readTokenizer(
  folder: Checkpoint,
  part: string,
  signal: AbortSignal | undefined,
): Promise<Tokenizer> {
  const [vocab, merges, config, specialTokens] = await Promise.all([
    folder.text(`${part}/vocab.json`, { signal }),
    folder.text(`${part}/merges.txt`, { signal }),
    folder.optionalText(`${part}/tokenizer_config.json`, { signal }),
    folder.optionalText(`${part}/special_tokens_map.json`, { signal }),
  ]);
  return Tokenizer.fromFiles({
    vocab,
    merges,
    ...(config === undefined ? {} : { config }),
    ...(specialTokens === undefined ? {} : { specialTokens }),
  });
}
