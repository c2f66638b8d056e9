/** The published configs of Stable Diffusion 1.5 and SDXL base, as far as they shape the networks. */

/** `config.json` of each component, `scheduler_config.json` and `model_index.json`. */
export interface FullConfigs {
  /** `model_index.json`. */
  readonly index: Readonly<Record<string, unknown>>;
  /** By component. */
  readonly parts: Readonly<
    Record<string, Readonly<Record<string, unknown>>>
  >;
  /** `scheduler/scheduler_config.json`. */
  readonly scheduler: Readonly<Record<string, unknown>>;
}

const VAE = {
  _class_name: "AutoencoderKL",
  act_fn: "silu",
  block_out_channels: [128, 256, 512, 512],
  down_block_types: Array(4).fill("DownEncoderBlock2D"),
  up_block_types: Array(4).fill("UpDecoderBlock2D"),
  in_channels: 3,
  out_channels: 3,
  latent_channels: 4,
  layers_per_block: 2,
  norm_num_groups: 32,
};
const UNET = {
  _class_name: "UNet2DConditionModel",
  act_fn: "silu",
  in_channels: 4,
  out_channels: 4,
  layers_per_block: 2,
  norm_num_groups: 32,
  norm_eps: 1e-5,
  downsample_padding: 1,
  mid_block_scale_factor: 1,
  flip_sin_to_cos: true,
  freq_shift: 0,
  center_input_sample: false,
};
const CLIP_L = {
  vocab_size: 49408,
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  max_position_embeddings: 77,
  hidden_act: "quick_gelu",
  layer_norm_eps: 1e-5,
  projection_dim: 768,
  bos_token_id: 0,
  eos_token_id: 2,
  pad_token_id: 1,
};
const BETAS = {
  num_train_timesteps: 1000,
  beta_start: 0.00085,
  beta_end: 0.012,
  beta_schedule: "scaled_linear",
  prediction_type: "epsilon",
  steps_offset: 1,
  set_alpha_to_one: false,
  clip_sample: false,
  timestep_spacing: "leading",
};

/** The models of `bench/full_size.ts`. */
export const FULL_CONFIGS: Readonly<Record<"sd15" | "sdxl", FullConfigs>> = {
  sd15: {
    index: {
      _class_name: "StableDiffusionPipeline",
      scheduler: ["diffusers", "PNDMScheduler"],
      text_encoder: ["transformers", "CLIPTextModel"],
      tokenizer: ["transformers", "CLIPTokenizer"],
      unet: ["diffusers", "UNet2DConditionModel"],
      vae: ["diffusers", "AutoencoderKL"],
    },
    scheduler: { _class_name: "PNDMScheduler", skip_prk_steps: true, ...BETAS },
    parts: {
      text_encoder: { architectures: ["CLIPTextModel"], ...CLIP_L },
      unet: {
        ...UNET,
        attention_head_dim: 8,
        block_out_channels: [320, 640, 1280, 1280],
        cross_attention_dim: 768,
        down_block_types: [
          "CrossAttnDownBlock2D",
          "CrossAttnDownBlock2D",
          "CrossAttnDownBlock2D",
          "DownBlock2D",
        ],
        up_block_types: [
          "UpBlock2D",
          "CrossAttnUpBlock2D",
          "CrossAttnUpBlock2D",
          "CrossAttnUpBlock2D",
        ],
        sample_size: 64,
      },
      vae: { ...VAE, sample_size: 512, scaling_factor: 0.18215 },
    },
  },
  sdxl: {
    index: {
      _class_name: "StableDiffusionXLPipeline",
      force_zeros_for_empty_prompt: true,
      scheduler: ["diffusers", "EulerDiscreteScheduler"],
      text_encoder: ["transformers", "CLIPTextModel"],
      text_encoder_2: ["transformers", "CLIPTextModelWithProjection"],
      tokenizer: ["transformers", "CLIPTokenizer"],
      tokenizer_2: ["transformers", "CLIPTokenizer"],
      unet: ["diffusers", "UNet2DConditionModel"],
      vae: ["diffusers", "AutoencoderKL"],
    },
    scheduler: { _class_name: "EulerDiscreteScheduler", ...BETAS },
    parts: {
      text_encoder: { architectures: ["CLIPTextModel"], ...CLIP_L },
      text_encoder_2: {
        architectures: ["CLIPTextModelWithProjection"],
        ...CLIP_L,
        hidden_size: 1280,
        intermediate_size: 5120,
        num_hidden_layers: 32,
        num_attention_heads: 20,
        hidden_act: "gelu",
        projection_dim: 1280,
      },
      unet: {
        ...UNET,
        addition_embed_type: "text_time",
        addition_time_embed_dim: 256,
        attention_head_dim: [5, 10, 20],
        block_out_channels: [320, 640, 1280],
        cross_attention_dim: 2048,
        down_block_types: [
          "DownBlock2D",
          "CrossAttnDownBlock2D",
          "CrossAttnDownBlock2D",
        ],
        up_block_types: [
          "CrossAttnUpBlock2D",
          "CrossAttnUpBlock2D",
          "UpBlock2D",
        ],
        projection_class_embeddings_input_dim: 2816,
        sample_size: 128,
        transformer_layers_per_block: [1, 2, 10],
        use_linear_projection: true,
      },
      vae: {
        ...VAE,
        force_upcast: true,
        sample_size: 1024,
        scaling_factor: 0.13025,
      },
    },
  },
};
