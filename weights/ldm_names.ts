// ldm_names: the UNet and the VAE of a single file <-> diffusers' names.
//
//   UNet   input_blocks.0.0                 conv_in
//          input_blocks.n.{0,1}             down_blocks.i.{resnets,attentions}.j
//          input_blocks.n.0.op              down_blocks.i.downsamplers.0.conv
//          middle_block.{0,1,2}             mid_block.{resnets.0,attentions.0,resnets.1}
//          output_blocks.n.{0,1}            up_blocks.i.{resnets,attentions}.j
//          output_blocks.n.{1,2}.conv       up_blocks.i.upsamplers.0.conv
//          out.{0,2}                        conv_norm_out, conv_out
//          time_embed.{0,2}                 time_embedding.linear_{1,2}
//          label_emb.0.{0,2}                add_embedding.linear_{1,2}
//   VAE    encoder.down.i.block.j           encoder.down_blocks.i.resnets.j
//          decoder.up.(last - i).block.j    decoder.up_blocks.i.resnets.j
//          mid.{block_1,attn_1,block_2}     mid_block.{resnets.0,attentions.0,resnets.1}
//
// n counts blocks of layers_per_block + 1: on the way down the last of a level is its downsampler,
// on the way up every level has one resnet more. Inside a transformer both sides agree.
// Source: diffusers, `convert_ldm_unet_checkpoint` and `convert_ldm_vae_checkpoint`.
import { type LdmTensor, LdmTensors } from "./ldm_tensors.ts";

/** LDM's names inside a resnet of the UNet, and diffusers'. */
const RESNET = {
  norm1: "in_layers.0",
  conv1: "in_layers.2",
  time_emb_proj: "emb_layers.1",
  norm2: "out_layers.0",
  conv2: "out_layers.3",
  conv_shortcut: "skip_connection",
};
/** The same inside one of the VAE. */
const VAE_RESNET = {
  norm1: "norm1",
  conv1: "conv1",
  time_emb_proj: undefined,
  norm2: "norm2",
  conv2: "conv2",
  conv_shortcut: "nin_shortcut",
};
/** LDM's names inside the VAE's attention, and diffusers'. */
const VAE_ATTENTION = {
  q: "to_q",
  k: "to_k",
  v: "to_v",
  proj_out: "to_out.0",
};

/** Sizes of a UNet, as its tensors say them. */
export interface UnetSizes {
  /** Channels of the latent. */
  readonly inChannels: number;
  /** Channels of the prediction. */
  readonly outChannels: number;
  /** Per level, outermost first. */
  readonly channels: readonly number[];
  /** Resnets per level on the way down. */
  readonly layers: number;
  /** Transformer blocks per level, 0 where a level does not attend on the way down. */
  readonly downDepth: readonly number[];
  /** The same in the middle. */
  readonly middleDepth: number;
  /** The same on the way up, deepest level first. */
  readonly upDepth: readonly number[];
  /** Channels of the text states. */
  readonly text: number;
  /** Transformers project by linear layers instead of 1x1 convolutions. */
  readonly linear: boolean;
  /** SDXL: channels of what is added to the time embedding. */
  readonly added: number | undefined;
}

/** Sizes of a VAE, as its tensors say them. */
export interface VaeSizes {
  /** Per level, outermost first. */
  readonly channels: readonly number[];
  /** Resnets per level of the encoder. */
  readonly layers: number;
  /** Channels of the latent. */
  readonly latent: number;
  /** Whether the middle attends. */
  readonly attention: boolean;
  /** Whether there is a 1x1 convolution after the encoder. */
  readonly quantConv: boolean;
  /** Whether there is one before the decoder. */
  readonly postQuantConv: boolean;
}

/**
 * Every tensor of a UNet.
 *
 * @param prefix Before every name in the file.
 * @returns In the order of execution.
 */
export function unetTensors(prefix: string, c: UnetSizes): LdmTensor[] {
  const t = new LdmTensors(prefix);
  const levels = c.channels.length;
  const first = c.channels[0]!;
  const last = c.channels[levels - 1]!;
  const time = 4 * first;
  const res = (ldm: string, name: string, from: number, to: number): void =>
    resnet(t, RESNET, ldm, name, { from, to, time });
  const attend = (ldm: string, name: string, size: number, depth: number) =>
    transformer(t, ldm, name, { ...c, channels: size, depth });

  t.layer("time_embed.0", "time_embedding.linear_1", [time, first]);
  t.layer("time_embed.2", "time_embedding.linear_2", [time, time]);
  if (c.added !== undefined) {
    t.layer("label_emb.0.0", "add_embedding.linear_1", [time, c.added]);
    t.layer("label_emb.0.2", "add_embedding.linear_2", [time, time]);
  }
  t.layer("input_blocks.0.0", "conv_in", [first, c.inChannels, 3, 3]);
  let from = first;
  const skips = [first]; // channels of the stack of skip connections
  c.channels.forEach((to, i) => {
    const name = `down_blocks.${i}`;
    const block = 1 + i * (c.layers + 1);
    for (let j = 0; j < c.layers; j++) {
      const ldm = `input_blocks.${block + j}`;
      res(`${ldm}.0`, `${name}.resnets.${j}`, from, to);
      if (c.downDepth[i]) {
        attend(`${ldm}.1`, `${name}.attentions.${j}`, to, c.downDepth[i]!);
      }
      skips.push(from = to);
    }
    if (i === levels - 1) return;
    const ldm = `input_blocks.${block + c.layers}.0.op`;
    t.layer(ldm, `${name}.downsamplers.0.conv`, [to, to, 3, 3]);
    skips.push(to);
  });
  res("middle_block.0", "mid_block.resnets.0", last, last);
  attend("middle_block.1", "mid_block.attentions.0", last, c.middleDepth);
  res("middle_block.2", "mid_block.resnets.1", last, last);
  c.channels.toReversed().forEach((to, i) => {
    const name = `up_blocks.${i}`;
    const block = i * (c.layers + 1);
    const depth = c.upDepth[i]!;
    for (let j = 0; j <= c.layers; j++) {
      const ldm = `output_blocks.${block + j}`;
      res(`${ldm}.0`, `${name}.resnets.${j}`, from + skips.pop()!, to);
      if (depth) attend(`${ldm}.1`, `${name}.attentions.${j}`, to, depth);
      from = to;
    }
    if (i === levels - 1) return;
    const ldm = `output_blocks.${block + c.layers}.${depth ? 2 : 1}.conv`;
    t.layer(ldm, `${name}.upsamplers.0.conv`, [to, to, 3, 3]);
  });
  t.layer("out.0", "conv_norm_out", [first]);
  t.layer("out.2", "conv_out", [c.outChannels, first, 3, 3]);
  return t.all;
}

function resnet(
  t: LdmTensors,
  names: typeof RESNET | typeof VAE_RESNET,
  ldm: string,
  name: string,
  { from, to, time }: { from: number; to: number; time: number },
): void {
  const shapes = {
    norm1: [from],
    conv1: [to, from, 3, 3],
    time_emb_proj: [to, time],
    norm2: [to],
    conv2: [to, to, 3, 3],
    conv_shortcut: from === to ? undefined : [to, from, 1, 1],
  };
  for (const [part, shape] of Object.entries(shapes)) {
    const other = names[part as keyof typeof shapes];
    if (shape && other) t.layer(`${ldm}.${other}`, `${name}.${part}`, shape);
  }
}

function transformer(
  t: LdmTensors,
  ldm: string,
  name: string,
  { channels, depth, text, linear }: {
    readonly channels: number;
    readonly depth: number;
    readonly text: number;
    readonly linear: boolean;
  },
): void {
  const same = (part: string, shape: readonly number[], bias = true): void =>
    t.layer(`${ldm}.${part}`, `${name}.${part}`, shape, bias);
  const projection = [channels, channels, ...linear ? [] : [1, 1]];
  same("norm", [channels]);
  same("proj_in", projection);
  for (let i = 0; i < depth; i++) {
    const block = `transformer_blocks.${i}`;
    for (
      const [attn, keys] of [["attn1", channels], ["attn2", text]] as const
    ) {
      same(`${block}.${attn}.to_q`, [channels, channels], false);
      same(`${block}.${attn}.to_k`, [channels, keys], false);
      same(`${block}.${attn}.to_v`, [channels, keys], false);
      same(`${block}.${attn}.to_out.0`, [channels, channels]);
    }
    same(`${block}.ff.net.0.proj`, [8 * channels, channels]); // GEGLU: 4, twice
    same(`${block}.ff.net.2`, [channels, 4 * channels]);
    for (const norm of [1, 2, 3]) same(`${block}.norm${norm}`, [channels]);
  }
  same("proj_out", projection);
}

/**
 * Every tensor of a VAE.
 *
 * @param prefix Before every name in the file.
 * @returns Encoder, then decoder.
 */
export function vaeTensors(prefix: string, c: VaeSizes): LdmTensor[] {
  const t = new LdmTensors(prefix);
  const levels = c.channels.length;
  const deep = c.channels[levels - 1]!;
  const res = (ldm: string, name: string, from: number, to: number): void =>
    resnet(t, VAE_RESNET, ldm, name, { from, to, time: 0 });
  const middle = (side: string): void => {
    res(`${side}.mid.block_1`, `${side}.mid_block.resnets.0`, deep, deep);
    if (c.attention) {
      const ldm = `${side}.mid.attn_1`;
      const name = `${side}.mid_block.attentions.0`;
      t.layer(`${ldm}.norm`, `${name}.group_norm`, [deep]);
      for (const [part, other] of Object.entries(VAE_ATTENTION)) {
        t.layer(`${ldm}.${part}`, `${name}.${other}`, [deep, deep]);
      }
    }
    res(`${side}.mid.block_2`, `${side}.mid_block.resnets.1`, deep, deep);
  };

  t.layer("encoder.conv_in", "encoder.conv_in", [c.channels[0]!, 3, 3, 3]);
  let from = c.channels[0]!;
  c.channels.forEach((to, i) => {
    const name = `encoder.down_blocks.${i}`;
    for (let j = 0; j < c.layers; j++) {
      res(`encoder.down.${i}.block.${j}`, `${name}.resnets.${j}`, from, to);
      from = to;
    }
    if (i === levels - 1) return;
    const ldm = `encoder.down.${i}.downsample.conv`;
    t.layer(ldm, `${name}.downsamplers.0.conv`, [to, to, 3, 3]);
  });
  middle("encoder");
  t.layer("encoder.norm_out", "encoder.conv_norm_out", [deep]);
  t.layer("encoder.conv_out", "encoder.conv_out", [2 * c.latent, deep, 3, 3]);
  if (c.quantConv) {
    t.layer("quant_conv", "quant_conv", [2 * c.latent, 2 * c.latent, 1, 1]);
  }
  if (c.postQuantConv) {
    t.layer("post_quant_conv", "post_quant_conv", [c.latent, c.latent, 1, 1]);
  }
  t.layer("decoder.conv_in", "decoder.conv_in", [deep, c.latent, 3, 3]);
  middle("decoder");
  from = deep;
  c.channels.toReversed().forEach((to, i) => {
    const name = `decoder.up_blocks.${i}`;
    const level = levels - 1 - i;
    for (let j = 0; j <= c.layers; j++) {
      res(`decoder.up.${level}.block.${j}`, `${name}.resnets.${j}`, from, to);
      from = to;
    }
    if (i === levels - 1) return;
    const ldm = `decoder.up.${level}.upsample.conv`;
    t.layer(ldm, `${name}.upsamplers.0.conv`, [to, to, 3, 3]);
  });
  t.layer("decoder.norm_out", "decoder.conv_norm_out", [from]);
  t.layer("decoder.conv_out", "decoder.conv_out", [3, from, 3, 3]);
  return t.all;
}
