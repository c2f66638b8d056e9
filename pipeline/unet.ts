/**
 * latent, timestep, text states -> predicted noise, with attention probes on the way.
 *
 * The SD1.x, SD2.x and SDXL families of diffusers' `UNet2DConditionModel`, built from its `config.json`. Written once,
 * as a forward pass: on a tape its input gradient comes for free.
 */
import { activation } from "../kernels/activation.ts";
import type { Backend, Tensor } from "../kernels/backend.ts";
import { add } from "../kernels/combine.ts";
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
  type ProbeHooks,
  type Transformer,
  transformer,
  transformerParameters,
} from "./transformer.ts";
import { type Affine, type Layer, Parameters } from "./parameters.ts";
import type { LoadOptions, WeightSource } from "./weight_source.ts";
import type { Conditioning } from "./conditioning.ts";
import { TimeLayers, timeShifts } from "./time_layers.ts";
import { sinusoid } from "./timestep.ts";
import { type UnetConfig, unetConfig } from "./unet_config.ts";

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
  /** The pass ends with this transformer, such as `up_blocks.1.attentions.0.`: what follows is not needed. */
  readonly until?: string | undefined;
}

/**
 * What a pass is told of its timestep.
 *
 * @param timestep Train timestep, 0 to 999, the same for the batch.
 * @param conditioning That of the pass.
 * @returns `[batch, channels, 1]`, the sinusoid of the timestep; batch 1 where the conditioning adds nothing.
 */
export function timestepWave(
  { backend, config }: Unet,
  timestep: number,
  { added }: Pick<Conditioning, "added">,
): Tensor {
  const first = config.channels[0]!;
  const batch = added?.shape[0] ?? 1;
  const one = sinusoid(timestep, first, config);
  const waves = new Float32Array(batch * first);
  for (let b = 0; b < batch; b++) waves.set(one, b * first);
  return backend.upload(waves, [batch, first, 1]);
}

/**
 * One pass.
 *
 * @param latent `[batch, 4, height, width]`, any grid of at least one cell.
 * @param timestep Train timestep, 0 to 999, the same for the batch; or its `timestepWave`, which is not consumed.
 * @param conditioning Text states, and what SDXL adds, for the same batch.
 * @returns The model's output (noise for epsilon models), like `latent`; empty if the pass ends early.
 */
export function unetForward(
  unet: Unet,
  latent: Tensor,
  timestep: number | Tensor,
  conditioning: Conditioning,
  hooks: UnetHooks = {},
): Tensor {
  const { backend } = unet;
  using wave = typeof timestep === "number"
    ? timestepWave(unet, timestep, conditioning)
    : timestep.retain();
  backend.halfProducts = true; // UNets are published to run in 16 bits
  try {
    return forward(unet, latent, wave, conditioning, hooks);
  } finally {
    backend.halfProducts = false;
  }
}

function forward(
  unet: Unet,
  latent: Tensor,
  wave: Tensor,
  conditioning: Conditioning,
  hooks: UnetHooks,
): Tensor {
  const { config } = unet;
  const text = conditioning;
  const stage = (name: string, value: Tensor): Tensor => {
    hooks.onStage?.(name, value);
    return value;
  };
  using embedding = timeEmbedding(unet, wave, conditioning, hooks);
  using time = activation(embedding, "silu"); // every resnet starts with it
  using shifts = timeShifts(unet.shifts, time);

  let x = stage(
    "conv_in",
    conv3x3(latent, unet.convIn.weight, { bias: unet.convIn.bias }),
  );
  const skips = [x.retain()];
  /** Whether the pass ends with this transformer. */
  const attend = (t: Transformer, name: string): boolean => {
    x = into(x, (h) => transformer(t, h, text, name, hooks));
    if (name !== hooks.until) return false;
    for (const y of [x, ...skips]) y.dispose();
    return true;
  };
  const nothing = (): Tensor => unet.backend.alloc([0]);
  for (const [i, block] of unet.down.entries()) {
    for (const [j, r] of block.resnets.entries()) {
      x = into(x, (h) => resnet(r, h, shifts));
      const t = block.transformers[j];
      if (t && attend(t, `down_blocks.${i}.attentions.${j}.`)) return nothing();
      skips.push(x.retain());
    }
    const { resample } = block;
    if (resample) {
      x = into(x, (h) => downsample(resample, h, "same"));
      skips.push(x.retain());
    }
    stage(`down_blocks.${i}`, x);
  }

  x = into(x, (h) => resnet(unet.middle.resnets[0]!, h, shifts));
  if (attend(unet.middle.transformers[0]!, "mid_block.attentions.0.")) {
    return nothing();
  }
  x = stage(
    "mid_block",
    into(x, (h) => resnet(unet.middle.resnets[1]!, h, shifts)),
  );

  for (const [i, block] of unet.up.entries()) {
    for (const [j, r] of block.resnets.entries()) {
      using skip = skips.pop()!;
      x = into(x, (h) => resnet(r, h, shifts, skip));
      const t = block.transformers[j];
      if (t && attend(t, `up_blocks.${i}.attentions.${j}.`)) return nothing();
    }
    const { resample } = block;
    if (resample) {
      // The grid of the level above, which may be one less than twice this one.
      const [, , height = 0, width = 0] = skips.at(-1)!.shape;
      x = into(x, (h) => upsample(resample, h, [height, width]));
    }
    stage(`up_blocks.${i}`, x);
  }

  const { groups, eps } = config;
  const norm = { ...unet.normOut, groups, eps, silu: true };
  const { weight, bias } = unet.convOut;
  return into(x, (h) => conv3x3(h, weight, { norm, bias }));
}

/** `[1, time, 1]`, or with SDXL's additions `[batch, time, 1]`. */
function timeEmbedding(
  unet: Unet,
  wave: Tensor,
  { added }: Conditioning,
  { onStage }: UnetHooks,
): Tensor {
  const { time1, time2 } = unet;
  if (!unet.added !== !added) {
    throw new RangeError(
      `Cannot run the UNet: pooled text and sizes must be given to SDXL, and to no other: current conditioning has ${
        added ? "them" : "none"
      }`,
    );
  }
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
