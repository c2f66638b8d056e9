/**
 * A tiny SDXL checkpoint with seeded weights, written as a diffusers folder: every part is there and
 * wired as in the published one, with few channels and a vocabulary of 522.
 *
 * `deno run -A tests/tiny_sdxl.ts FOLDER` writes it for other programs to read.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { Plan } from "../kernels/plan.ts";
import type { WeightSource } from "../pipeline/weight_source.ts";
import { loadTextEncoder } from "../pipeline/text_encoder.ts";
import { loadUnet } from "../pipeline/unet.ts";
import { loadVae } from "../pipeline/vae.ts";
import { rand } from "./compare.ts";
import {
  encodeSafetensors,
  type TensorData,
} from "./weights/encode_safetensors.ts";

type Config = Readonly<Record<string, unknown>>;

const MERGES = [
  ["r", "e"],
  ["re", "d</w>"],
  ["c", "a"],
  ["ca", "r</w>"],
  ["b", "l"],
  ["bl", "u"],
  ["blu", "e</w>"],
  ["!", "!</w>"],
] as const;

/** Pieces by id, as CLIP orders them: bytes, bytes that end a word, merges, the two special ones. */
function pieces(): string[] {
  const range = (from: number, to: number): number[] =>
    Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const printed = [...range(33, 126), ...range(161, 172), ...range(174, 255)];
  const others = 256 - printed.length;
  const bytes = [...printed, ...range(256, 255 + others)].map((c) =>
    String.fromCharCode(c)
  );
  return [
    ...bytes,
    ...bytes.map((b) => `${b}</w>`),
    ...MERGES.map((m) => m.join("")),
    "<|startoftext|>",
    "<|endoftext|>",
  ];
}

const PIECES = pieces();

const TEXT = {
  vocab_size: PIECES.length,
  max_position_embeddings: 77,
  layer_norm_eps: 1e-5,
  bos_token_id: 0,
  eos_token_id: 2,
  pad_token_id: 1,
};

/** Config of each network. */
export const TINY_SDXL: Readonly<Record<string, Config>> = {
  text_encoder: {
    ...TEXT,
    architectures: ["CLIPTextModel"],
    model_type: "clip_text_model",
    hidden_size: 16,
    intermediate_size: 48,
    projection_dim: 16,
    num_hidden_layers: 3,
    num_attention_heads: 2,
    hidden_act: "quick_gelu",
  },
  text_encoder_2: {
    ...TEXT,
    architectures: ["CLIPTextModelWithProjection"],
    model_type: "clip_text_model",
    hidden_size: 24,
    intermediate_size: 56,
    projection_dim: 32,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    hidden_act: "gelu",
  },
  // That of golden case unet-tiny-sdxl-32, with smaller pictures.
  unet: {
    _class_name: "UNet2DConditionModel",
    act_fn: "silu",
    addition_embed_type: "text_time",
    addition_time_embed_dim: 8,
    attention_head_dim: [2, 2, 4],
    block_out_channels: [16, 24, 32],
    cross_attention_dim: 40,
    down_block_types: [
      "DownBlock2D",
      "CrossAttnDownBlock2D",
      "CrossAttnDownBlock2D",
    ],
    layers_per_block: 2,
    norm_num_groups: 8,
    num_attention_heads: null,
    projection_class_embeddings_input_dim: 80,
    sample_size: 16,
    time_cond_proj_dim: null,
    transformer_layers_per_block: [1, 2, 3],
    up_block_types: [
      "CrossAttnUpBlock2D",
      "CrossAttnUpBlock2D",
      "UpBlock2D",
    ],
    upcast_attention: null,
    use_linear_projection: true,
  },
  vae: {
    _class_name: "AutoencoderKL",
    act_fn: "silu",
    block_out_channels: [8, 16, 16],
    down_block_types: Array(3).fill("DownEncoderBlock2D"),
    force_upcast: true,
    latents_mean: null,
    latents_std: null,
    layers_per_block: 1,
    norm_num_groups: 4,
    sample_size: 64,
    scaling_factor: 0.13025,
    up_block_types: Array(3).fill("UpDecoderBlock2D"),
  },
};

const SCHEDULER = {
  _class_name: "EulerDiscreteScheduler",
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  beta_start: 0.00085,
  clip_sample: false,
  interpolation_type: "linear",
  num_train_timesteps: 1000,
  prediction_type: "epsilon",
  sample_max_value: 1.0,
  set_alpha_to_one: false,
  skip_prk_steps: true,
  steps_offset: 1,
  timestep_spacing: "leading",
  trained_betas: null,
  use_karras_sigmas: false,
};

const INDEX = {
  _class_name: "StableDiffusionXLPipeline",
  force_zeros_for_empty_prompt: true,
  scheduler: ["diffusers", "EulerDiscreteScheduler"],
  text_encoder: ["transformers", "CLIPTextModel"],
  text_encoder_2: ["transformers", "CLIPTextModelWithProjection"],
  tokenizer: ["transformers", "CLIPTokenizer"],
  tokenizer_2: ["transformers", "CLIPTokenizer"],
  unet: ["diffusers", "UNet2DConditionModel"],
  vae: ["diffusers", "AutoencoderKL"],
};

/** What differs from the usual. */
export interface TinySdxlOptions {
  /** Keys over those of `model_index.json`. */
  readonly index?: Config;
  /** Keys over those of a network's `config.json`; its weights follow. */
  readonly configs?: Readonly<Record<string, Config>>;
}

/** The folder's files by relative name. */
export async function tinySdxl(
  { index = {}, configs = {} }: TinySdxlOptions = {},
): Promise<Record<string, string | Uint8Array>> {
  const files: Record<string, string | Uint8Array> = {
    "model_index.json": JSON.stringify({ ...INDEX, ...index }),
    "scheduler/scheduler_config.json": JSON.stringify(SCHEDULER),
    ...tokenizerFiles("tokenizer", "<|endoftext|>"),
    ...tokenizerFiles("tokenizer_2", "!"),
  };
  for (const [i, part] of Object.keys(TINY_SDXL).entries()) {
    const config = { ...TINY_SDXL[part], ...configs[part] };
    const file = part.startsWith("text")
      ? "model.safetensors"
      : "diffusion_pytorch_model.safetensors";
    files[`${part}/config.json`] = JSON.stringify(config);
    files[`${part}/${file}`] = encodeSafetensors(
      await weightsOf(part, config, 1000 * (i + 1)),
    );
  }
  return files;
}

function tokenizerFiles(name: string, pad: string): Record<string, string> {
  return {
    [`${name}/vocab.json`]: JSON.stringify(
      Object.fromEntries(PIECES.map((piece, id) => [piece, id])),
    ),
    [`${name}/merges.txt`]: [
      "#version: 0.2",
      ...MERGES.map((m) => m.join(" ")),
      "",
    ].join("\n"),
    [`${name}/tokenizer_config.json`]: JSON.stringify({
      bos_token: "<|startoftext|>",
      eos_token: "<|endoftext|>",
      unk_token: "<|endoftext|>",
      pad_token: pad,
      model_max_length: 77,
      tokenizer_class: "CLIPTokenizer",
    }),
  };
}

/** Norms near 1, small biases, and matrices that keep the size of what passes through them. */
async function weightsOf(
  part: string,
  config: Config,
  seed: number,
): Promise<Map<string, TensorData>> {
  const weights = new Map<string, TensorData>();
  const add = (name: string, shape: readonly number[]): void => {
    const size = shape.reduce((a, b) => a * b, 1);
    const one = shape.length === 1 && name.endsWith("weight");
    const scale = shape.length === 1
      ? 0.2
      : name.includes("embedding.weight")
      ? 1
      : Math.sqrt(3 * shape[0]! / size);
    const data = rand(seed++, size, scale);
    if (one) data.forEach((x, j) => data[j] = 1 + x);
    weights.set(name, { dtype: "F32", shape, data });
  };
  const source: WeightSource & { readonly config: Config } = {
    name: part,
    config,
    tensors: new Map(),
    read: () => Promise.reject(new Error("there is nothing to read")),
    collect: add,
  };
  using plan = new Plan();
  using _network = part === "unet"
    ? await loadUnet(plan, source)
    : part === "vae"
    ? await loadVae(plan, source)
    : await loadTextEncoder(plan, source, {
      projection: part === "text_encoder_2",
    });
  return weights;
}

if (import.meta.main) {
  const [folder] = process.argv.slice(2);
  if (!folder) throw new RangeError("Cannot write: a folder must be named");
  for (const [name, content] of Object.entries(await tinySdxl())) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
  }
}
