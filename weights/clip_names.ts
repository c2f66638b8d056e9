// clip_names: the text encoders of a single file <-> diffusers' names.
//
//   CLIP's own (SD1.x, SDXL's first): the names of transformers behind a prefix
//   OpenCLIP (SD2, SDXL's second):
//          token_embedding.weight           text_model.embeddings.token_embedding.weight
//          positional_embedding             text_model.embeddings.position_embedding.weight
//          transformer.resblocks.i          text_model.encoder.layers.i
//            ln_1, ln_2                       layer_norm1, layer_norm2
//            attn.in_proj_{weight,bias}       self_attn.{q,k,v}_proj, one above the other
//            attn.out_proj                    self_attn.out_proj
//            mlp.c_fc, mlp.c_proj             mlp.fc1, mlp.fc2
//          ln_final                         text_model.final_layer_norm
//          text_projection                  text_projection.weight, transposed
//
// Source: diffusers, `convert_ldm_clip_checkpoint` and `convert_open_clip_checkpoint`.
import { type LdmTensor, LdmTensors } from "./ldm_tensors.ts";

/** Sizes of a text encoder, as its tensors say them. */
export interface TextSizes {
  /** Rows of the token embedding. */
  readonly vocabulary: number;
  /** Positions. */
  readonly length: number;
  /** Channels of the states. */
  readonly channels: number;
  /** Channels inside the feed-forward layer. */
  readonly inner: number;
  /** Number of layers that are used. */
  readonly layers: number;
  /** Channels of the projected, pooled text; undefined where it is not used. */
  readonly projection: number | undefined;
}

const EMBEDDINGS = "text_model.embeddings";
const LAYERS = "text_model.encoder.layers";

/**
 * Every tensor of CLIP's own text encoder.
 *
 * @param prefix Before every name in the file, in place of `text_model.`.
 */
export function clipTensors(prefix: string, c: TextSizes): LdmTensor[] {
  const t = new LdmTensors(prefix);
  const same = (name: string, shape: readonly number[]): void =>
    t.layer(name.slice("text_model.".length), name, shape);
  const table = (name: string, rows: number): void =>
    t.tensor(`embeddings.${name}`, `${EMBEDDINGS}.${name}`, [rows, c.channels]);
  table("token_embedding.weight", c.vocabulary);
  table("position_embedding.weight", c.length);
  for (let i = 0; i < c.layers; i++) {
    const layer = `${LAYERS}.${i}`;
    same(`${layer}.layer_norm1`, [c.channels]);
    for (const part of ["q_proj", "k_proj", "v_proj", "out_proj"]) {
      same(`${layer}.self_attn.${part}`, [c.channels, c.channels]);
    }
    same(`${layer}.layer_norm2`, [c.channels]);
    same(`${layer}.mlp.fc1`, [c.inner, c.channels]);
    same(`${layer}.mlp.fc2`, [c.channels, c.inner]);
  }
  same("text_model.final_layer_norm", [c.channels]);
  return t.all;
}

/**
 * Every tensor of OpenCLIP's text encoder.
 *
 * @param prefix Before every name in the file.
 */
export function openClipTensors(prefix: string, c: TextSizes): LdmTensor[] {
  const t = new LdmTensors(prefix);
  const { channels, inner } = c;
  t.tensor("token_embedding.weight", `${EMBEDDINGS}.token_embedding.weight`, [
    c.vocabulary,
    channels,
  ]);
  t.tensor("positional_embedding", `${EMBEDDINGS}.position_embedding.weight`, [
    c.length,
    channels,
  ]);
  for (let i = 0; i < c.layers; i++) {
    const ldm = `transformer.resblocks.${i}`;
    const name = `${LAYERS}.${i}`;
    t.layer(`${ldm}.ln_1`, `${name}.layer_norm1`, [channels]);
    (["q", "k", "v"] as const).forEach((part, third) => {
      const layer = `${name}.self_attn.${part}_proj`;
      const storage = { third: third as 0 | 1 | 2 };
      const square = [channels, channels];
      t.tensor(
        `${ldm}.attn.in_proj_weight`,
        `${layer}.weight`,
        square,
        storage,
      );
      t.tensor(
        `${ldm}.attn.in_proj_bias`,
        `${layer}.bias`,
        [channels],
        storage,
      );
    });
    t.layer(`${ldm}.attn.out_proj`, `${name}.self_attn.out_proj`, [
      channels,
      channels,
    ]);
    t.layer(`${ldm}.ln_2`, `${name}.layer_norm2`, [channels]);
    t.layer(`${ldm}.mlp.c_fc`, `${name}.mlp.fc1`, [inner, channels]);
    t.layer(`${ldm}.mlp.c_proj`, `${name}.mlp.fc2`, [channels, inner]);
  }
  t.layer("ln_final", "text_model.final_layer_norm", [channels]);
  if (c.projection !== undefined) {
    const shape = [c.projection, channels];
    const storage = { transposed: true } as const;
    t.tensor("text_projection", "text_projection.weight", shape, storage);
  }
  return t.all;
}
