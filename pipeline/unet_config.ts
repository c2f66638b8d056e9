/** A UNet's config, checked, and where attention is in it. */
import type { AddedChannels } from "./conditioning.ts";
import { type ConfigReader, readConfig } from "./config.ts";
import { WeightsError } from "../weights/errors.ts";

/** What the config of a UNet says, checked. */
export interface UnetConfig {
  /** Channels of the latent. */
  readonly inChannels: number;
  /** Channels of the prediction. */
  readonly outChannels: number;
  /** Own latent side in cells. */
  readonly sampleSize: number;
  /** Per level, outermost first. */
  readonly channels: readonly number[];
  /** Attention heads per level. */
  readonly heads: readonly number[];
  /** Transformer blocks per level. */
  readonly depth: readonly number[];
  /** Resnets per level on the way down; one more on the way up. */
  readonly layers: number;
  /** GroupNorm groups. */
  readonly groups: number;
  /** Of the resnets' GroupNorm. */
  readonly eps: number;
  /** Channels of the text states. */
  readonly text: number;
  /** Which levels attend on the way down. */
  readonly downAttention: readonly boolean[];
  /** Which attend on the way up, deepest first. */
  readonly upAttention: readonly boolean[];
  /** Time embedding has cosines first. */
  readonly flipSinToCos: boolean;
  /** Shift in its frequencies. */
  readonly freqShift: number;
  /** SDXL: the pooled text and six sizes are added to the time embedding. */
  readonly added: AddedChannels | undefined;
}

/**
 * Reads and checks a UNet's `config.json`.
 *
 * @throws {WeightsError} If a key has a value that is not supported; the message names it.
 */
export function unetConfig(
  config: Readonly<Record<string, unknown>>,
  name: string,
): UnetConfig {
  const read = readConfig(config, name);
  const channels = read.integers("block_out_channels");
  const levels = channels.length;
  const down = read.strings("down_block_types", [
    "DownBlock2D",
    "CrossAttnDownBlock2D",
  ], levels);
  const up = read.strings(
    "up_block_types",
    ["UpBlock2D", "CrossAttnUpBlock2D"],
    levels,
  );
  read.only("mid_block_type", ["UNetMidBlock2DCrossAttn", undefined]);
  read.only("act_fn", ["silu", undefined]);
  read.only("center_input_sample", [false, undefined]);
  read.only("conv_in_kernel", [3, undefined]);
  read.only("conv_out_kernel", [3, undefined]);
  read.only("downsample_padding", [1, undefined]);
  read.only("mid_block_scale_factor", [1, undefined]);
  read.only("resnet_out_scale_factor", [1, undefined]);
  read.only("resnet_time_scale_shift", ["default", undefined]);
  read.only("resnet_skip_time_act", [false, undefined]);
  read.only("time_embedding_type", ["positional", undefined]);
  read.only("attention_type", ["default", undefined]);
  read.only("only_cross_attention", [false, undefined]);
  read.only("mid_block_only_cross_attention", [false, null, undefined]);
  read.only("dual_cross_attention", [false, undefined]);
  read.only("class_embeddings_concat", [false, undefined]);
  read.only("addition_embed_type", ["text_time", null, undefined]);
  for (
    const key of [
      "class_embed_type",
      "num_class_embeds",
      "encoder_hid_dim",
      "encoder_hid_dim_type",
      "cross_attention_norm",
      "time_cond_proj_dim",
      "time_embedding_dim",
      "time_embedding_act_fn",
      "timestep_post_act",
      "reverse_transformer_layers_per_block",
      "num_attention_heads",
    ]
  ) read.only(key, [null, undefined]);
  return {
    inChannels: read.integer("in_channels", 4),
    outChannels: read.integer("out_channels", 4),
    sampleSize: read.integer("sample_size", 64),
    channels,
    // Diffusers' name notwithstanding, this is the number of heads.
    heads: read.integersOrOne("attention_head_dim", levels, 8),
    depth: read.integersOrOne("transformer_layers_per_block", levels, 1),
    layers: read.integer("layers_per_block", 2),
    groups: read.integer("norm_num_groups", 32),
    eps: read.number("norm_eps", 1e-5),
    text: read.integer("cross_attention_dim", 768),
    downAttention: down.map((type) => type === "CrossAttnDownBlock2D"),
    upAttention: up.map((type) => type === "CrossAttnUpBlock2D"),
    flipSinToCos: read.boolean("flip_sin_to_cos", true),
    freqShift: read.number("freq_shift", 0),
    added: config["addition_embed_type"] === "text_time"
      ? addedChannels(read, name)
      : undefined,
  };
}

function addedChannels(
  read: ConfigReader,
  name: string,
): AddedChannels {
  const timeChannels = read.integer("addition_time_embed_dim");
  const all = read.integer("projection_class_embeddings_input_dim");
  const pooled = all - 6 * timeChannels;
  if (pooled <= 0 || timeChannels % 2) {
    throw new WeightsError(
      `Cannot use ${name}: config key "projection_class_embeddings_input_dim" must be the pooled text's channels and 6 times an even addition_time_embed_dim: current ${all} and ${timeChannels}`,
    );
  }
  return { pooled, timeChannels };
}

/** An attention site of a UNet. */
export interface AttentionSite {
  /** Diffusers' path, such as `mid_block.attentions.0.transformer_blocks.0.attn2`. */
  readonly id: string;
  /** `cross` attends to text, `self` to the image. */
  readonly kind: "cross" | "self";
  /** `down_blocks.i`, `mid_block` or `up_blocks.i`. */
  readonly stage: string;
  /** Halvings of the grid. */
  readonly level: number;
}

/** Every attention site in the order of execution. */
export function attentionSites(config: UnetConfig): AttentionSite[] {
  const sites: AttentionSite[] = [];
  const levels = config.channels.length;
  const push = (
    stage: string,
    transformers: number,
    depth: number,
    level: number,
  ): void => {
    for (let i = 0; i < transformers; i++) {
      for (let j = 0; j < depth; j++) {
        const block = `${stage}.attentions.${i}.transformer_blocks.${j}`;
        sites.push({ id: `${block}.attn1`, kind: "self", stage, level }, {
          id: `${block}.attn2`,
          kind: "cross",
          stage,
          level,
        });
      }
    }
  };
  config.downAttention.forEach((has, i) =>
    push(`down_blocks.${i}`, has ? config.layers : 0, config.depth[i]!, i)
  );
  push("mid_block", 1, config.depth[levels - 1]!, levels - 1);
  config.upAttention.forEach((has, i) =>
    push(
      `up_blocks.${i}`,
      has ? config.layers + 1 : 0,
      config.depth[levels - 1 - i]!,
      levels - 1 - i,
    )
  );
  return sites;
}

/**
 * Sizes of the attention maps at some sites.
 *
 * @param sites Ids.
 * @param latent `[width, height]` of the latent; each level halves it, rounding up.
 * @returns Different `[width, height]`, in the order of execution.
 */
export function siteGrids(
  config: UnetConfig,
  sites: readonly string[],
  latent: readonly [width: number, height: number],
): (readonly [width: number, height: number])[] {
  const levels = new Set(
    attentionSites(config).filter(({ id }) => sites.includes(id)).map((site) =>
      site.level
    ),
  );
  return [...levels].map((level) => {
    const [width, height] = latent.map((n) => Math.ceil(n / 2 ** level));
    return [width!, height!];
  });
}
