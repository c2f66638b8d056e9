/** The parts of a checkpoint -> networks on a backend; text encoders and decoder may be ONNX exports. */
import type { Backend, StorageType } from "../kernels/backend.ts";
import type { Checkpoint } from "../weights/checkpoint.ts";
import type { Component, ComponentName } from "../weights/component.ts";
import { MissingFileError, WeightsError } from "../weights/errors.ts";
import type { JsonObject } from "../weights/strict_json.ts";
import type { TextStage } from "./conditioning.ts";
import {
  type OnnxDecoder,
  openOnnxDecoder,
  openOnnxText,
} from "./onnx_parts.ts";
import { hasOnnx } from "./onnx_session.ts";
import type { LoadOptions, Scratch } from "./weight_source.ts";
import { loadTextEncoder } from "./text_encoder.ts";
import type { Tokenizer } from "./tokenize.ts";
import { loadVae, type Vae } from "./vae.ts";

/** Parts that may run from ONNX exports: no gradient goes through them. */
export const ONNX_PARTS = ["text_encoder", "text_encoder_2", "vae"] as const;

/** One of them. */
export type OnnxPart = typeof ONNX_PARTS[number];

/** Where the weights of a model are, and how they are stored. */
export interface LoadFrom {
  /** The checkpoint. */
  readonly folder: Checkpoint;
  /** What its small files say. */
  readonly facts: {
    readonly name: string;
    readonly configs: Readonly<Record<string, JsonObject>>;
    readonly tokenizers: readonly Tokenizer[];
  };
  /** Where the networks go. */
  readonly backend: Backend;
  /** How weights are stored. */
  readonly weights: StorageType;
  /** Which files. */
  readonly variant: "fp16" | undefined;
  /** Parts to run from ONNX though there are safetensors. */
  readonly onnx: readonly OnnxPart[];
  /** Shared by the parts. */
  readonly scratch?: Scratch | undefined;
}

/** Cancelling and progress. */
export interface LoadControl {
  /** Cancels. */
  readonly signal?: AbortSignal | undefined;
  /** Called while weights load. */
  readonly onProgress?:
    | ((part: string, done: number, total: number) => void)
    | undefined;
}

/** Loads one component. */
export async function loadPart<T>(
  { folder, backend, weights, variant, scratch }: LoadFrom,
  kind: ComponentName,
  load: (
    backend: Backend,
    source: Component,
    options: LoadOptions,
  ) => Promise<T>,
  { signal, onProgress }: LoadControl,
): Promise<T> {
  return await load(
    backend,
    await folder.component(kind, { signal, variant }),
    {
      storage: weights,
      scratch,
      signal,
      onTensor: (done, total) => onProgress?.(kind, done, total),
    },
  );
}

/** One encoder for each tokenizer. */
export async function loadText(
  from: LoadFrom,
  options: LoadControl,
): Promise<TextStage[]> {
  const stages: TextStage[] = [];
  try {
    for (const [i, tokenizer] of from.facts.tokenizers.entries()) {
      stages.push({ tokenizer, encoder: await loadEncoder(from, i, options) });
    }
    return stages;
  } catch (error) {
    for (const { encoder } of stages) encoder[Symbol.dispose]();
    throw error;
  }
}

async function loadEncoder(
  from: LoadFrom,
  index: number,
  options: LoadControl,
): Promise<TextStage["encoder"]> {
  const part = index === 0 ? "text_encoder" : "text_encoder_2";
  const { facts: { name, configs }, folder: { location }, backend } = from;
  if (await runsOnnx(from, part, options)) {
    const config = configs[part]!;
    return await openOnnxText(backend, part, {
      location,
      config,
      name,
      signal: options.signal,
    });
  }
  return await loadPart(
    from,
    part,
    (b, source, o) =>
      index === 0
        ? loadTextEncoder(b, source, o)
        : loadTextEncoder(b, source, { ...o, projection: true }),
    options,
  );
}

/** The decoder, and the encoder if it is asked for. */
export async function loadDecoder(
  from: LoadFrom,
  options: LoadControl & { readonly encoder?: boolean | undefined },
): Promise<Vae | OnnxDecoder> {
  const { facts: { name, configs }, folder: { location }, backend } = from;
  if (await runsOnnx(from, "vae", options)) {
    if (options.encoder) {
      throw new WeightsError(
        `Cannot load the encoder of ${name}: its VAE must be in safetensors: current one is an ONNX decoder`,
      );
    }
    const config = configs["vae"]!;
    const { signal } = options;
    return await openOnnxDecoder(backend, { location, config, name, signal });
  }
  return await loadPart(
    from,
    "vae",
    (b, source, o) =>
      loadVae(b, source, { ...o, encoder: options.encoder ?? false }),
    options,
  );
}

/** Whether a part runs from its export: it was asked for, or there is nothing else. */
async function runsOnnx(
  { folder, facts, onnx, variant }: LoadFrom,
  part: OnnxPart,
  { signal }: LoadControl,
): Promise<boolean> {
  const absent = onnx.find((wanted) => facts.configs[wanted] === undefined);
  if (absent !== undefined) {
    throw new WeightsError(
      `Cannot run ${absent} of ${facts.name} from ONNX: it must be a part of the model: current parts are ${
        Object.keys(facts.configs).join(", ")
      }`,
    );
  }
  const place = part === "vae" ? "vae_decoder" : part;
  const there = !folder.singleFile &&
    await hasOnnx(folder.location, place, { signal });
  if (onnx.includes(part) && !there) {
    throw new WeightsError(
      `Cannot run ${part} of ${facts.name} from ONNX: ${place}/model.onnx must exist: current checkpoint has none`,
    );
  }
  if (!there || onnx.includes(part)) return there;
  if (part === "vae" && folder.index["vae"] === undefined) return true;
  try {
    const component = await folder.component(part, { signal, variant });
    await component.close();
    return false;
  } catch (error) {
    if (error instanceof MissingFileError) return true;
    throw error;
  }
}
