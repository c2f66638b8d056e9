// ldm_configs: sizes of a single file's networks -> the configs that a diffusers folder would have.
// What tensors do not say is the family's: heads, groups, activations, schedule, size of a picture.
import type { TextSizes } from "./clip_names.ts";
import type { ComponentName } from "./component.ts";
import { quote } from "./errors.ts";
import type { LdmFamily } from "./ldm_kinds.ts";
import type { UnetSizes, VaeSizes } from "./ldm_names.ts";
import type { LdmPrediction } from "./ldm_prediction.ts";
import type { JsonObject, JsonValue } from "./strict_json.ts";

/** Config values that the caller knows better, by component. */
export type ConfigOverrides = Partial<
  Readonly<
    Record<ComponentName | "scheduler", Readonly<Record<string, JsonValue>>>
  >
>;

/** What no shape shows, and may therefore be overridden. */
const GUESSED: Readonly<Record<ComponentName, readonly string[]>> = {
  unet: ["attention_head_dim", "norm_num_groups", "norm_eps", "sample_size"],
  vae: ["norm_num_groups", "scaling_factor", "sample_size"],
  text_encoder: ["num_attention_heads", "hidden_act", "layer_norm_eps"],
  text_encoder_2: ["num_attention_heads", "hidden_act", "layer_norm_eps"],
};
const HEAD_CHANNELS = 64; // of SD2, SDXL and every CLIP
const SD1_HEADS = 8;

/**
 * Puts overrides over a config.
 *
 * @throws {RangeError} If an override is of something that the tensors say.
 */
export function overridden(
  part: ComponentName | "scheduler",
  config: JsonObject,
  overrides: ConfigOverrides,
): JsonObject {
  const changes = overrides[part] ?? {};
  if (part !== "scheduler") {
    for (const key of Object.keys(changes)) {
      if (!GUESSED[part].includes(key)) {
        throw new RangeError(
          `Cannot override ${part} config: the key must be one of ${
            GUESSED[part].join(", ")
          }: current key is ${quote(key)}, which the file's tensors say`,
        );
      }
    }
  }
  return { ...config, ...changes };
}

/** `model_index.json`. */
export function modelIndex(family: LdmFamily): JsonObject {
  const xl = family === "sdxl";
  return {
    _class_name: xl ? "StableDiffusionXLPipeline" : "StableDiffusionPipeline",
    scheduler: ["diffusers", schedulerClass(family)],
    text_encoder: ["transformers", "CLIPTextModel"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    unet: ["diffusers", "UNet2DConditionModel"],
    vae: ["diffusers", "AutoencoderKL"],
    ...xl
      ? {
        force_zeros_for_empty_prompt: true,
        text_encoder_2: ["transformers", "CLIPTextModelWithProjection"],
        tokenizer_2: ["transformers", "CLIPTokenizer"],
      }
      : {},
  };
}

function schedulerClass(family: LdmFamily): string {
  return family === "sdxl" ? "EulerDiscreteScheduler" : "DDIMScheduler";
}

/**
 * `scheduler_config.json`: the betas are the same in all families.
 *
 * @param zeroSnr The schedule ends without signal; sampling must then start at its last step, see
 *   Lin et al. 2023, arXiv:2305.08891, section 3.3.
 */
export function schedulerConfig(
  family: LdmFamily,
  prediction: LdmPrediction,
  zeroSnr: boolean,
): JsonObject {
  return {
    _class_name: schedulerClass(family),
    num_train_timesteps: 1000,
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: "scaled_linear",
    prediction_type: prediction,
    steps_offset: 1,
    set_alpha_to_one: false,
    clip_sample: false,
    timestep_spacing: zeroSnr ? "trailing" : "leading",
    rescale_betas_zero_snr: zeroSnr,
  };
}

/**
 * `unet/config.json`.
 *
 * @param pooled SDXL: channels of the pooled text, which with six sizes make up what is added.
 */
export function unetConfigOf(
  family: LdmFamily,
  sizes: UnetSizes,
  prediction: LdmPrediction,
  pooled: number | undefined,
): JsonObject {
  const { channels, downDepth, upDepth, middleDepth, added } = sizes;
  const levels = channels.length;
  const depth = channels.map((_, i) =>
    i === levels - 1
      ? middleDepth
      : downDepth[i] || upDepth[levels - 1 - i] || 1
  );
  return {
    _class_name: "UNet2DConditionModel",
    act_fn: "silu",
    ...added === undefined ? {} : {
      addition_embed_type: "text_time",
      addition_time_embed_dim: (added - (pooled ?? 0)) / 6,
      projection_class_embeddings_input_dim: added,
    },
    attention_head_dim: family === "sd1"
      ? SD1_HEADS
      : channels.map((c) => c / HEAD_CHANNELS),
    block_out_channels: channels,
    center_input_sample: false,
    cross_attention_dim: sizes.text,
    down_block_types: downDepth.map((n) =>
      n > 0 ? "CrossAttnDownBlock2D" : "DownBlock2D"
    ),
    downsample_padding: 1,
    flip_sin_to_cos: true,
    freq_shift: 0,
    in_channels: sizes.inChannels,
    layers_per_block: sizes.layers,
    mid_block_scale_factor: 1,
    norm_eps: 1e-5,
    norm_num_groups: 32,
    out_channels: sizes.outChannels,
    sample_size: ownSide(family, prediction) / 8,
    transformer_layers_per_block: depth,
    up_block_types: upDepth.map((n) =>
      n > 0 ? "CrossAttnUpBlock2D" : "UpBlock2D"
    ),
    use_linear_projection: sizes.linear,
  };
}

/** Pixels along a picture's side: SD2 base has 512, SD2 with v-prediction 768. */
function ownSide(family: LdmFamily, prediction: LdmPrediction): number {
  if (family === "sdxl") return 1024;
  return family === "sd2" && prediction === "v_prediction" ? 768 : 512;
}

/**
 * `vae/config.json`.
 *
 * @param scale Of the latents, where the file has its own.
 */
export function vaeConfigOf(
  family: LdmFamily,
  sizes: VaeSizes,
  prediction: LdmPrediction,
  scale: number | undefined,
): JsonObject {
  const { channels } = sizes;
  return {
    _class_name: "AutoencoderKL",
    act_fn: "silu",
    block_out_channels: channels,
    down_block_types: channels.map(() => "DownEncoderBlock2D"),
    force_upcast: family === "sdxl", // its numbers leave float16's range
    in_channels: 3,
    latent_channels: sizes.latent,
    layers_per_block: sizes.layers,
    mid_block_add_attention: sizes.attention,
    norm_num_groups: 32,
    out_channels: 3,
    sample_size: ownSide(family, prediction),
    scaling_factor: scale ?? (family === "sdxl" ? 0.13025 : 0.18215),
    up_block_types: channels.map(() => "UpDecoderBlock2D"),
    use_post_quant_conv: sizes.postQuantConv,
    use_quant_conv: sizes.quantConv,
  };
}

/** `text_encoder/config.json`; CLIP's own has quick GELU, OpenCLIP's the exact one. */
export function textConfigOf(
  sizes: TextSizes,
  activation: "quick_gelu" | "gelu",
): JsonObject {
  const { projection } = sizes;
  return {
    architectures: [
      projection === undefined
        ? "CLIPTextModel"
        : "CLIPTextModelWithProjection",
    ],
    bos_token_id: 0,
    eos_token_id: 2, // what published configs have; it stands for the largest id
    hidden_act: activation,
    hidden_size: sizes.channels,
    intermediate_size: sizes.inner,
    layer_norm_eps: 1e-5,
    max_position_embeddings: sizes.length,
    num_attention_heads: sizes.channels / HEAD_CHANNELS,
    num_hidden_layers: sizes.layers,
    pad_token_id: 1,
    projection_dim: projection ?? sizes.channels,
    vocab_size: sizes.vocabulary,
  };
}
