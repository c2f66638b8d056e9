// ldm_sizes: shapes of a single file's tensors -> sizes of its networks. No size is taken for granted.
import type { TextSizes } from "./clip_names.ts";
import { WeightsError } from "./errors.ts";
import type { UnetSizes, VaeSizes } from "./ldm_names.ts";
import type { LdmShapes } from "./ldm_tensors.ts";

/**
 * Sizes of a UNet.
 *
 * @param t Asked without the UNet's prefix.
 * @throws {WeightsError} If a tensor that says one is missing, or blocks do not form levels.
 */
export function unetSizes(t: LdmShapes): UnetSizes {
  const count = 1 + t.count((i) => blockKey(t, i + 1)); // the first is a convolution
  let levels = 1;
  let layers = count - 1;
  for (let i = 1; i < count; i++) {
    if (!t.has(`input_blocks.${i}.0.op.weight`)) continue;
    if (levels++ === 1) layers = i - 1;
  }
  if (layers < 1 || count !== levels * (layers + 1)) {
    throw new WeightsError(
      `Cannot use ${t.file}: the UNet must have levels of as many resnets each: current ${count} input blocks with ${
        levels - 1
      } downsamplers, the first after ${layers} resnets`,
    );
  }
  const depth = (block: string): number =>
    t.count((i) => `${block}.1.transformer_blocks.${i}.norm1.weight`);
  const range = [...Array(levels).keys()];
  return {
    inChannels: t.size("input_blocks.0.0.weight", 1),
    outChannels: t.size("out.2.weight", 0),
    channels: range.map((i) =>
      t.size(`input_blocks.${1 + i * (layers + 1)}.0.in_layers.2.weight`, 0)
    ),
    layers,
    downDepth: range.map((i) => depth(`input_blocks.${1 + i * (layers + 1)}`)),
    middleDepth: depth("middle_block"),
    upDepth: range.map((i) => depth(`output_blocks.${i * (layers + 1)}`)),
    text: t.size("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1),
    linear: t.axes("middle_block.1.proj_in.weight") === 2,
    added: t.has("label_emb.0.0.weight")
      ? t.size("label_emb.0.0.weight", 1)
      : undefined,
  };
}

/** A tensor that input block `i` has: of a downsampler or of a resnet. */
function blockKey(t: LdmShapes, i: number): string {
  const op = `input_blocks.${i}.0.op.weight`;
  return t.has(op) ? op : `input_blocks.${i}.0.in_layers.2.weight`;
}

/**
 * Sizes of a VAE.
 *
 * @param t Asked without the VAE's prefix.
 * @throws {WeightsError} If a tensor that says one is missing.
 */
export function vaeSizes(t: LdmShapes): VaeSizes {
  const levels = t.count((i) => `decoder.up.${i}.block.0.conv1.weight`);
  return {
    channels: Array.from(
      { length: Math.max(1, levels) },
      (_, i) => t.size(`decoder.up.${i}.block.0.conv1.weight`, 0),
    ),
    layers: t.count((j) => `decoder.up.0.block.${j}.conv1.weight`) - 1,
    latent: t.size("decoder.conv_in.weight", 1),
    attention: t.has("decoder.mid.attn_1.q.weight"),
    quantConv: t.has("quant_conv.weight"),
    postQuantConv: t.has("post_quant_conv.weight"),
  };
}

/**
 * Sizes of CLIP's own text encoder.
 *
 * @param t Asked without `text_model.` and what is before it.
 */
export function clipSizes(t: LdmShapes): TextSizes {
  return {
    vocabulary: t.size("embeddings.token_embedding.weight", 0),
    length: t.size("embeddings.position_embedding.weight", 0),
    channels: t.size("embeddings.token_embedding.weight", 1),
    inner: t.size("encoder.layers.0.mlp.fc1.weight", 0),
    layers: t.count((i) => `encoder.layers.${i}.layer_norm1.weight`),
    projection: undefined,
  };
}

/** Of the 24 layers of OpenCLIP ViT-H, those that SD2 conditions on. */
const VIT_H_USED = 23;

/**
 * Sizes of OpenCLIP's text encoder.
 *
 * @param t Asked without its prefix.
 * @param pooled SDXL uses all layers and the pooled text. SD2 takes the states before the last
 *   layer; files that diffusers converted back have left that layer out.
 */
export function openClipSizes(t: LdmShapes, pooled: boolean): TextSizes {
  const all = t.count((i) => `transformer.resblocks.${i}.ln_1.weight`);
  return {
    vocabulary: t.size("token_embedding.weight", 0),
    length: t.size("positional_embedding", 0),
    channels: t.size("token_embedding.weight", 1),
    inner: t.size("transformer.resblocks.0.mlp.c_fc.weight", 0),
    layers: pooled || all === VIT_H_USED ? all : all - 1,
    projection: pooled ? t.size("text_projection", 1) : undefined,
  };
}
