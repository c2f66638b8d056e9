// tiny_ldm: small checkpoints of every family whose configs follow from shapes alone, with random weights.
import { encodeSafetensors } from "./encode_safetensors.ts";
import { networkShapes } from "./network_shapes.ts";
import { type Family, type Tensors, toLdm } from "./to_ldm.ts";

type Configs = Readonly<Record<string, Readonly<Record<string, unknown>>>>;
export type Dtype = "F32" | "F16" | "BF16";

const VAE = {
  block_out_channels: [32, 64],
  down_block_types: Array(2).fill("DownEncoderBlock2D"),
  up_block_types: Array(2).fill("UpDecoderBlock2D"),
  layers_per_block: 1,
};
const TEXT = {
  vocab_size: 49408,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 1,
  projection_dim: 64,
};
const UNET = {
  layers_per_block: 1,
  down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
  up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
};

/** Diffusers' configs of each family, as far as they shape the networks. */
export const TINY: Readonly<Record<Family, Configs>> = {
  sd1: {
    unet: {
      ...UNET,
      block_out_channels: [32, 64],
      attention_head_dim: 8,
      cross_attention_dim: 64,
    },
    vae: VAE,
    text_encoder: { ...TEXT, hidden_act: "quick_gelu" },
  },
  sd2: {
    unet: {
      ...UNET,
      block_out_channels: [64, 128],
      attention_head_dim: [1, 2],
      cross_attention_dim: 64,
      use_linear_projection: true,
    },
    vae: VAE,
    text_encoder: { ...TEXT, hidden_act: "gelu" },
  },
  sdxl: {
    unet: {
      ...UNET,
      down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D"],
      up_block_types: ["CrossAttnUpBlock2D", "UpBlock2D"],
      block_out_channels: [64, 128],
      attention_head_dim: [1, 2],
      transformer_layers_per_block: [1, 2],
      use_linear_projection: true,
      cross_attention_dim: 128,
      addition_embed_type: "text_time",
      addition_time_embed_dim: 8,
      projection_class_embeddings_input_dim: 96 + 6 * 8,
    },
    vae: VAE,
    text_encoder: { ...TEXT, hidden_act: "quick_gelu" },
    // Not square, so that a projection that is not transposed shows.
    text_encoder_2: { ...TEXT, hidden_act: "gelu", projection_dim: 96 },
  },
};

/** A small checkpoint under both names. */
export interface TinyLdm {
  /** Tensors by component, as a diffusers folder has them. */
  readonly parts: Readonly<Record<string, Tensors>>;
  /** The same, as a single file has them. */
  readonly ldm: Tensors;
}

/** Seeded weights around zero, norms around one. */
export async function tinyLdm(
  family: Family,
  dtype: Dtype = "F16",
): Promise<TinyLdm> {
  const configs = TINY[family];
  const parts: Record<string, Tensors> = {};
  let seed = 1;
  for (const [part, config] of Object.entries(configs)) {
    const tensors: Tensors = new Map();
    for (const [name, shape] of await networkShapes(part, config)) {
      const data = random(seed++, shape.reduce((a, b) => a * b, 1), dtype);
      tensors.set(name, { dtype, shape, data });
    }
    parts[part] = tensors;
  }
  const ldm = toLdm(family, parts, configs);
  if (family === "sd2") {
    // What published files have and nobody uses: a last layer and a projection.
    const blocks = "cond_stage_model.model.transformer.resblocks.";
    for (const [name, tensor] of [...ldm]) {
      const last = name.replace(`${blocks}0.`, `${blocks}2.`);
      if (last !== name) ldm.set(last, tensor);
    }
    const square = ldm.get(`${blocks}0.attn.out_proj.weight`)!;
    ldm.set("cond_stage_model.model.text_projection", square);
  }
  return { parts, ldm };
}

/** The bytes of the single file. */
export function fileOf(
  ldm: Tensors,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  return encodeSafetensors(ldm, metadata);
}

/** Numbers of magnitude 2^-4 to 2^-3 with either sign, by their bits, so that they are finite in each dtype. */
function random(
  seed: number,
  size: number,
  dtype: Dtype,
): Uint32Array | Uint16Array {
  let state = seed * 2654435761 >>> 0 || 1;
  const next = (): number => { // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>>= 0;
  };
  if (dtype === "F32") {
    return new Uint32Array(size).map(() =>
      (next() & 0x807fffff | 123 << 23) >>> 0
    );
  }
  return new Uint16Array(size).map(() =>
    dtype === "F16" ? next() & 0x83ff | 11 << 10 : next() & 0x807f | 123 << 7
  );
}
