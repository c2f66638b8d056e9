/**
 * prompt -> what the UNet is conditioned on: text states, and for SDXL the pooled text with the sizes
 * that its training pictures had.
 */
import type { Tensor } from "../kernels/backend.ts";
import { concatChannels, stackBatch } from "../kernels/concat.ts";
import { WeightsError } from "../weights/errors.ts";
import {
  onnxPenultimate,
  onnxStates,
  type OnnxTextEncoder,
} from "./onnx_parts.ts";
import {
  encodePenultimate,
  encodeText,
  type TextConfig,
  type TextEncoder,
} from "./text_encoder.ts";
import type { TextContext } from "./transformer.ts";
import { sinusoid } from "./timestep.ts";
import type { Tokenizer } from "./tokenize.ts";

/** What a UNet pass is conditioned on: text states, and for SDXL more. */
export interface Conditioning extends TextContext {
  /** SDXL: pooled text and embedded sizes, `[batch, added channels, 1]`. */
  readonly added?: Tensor | undefined;
}

/** Channels of what SDXL adds to the time embedding. */
export interface AddedChannels {
  /** Of the pooled text. */
  readonly pooled: number;
  /** Of the sinusoid of each of six sizes. */
  readonly timeChannels: number;
}

/** A tokenizer with its text encoder; SDXL has two. */
export interface TextStage {
  /** Text to ids. */
  readonly tokenizer: Tokenizer;
  /** Ids to states. */
  readonly encoder: TextEncoder | OnnxTextEncoder;
}

/** Sizes that SDXL is told, in pixels. */
export interface MicroConditioning {
  /** `[width, height]` of the picture before it was cropped and scaled. */
  readonly originalSize: readonly [number, number];
  /** `[left, top]` of the crop. */
  readonly cropTopLeft: readonly [number, number];
  /** `[width, height]` of the result. */
  readonly targetSize: readonly [number, number];
}

/** How a prompt becomes a conditioning. */
export interface PromptOptions {
  /** Of the UNet that takes it. */
  readonly added: AddedChannels | undefined;
  /** Needed where `added` is. */
  readonly sizes: MicroConditioning;
  /** Keep what fits of a text that is too long. */
  readonly truncate?: boolean | undefined;
  /** Zeros instead of an encoded text, as SDXL wants for an empty negative prompt. */
  readonly zeros?: boolean | undefined;
}

/**
 * Encodes one prompt.
 *
 * SD1.x and SD2.x: the last states of the one encoder after its final LayerNorm. SDXL: the states
 * before the last layer of both encoders, side by side, and the pooled text of the second.
 *
 * @param stages One, or two for SDXL.
 * @returns Batch 1. The caller frees it with `freeConditioning`.
 * @throws {RangeError} If the text is too long for a tokenizer.
 * @see Podell et al. 2023, arXiv:2307.01952; diffusers `StableDiffusionXLPipeline.encode_prompt`.
 */
export async function encodePrompt(
  stages: readonly TextStage[],
  prompt: string,
  { added, sizes, truncate = false, zeros = false }: PromptOptions,
): Promise<Conditioning> {
  const ids = stages.map(({ tokenizer }) =>
    tokenizer.encode(prompt, { truncate }).ids
  );
  const [first, second] = stages;
  if (!added) return { states: await lastStates(first!.encoder, ids[0]!) };
  const { backend } = first!.encoder;
  using one = (await penultimate(first!.encoder, ids[0]!, false)).states;
  const two = await penultimate(second!.encoder, ids[1]!, true);
  using other = two.states;
  using pooled = two.pooled!;
  const states = concatChannels(one, other);
  if (!zeros) return { states, added: withSizes(pooled, added, sizes) };
  using _unused = states;
  using nothing = backend.upload(new Float32Array(pooled.size), pooled.shape);
  return {
    states: backend.upload(new Float32Array(states.size), states.shape),
    added: withSizes(nothing, added, sizes),
  };
}

async function lastStates(
  encoder: TextStage["encoder"],
  ids: Int32Array,
): Promise<Tensor> {
  return "network" in encoder
    ? await onnxStates(encoder, ids)
    : encodeText(encoder, [ids]);
}

async function penultimate(
  encoder: TextStage["encoder"],
  ids: Int32Array,
  pool: boolean,
): Promise<{ readonly states: Tensor; readonly pooled: Tensor | undefined }> {
  return "network" in encoder
    ? await onnxPenultimate(encoder, ids, pool)
    : encodePenultimate(encoder, ids, pool);
}

/**
 * Pooled text and the six sizes, each as a sinusoid, in the order of diffusers' `time_ids`: original
 * height and width, crop top and left, target height and width.
 *
 * @param pooled `[1, pooled channels, 1]`.
 * @returns `[1, pooled channels + 6 time channels, 1]`.
 */
export function withSizes(
  pooled: Tensor,
  added: AddedChannels,
  { originalSize, cropTopLeft, targetSize }: MicroConditioning,
): Tensor {
  const ids = [originalSize, cropTopLeft, targetSize].flatMap(([x, y]) => [
    y,
    x,
  ]);
  return withTimeIds(pooled, added, ids);
}

/** `withSizes` for given `time_ids`, `6 batch` numbers. */
export function withTimeIds(
  pooled: Tensor,
  { timeChannels }: AddedChannels,
  ids: ArrayLike<number>,
): Tensor {
  const waves = Float32Array.from(
    Array.from(ids).flatMap((id) => [
      ...sinusoid(id, timeChannels, { flipSinToCos: true, freqShift: 0 }),
    ]),
  );
  const [batch = 1] = pooled.shape;
  using sizes = pooled.backend.upload(waves, [batch, waves.length / batch, 1]);
  return concatChannels(pooled, sizes);
}

/**
 * Checks that a UNet takes what the text encoders give, before any weight is read.
 *
 * @param name Of the model, for messages.
 * @param encoders One, or two for SDXL.
 * @throws {WeightsError} If channels of states or of the pooled text differ.
 */
export function checkTextFits(
  name: string,
  encoders: readonly Pick<TextConfig, "channels" | "projection">[],
  { text, added }: {
    readonly text: number;
    readonly added: AddedChannels | undefined;
  },
): void {
  const states = encoders.map(({ channels }) => channels);
  if (states.reduce((a, b) => a + b, 0) !== text) {
    throw new WeightsError(
      `Cannot use ${name}: the UNet's cross_attention_dim must be the channels of the text states, ${
        states.join(" + ")
      }: current ${text}`,
    );
  }
  const pooled = encoders.at(-1)!.projection;
  if (added && added.pooled !== pooled) {
    throw new WeightsError(
      `Cannot use ${name}: the UNet's projection_class_embeddings_input_dim must be projection_dim of the second text encoder and 6 times addition_time_embed_dim, ${pooled} + 6 * ${added.timeChannels}: current ${
        added.pooled + 6 * added.timeChannels
      }`,
    );
  }
}

/** Two conditionings as one batch for many passes, for classifier-free guidance. */
export function stackConditioning(
  a: Conditioning,
  b: Conditioning,
): Conditioning {
  return {
    states: stackBatch([a.states, b.states]),
    added: a.added && b.added && stackBatch([a.added, b.added]),
    projected: new Map(),
  };
}

/** Frees all its tensors. */
export function freeConditioning(
  { states, added, projected }: Conditioning,
): void {
  states.dispose();
  added?.dispose();
  for (const { k, v } of projected?.values() ?? []) {
    k.dispose();
    v.dispose();
  }
}

/**
 * The same conditioning for many passes: the keys and values of its text are computed in the first and
 * kept. It has its own hold on the tensors.
 */
export function repeatedConditioning(
  { states, added }: Conditioning,
): Conditioning & Disposable {
  return heldConditioning({
    states: states.retain(),
    added: added?.retain(),
    projected: new Map(),
  });
}

/** For `using`. */
export function heldConditioning(
  c: Conditioning,
): Conditioning & Disposable {
  return { ...c, [Symbol.dispose]: () => freeConditioning(c) };
}
