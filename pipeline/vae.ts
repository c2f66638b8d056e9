/** latent <-> RGB: diffusers' `AutoencoderKL`, built from its `config.json`. */
import type { Backend, Tensor } from "../kernels/backend.ts";
import { conv3x3 } from "../kernels/conv.ts";
import { linear } from "../kernels/linear.ts";
import {
  downsample,
  into,
  type Resnet,
  resnet,
  resnetParameters,
  upsample,
} from "./resnet.ts";
import {
  type PlainAttention,
  plainAttention,
  plainAttentionParameters,
} from "./transformer.ts";
import { readConfig } from "./config.ts";
import { type Affine, type Layer, Parameters } from "./parameters.ts";
import type { LoadOptions, WeightSource } from "./weight_source.ts";

/** What the config of a VAE says, checked. */
export interface VaeConfig {
  /** Per level, outermost first. */
  readonly channels: readonly number[];
  /** Channels of the latent. */
  readonly latentChannels: number;
  /** Resnets per level of the encoder; the decoder has one more. */
  readonly layers: number;
  /** GroupNorm groups. */
  readonly groups: number;
  /** Latents of the UNet are those of the VAE times this. */
  readonly scalingFactor: number;
  /** Whether there is a 1x1 convolution after the encoder. */
  readonly quantConv: boolean;
  /** Whether there is one before the decoder. */
  readonly postQuantConv: boolean;
  /** Whether the middle attends. */
  readonly middleAttention: boolean;
}

/** Reads and checks a VAE's `config.json`. */
export function vaeConfig(
  config: Readonly<Record<string, unknown>>,
  name: string,
): VaeConfig {
  const read = readConfig(config, name);
  const channels = read.integers("block_out_channels");
  read.strings("down_block_types", ["DownEncoderBlock2D"], channels.length);
  read.strings("up_block_types", ["UpDecoderBlock2D"], channels.length);
  read.only("in_channels", [3, undefined]);
  read.only("out_channels", [3, undefined]);
  read.only("act_fn", ["silu", undefined]);
  read.only("latents_mean", [null, undefined]);
  read.only("latents_std", [null, undefined]);
  read.only("shift_factor", [null, 0, undefined]);
  return {
    channels,
    latentChannels: read.integer("latent_channels", 4),
    layers: read.integer("layers_per_block", 1),
    groups: read.integer("norm_num_groups", 32),
    scalingFactor: read.number("scaling_factor", 0.18215),
    quantConv: read.boolean("use_quant_conv", true),
    postQuantConv: read.boolean("use_post_quant_conv", true),
    middleAttention: read.boolean("mid_block_add_attention", true),
  };
}

/** Encoder or decoder. */
export interface Coder {
  /** First convolution. */
  readonly convIn: Layer;
  /** Resnet, attention, resnet. */
  readonly middle: readonly [Resnet, PlainAttention | undefined, Resnet];
  /** Levels in order. */
  readonly stages: readonly {
    readonly resnets: readonly Resnet[];
    readonly resample: Layer | undefined;
  }[];
  /** Last GroupNorm. */
  readonly normOut: Affine;
  /** Last convolution. */
  readonly convOut: Layer;
}

/** A VAE whose weights are on a backend. */
export interface Vae extends Disposable {
  /** Where it lives. */
  readonly backend: Backend;
  /** Its sizes. */
  readonly config: VaeConfig;
  /** Only if asked for. */
  readonly encoder: Coder | undefined;
  /** 1x1 convolution after the encoder. */
  readonly quantConv: Layer | undefined;
  /** Latent to pixels. */
  readonly decoder: Coder;
  /** 1x1 convolution before the decoder. */
  readonly postQuantConv: Layer | undefined;
}

const EPS = 1e-6;

/**
 * Builds a VAE and loads it.
 *
 * @param options.encoder Load the encoder too. Default false: making pictures needs the decoder only.
 */
export async function loadVae(
  backend: Backend,
  source: WeightSource & { readonly config: Readonly<Record<string, unknown>> },
  options: LoadOptions & { readonly encoder?: boolean } = {},
): Promise<Vae> {
  const config = vaeConfig(source.config, source.name);
  const p = new Parameters(backend, source, options.storage);
  try {
    const { latentChannels } = config;
    let encoder: Coder | undefined;
    let quantConv: Layer | undefined;
    if (options.encoder) {
      encoder = coder(p, config, "encoder");
      if (config.quantConv) {
        quantConv = p.linear(
          "quant_conv",
          2 * latentChannels,
          2 * latentChannels,
        );
      }
    } else {
      for (const name of p.names()) {
        if (/^(encoder|quant_conv)\./.test(name)) p.skip(name);
      }
    }
    const vae = {
      backend,
      config,
      encoder,
      quantConv,
      decoder: coder(p, config, "decoder"),
      postQuantConv: config.postQuantConv
        ? p.linear("post_quant_conv", latentChannels, latentChannels)
        : undefined,
      [Symbol.dispose]: () => p[Symbol.dispose](),
    };
    await p.load(options);
    return vae;
  } catch (error) {
    p[Symbol.dispose]();
    throw error;
  }
}

function coder(
  p: Parameters,
  c: VaeConfig,
  kind: "encoder" | "decoder",
): Coder {
  const encode = kind === "encoder";
  const order = encode ? c.channels : c.channels.toReversed();
  const deep = c.channels.at(-1)!;
  const res = (name: string, from: number, to: number): Resnet =>
    resnetParameters(p, `${kind}.${name}.`, {
      from,
      to,
      groups: c.groups,
      eps: EPS,
    });
  const convIn = encode
    ? p.conv3x3("encoder.conv_in", order[0]!, 3)
    : p.conv3x3("decoder.conv_in", deep, c.latentChannels);
  let hidden = order[0]!;
  const stages = order.map((to, i) => {
    const name = `${encode ? "down" : "up"}_blocks.${i}`;
    const resnets = Array.from(
      { length: encode ? c.layers : c.layers + 1 },
      (_, j) => {
        const made = res(`${name}.resnets.${j}`, hidden, to);
        hidden = to;
        return made;
      },
    );
    const path = `${kind}.${name}.${encode ? "down" : "up"}samplers.0.conv`;
    const resample = i === order.length - 1
      ? undefined
      : encode
      ? p.conv(path, to, to)
      : p.conv3x3(path, to, to);
    return { resnets, resample };
  });
  return {
    convIn,
    middle: [
      res("mid_block.resnets.0", deep, deep),
      c.middleAttention
        ? plainAttentionParameters(
          p,
          `${kind}.mid_block.attentions.0.`,
          deep,
          c.groups,
        )
        : undefined,
      res("mid_block.resnets.1", deep, deep),
    ],
    stages,
    normOut: p.affine(`${kind}.conv_norm_out`, hidden),
    convOut: p.conv3x3(
      `${kind}.conv_out`,
      encode ? 2 * c.latentChannels : 3,
      hidden,
    ),
  };
}

/** Sees the output of each stage, under diffusers' name. Not to be kept or disposed. */
export type OnStage = (name: string, value: Tensor) => void;

function middle(
  [first, attention, second]: Coder["middle"],
  x: Tensor,
): Tensor {
  x = into(x, (h) => resnet(first, h));
  if (attention) x = into(x, (h) => plainAttention(attention, h));
  return into(x, (h) => resnet(second, h));
}

function finish(c: Coder, groups: number, x: Tensor): Tensor {
  const norm = { ...c.normOut, groups, eps: EPS, silu: true };
  const { weight, bias } = c.convOut;
  return into(x, (h) => conv3x3(h, weight, { norm, bias }));
}

/**
 * Latent to image.
 *
 * @param latent `[batch, 4, height, width]`, already divided by `config.scalingFactor`.
 * @returns `[batch, 3, 8 height, 8 width]` for four levels, about -1 to 1.
 */
export function vaeDecode(vae: Vae, latent: Tensor, onStage?: OnStage): Tensor {
  const { decoder: d, postQuantConv: post, config } = vae;
  const stage = (name: string, value: Tensor): Tensor => {
    onStage?.(name, value);
    return value;
  };
  using start = stage(
    "post_quant_conv",
    post ? linear(latent, post.weight, { bias: post.bias }) : latent.retain(),
  );
  let x = stage(
    "decoder.conv_in",
    conv3x3(start, d.convIn.weight, { bias: d.convIn.bias }),
  );
  x = stage("decoder.mid_block", middle(d.middle, x));
  d.stages.forEach(({ resnets, resample }, i) => {
    for (const r of resnets) x = into(x, (h) => resnet(r, h));
    if (resample) {
      x = into(
        x,
        (h) => upsample(resample, h, [2 * h.shape[2]!, 2 * h.shape[3]!]),
      );
    }
    stage(`decoder.up_blocks.${i}`, x);
  });
  return finish(d, config.groups, x);
}

/**
 * Image to the moments of its latent.
 *
 * @param image `[batch, 3, height, width]`, -1 to 1; sides are multiples of the VAE's factor.
 * @returns `[batch, 8, ...]`: means, then logarithms of variances (to be clamped to [-30, 20]).
 */
export function vaeEncode(vae: Vae, image: Tensor, onStage?: OnStage): Tensor {
  const { encoder: e, quantConv: quant, config } = vae;
  if (!e) {
    throw new RangeError(
      "Cannot encode an image: the VAE must be loaded with its encoder",
    );
  }
  let x = conv3x3(image, e.convIn.weight, { bias: e.convIn.bias });
  e.stages.forEach(({ resnets, resample }, i) => {
    for (const r of resnets) x = into(x, (h) => resnet(r, h));
    if (resample) x = into(x, (h) => downsample(resample, h, "end"));
    onStage?.(`encoder.down_blocks.${i}`, x);
  });
  x = middle(e.middle, x);
  onStage?.("encoder.mid_block", x);
  x = finish(e, config.groups, x);
  return quant
    ? into(x, (h) => linear(h, quant.weight, { bias: quant.bias }))
    : x;
}
