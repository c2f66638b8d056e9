/**
 * latent, timestep, text states -> predicted noise, with attention probes on the way.
 *
 * The SD1.x, SD2.x and SDXL families of diffusers' `UNet2DConditionModel`, built from its `config.json`. Written once,
 * as a forward pass: on a tape its input gradient comes for free.
 */
import { activation } from "../kernels/activation.ts";
import type { Backend, Tensor } from "../kernels/backend.ts";
import { add } from "../kernels/combine.ts";
import { concatChannels } from "../kernels/concat.ts";
import { conv3x3 } from "../kernels/conv.ts";
import { groupNorm } from "../kernels/group_norm.ts";
import { linear } from "../kernels/linear.ts";
import {
  downsample,
  into,
  type ProbeHooks,
  type Resnet,
  resnet,
  resnetParameters,
  type Transformer,
  transformer,
  transformerParameters,
  upsample,
} from "./blocks.ts";
import { type Affine, type Layer, Parameters } from "./parameters.ts";
import type { LoadOptions, WeightSource } from "./weight_source.ts";
import type { AddedChannels, Conditioning } from "./conditioning.ts";
import { type ConfigReader, readConfig } from "./config.ts";
import { WeightsError } from "../weights/errors.ts";
import { TimeLayers, timeShifts } from "./time_layers.ts";
import { sinusoid } from "./timestep.ts";

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

/** Resnets and transformers of one level. */
export interface Stage {
  /** In order. */
  readonly resnets: readonly Resnet[];
  /** One after each resnet, or none. */
  readonly transformers: readonly Transformer[];
  /** To the next level, if there is one. */
  readonly resample: Layer | undefined;
}

/** A UNet whose weights are on a backend. */
export interface Unet extends Disposable {
  /** Where it lives. */
  readonly backend: Backend;
  /** Its sizes. */
  readonly config: UnetConfig;
  /** First layer of the time embedding. */
  readonly time1: Layer;
  /** Second layer. */
  readonly time2: Layer;
  /** From there to what every resnet adds to its channels. */
  readonly shifts: Layer;
  /** SDXL: both layers of what is added to the time embedding. */
  readonly added: readonly [Layer, Layer] | undefined;
  /** First convolution. */
  readonly convIn: Layer;
  /** Levels on the way down. */
  readonly down: readonly Stage[];
  /** The deepest stage. */
  readonly middle: Stage;
  /** Levels on the way up. */
  readonly up: readonly Stage[];
  /** Last GroupNorm. */
  readonly normOut: Affine;
  /** Last convolution. */
  readonly convOut: Layer;
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

/**
 * Builds a UNet from a checkpoint's component and loads it.
 *
 * @throws {WeightsError} If config or tensors do not fit.
 */
export async function loadUnet(
  backend: Backend,
  source: WeightSource & { readonly config: Readonly<Record<string, unknown>> },
  options: LoadOptions = {},
): Promise<Unet> {
  const config = unetConfig(source.config, source.name);
  const p = new Parameters(backend, source, options.storage);
  try {
    const unet = {
      ...build(p, config),
      backend,
      config,
      [Symbol.dispose]: () => p[Symbol.dispose](),
    };
    await p.load(options);
    return unet;
  } catch (error) {
    p[Symbol.dispose]();
    throw error;
  }
}

function build(
  p: Parameters,
  c: UnetConfig,
): Omit<Unet, "backend" | "config" | typeof Symbol.dispose> {
  const levels = c.channels.length;
  const first = c.channels[0]!;
  const last = c.channels[levels - 1]!;
  const time = 4 * first;
  const times = new TimeLayers(time);
  const res = (name: string, from: number, to: number): Resnet =>
    resnetParameters(p, name, {
      from,
      to,
      time: times,
      groups: c.groups,
      eps: c.eps,
    });
  const attend = (name: string, level: number): Transformer =>
    transformerParameters(p, name, {
      channels: c.channels[level]!,
      heads: c.heads[level]!,
      text: c.text,
      groups: c.groups,
      depth: c.depth[level]!,
    });
  const range = (count: number): number[] => [...Array(count).keys()];

  const skips = [first]; // channels of the stack of skip connections
  const down = range(levels).map((i): Stage => {
    const to = c.channels[i]!;
    const from = c.channels[i - 1] ?? first;
    const name = `down_blocks.${i}`;
    const resnets = range(c.layers).map((j) =>
      res(`${name}.resnets.${j}.`, j ? to : from, to)
    );
    const transformers = range(c.downAttention[i] ? c.layers : 0).map((j) =>
      attend(`${name}.attentions.${j}.`, i)
    );
    const resample = i < levels - 1
      ? p.conv(`${name}.downsamplers.0.conv`, to, to)
      : undefined;
    skips.push(...resnets.map(() => to), ...(resample ? [to] : []));
    return { resnets, transformers, resample };
  });
  const middle: Stage = {
    resnets: [
      res("mid_block.resnets.0.", last, last),
      res("mid_block.resnets.1.", last, last),
    ],
    transformers: [attend("mid_block.attentions.0.", levels - 1)],
    resample: undefined,
  };
  let hidden = last;
  const up = range(levels).map((i): Stage => {
    const level = levels - 1 - i;
    const to = c.channels[level]!;
    const name = `up_blocks.${i}`;
    const resnets = range(c.layers + 1).map((j) => {
      const made = res(`${name}.resnets.${j}.`, hidden + skips.pop()!, to);
      hidden = to;
      return made;
    });
    const transformers = range(c.upAttention[i] ? c.layers + 1 : 0).map((j) =>
      attend(`${name}.attentions.${j}.`, level)
    );
    const resample = i < levels - 1
      ? p.conv3x3(`${name}.upsamplers.0.conv`, to, to)
      : undefined;
    return { resnets, transformers, resample };
  });
  return {
    time1: p.linear("time_embedding.linear_1", time, first),
    time2: p.linear("time_embedding.linear_2", time, time),
    shifts: times.parameters(p),
    added: c.added && [
      p.linear(
        "add_embedding.linear_1",
        time,
        c.added.pooled + 6 * c.added.timeChannels,
      ),
      p.linear("add_embedding.linear_2", time, time),
    ],
    convIn: p.conv3x3("conv_in", first, c.inChannels),
    down,
    middle,
    up,
    normOut: p.affine("conv_norm_out", first),
    convOut: p.conv3x3("conv_out", c.outChannels, first),
  };
}

/** Options of one UNet pass. */
export interface UnetHooks extends ProbeHooks {
  /** Sees the output of each stage, under diffusers' name. Not to be kept or disposed. */
  readonly onStage?: (name: string, value: Tensor) => void;
}

/**
 * One pass.
 *
 * @param latent `[batch, 4, height, width]`, any grid of at least one cell.
 * @param timestep Train timestep, 0 to 999, the same for the batch.
 * @param conditioning Text states, and what SDXL adds, for the same batch.
 * @returns The model's output (noise for epsilon models), like `latent`.
 */
export function unetForward(
  unet: Unet,
  latent: Tensor,
  timestep: number,
  conditioning: Conditioning,
  hooks: UnetHooks = {},
): Tensor {
  const { config } = unet;
  const text = conditioning;
  const stage = (name: string, value: Tensor): Tensor => {
    hooks.onStage?.(name, value);
    return value;
  };
  using embedding = timeEmbedding(unet, timestep, conditioning, hooks);
  using time = activation(embedding, "silu"); // every resnet starts with it
  using shifts = timeShifts(unet.shifts, time);

  let x = stage(
    "conv_in",
    conv3x3(latent, unet.convIn.weight, { bias: unet.convIn.bias }),
  );
  const skips = [x.retain()];
  unet.down.forEach((block, i) => {
    block.resnets.forEach((r, j) => {
      x = into(x, (h) => resnet(r, h, shifts));
      const t = block.transformers[j];
      if (t) {
        x = into(
          x,
          (h) =>
            transformer(t, h, text, `down_blocks.${i}.attentions.${j}.`, hooks),
        );
      }
      skips.push(x.retain());
    });
    const { resample } = block;
    if (resample) {
      x = into(x, (h) => downsample(resample, h, "same"));
      skips.push(x.retain());
    }
    stage(`down_blocks.${i}`, x);
  });

  x = into(x, (h) => resnet(unet.middle.resnets[0]!, h, shifts));
  x = into(
    x,
    (h) =>
      transformer(
        unet.middle.transformers[0]!,
        h,
        text,
        "mid_block.attentions.0.",
        hooks,
      ),
  );
  x = stage(
    "mid_block",
    into(x, (h) => resnet(unet.middle.resnets[1]!, h, shifts)),
  );

  unet.up.forEach((block, i) => {
    block.resnets.forEach((r, j) => {
      using skip = skips.pop()!;
      x = into(x, (h) => concatChannels(h, skip));
      x = into(x, (h) => resnet(r, h, shifts));
      const t = block.transformers[j];
      if (t) {
        x = into(
          x,
          (h) =>
            transformer(t, h, text, `up_blocks.${i}.attentions.${j}.`, hooks),
        );
      }
    });
    const { resample } = block;
    if (resample) {
      // The grid of the level above, which may be one less than twice this one.
      const [, , height = 0, width = 0] = skips.at(-1)!.shape;
      x = into(x, (h) => upsample(resample, h, [height, width]));
    }
    stage(`up_blocks.${i}`, x);
  });

  const { groups, eps } = config;
  x = into(
    x,
    (h) =>
      groupNorm(h, unet.normOut.weight, unet.normOut.bias, {
        groups,
        eps,
        silu: true,
      }),
  );
  return into(
    x,
    (h) => conv3x3(h, unet.convOut.weight, { bias: unet.convOut.bias }),
  );
}

/** `[1, time, 1]`, or with SDXL's additions `[batch, time, 1]`. */
function timeEmbedding(
  unet: Unet,
  timestep: number,
  { added }: Conditioning,
  { onStage }: UnetHooks,
): Tensor {
  const { backend, config, time1, time2 } = unet;
  if (!unet.added !== !added) {
    throw new RangeError(
      `Cannot run the UNet: pooled text and sizes must be given to SDXL, and to no other: current conditioning has ${
        added ? "them" : "none"
      }`,
    );
  }
  const first = config.channels[0]!;
  const batch = added?.shape[0] ?? 1;
  const one = sinusoid(timestep, first, config);
  const waves = new Float32Array(batch * first);
  for (let b = 0; b < batch; b++) waves.set(one, b * first);
  using wave = backend.upload(waves, [batch, first, 1]);
  const embedding = mlp(time1, time2, wave);
  onStage?.("time_embedding", embedding);
  if (!unet.added || !added) return embedding;
  using own = embedding;
  using more = mlp(...unet.added, added);
  return add(own, more);
}

/** Linear, SiLU, linear. */
function mlp(first: Layer, second: Layer, x: Tensor): Tensor {
  using hidden = linear(x, first.weight, { bias: first.bias });
  using active = activation(hidden, "silu");
  return linear(active, second.weight, { bias: second.bias });
}
