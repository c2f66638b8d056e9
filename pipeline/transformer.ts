/** The attention blocks of UNet and VAE. */
import {
  type Attended,
  attention,
  type AttentionOptions,
  selfAttention,
} from "../kernels/attention.ts";
import type { Tensor } from "../kernels/backend.ts";
import { linearGeglu } from "../kernels/geglu.ts";
import { groupNorm } from "../kernels/group_norm.ts";
import { layerNorm } from "../kernels/layer_norm.ts";
import { linear } from "../kernels/linear.ts";
import { recompute } from "../kernels/recompute.ts";
import type { Affine, Layer, Parameters } from "./parameters.ts";
import { into } from "./resnet.ts";

/** Asks for and receives attention probabilities while a network runs. */
export interface ProbeHooks {
  /** Key positions wanted at a site such as `mid_block.attentions.0.transformer_blocks.0.attn2`. */
  readonly probe?: (site: string) => readonly number[] | undefined;
  /** Their log-probabilities `[batch, heads, keys, cells]`; the receiver disposes them. */
  readonly onProbe?: (site: string, logProbs: Tensor) => void;
  /** How attention is changed at a site; not while a tape records. See `attention`. */
  readonly edit?: (
    site: string,
  ) => ((weights: Tensor, first: number) => void) | undefined;
  /**
   * Which transformer blocks, named like `mid_block.attentions.0.transformer_blocks.0.`, keep only
   * their input on a tape and are run again on the way back.
   */
  readonly recompute?: ((block: string) => boolean) | undefined;
}

/** Projections of one attention layer. */
export interface Attention {
  /** Queries. */
  readonly q: Layer;
  /** Keys. */
  readonly k: Layer;
  /** Values. */
  readonly v: Layer;
  /** Result. */
  readonly out: Layer;
}

/** Projections of one self-attention layer. */
export interface SelfAttention {
  /** Queries, keys and values of the first head, of the second one, and so on. */
  readonly qkv: Layer;
  /** Result. */
  readonly out: Layer;
}

/** LayerNorm, self-attention, LayerNorm, cross-attention, LayerNorm, GEGLU feed-forward, each plus its input. */
export interface TransformerBlock {
  /** Attention heads. */
  readonly heads: number;
  /** Before self-attention. */
  readonly norm1: Affine;
  /** Self-attention. */
  readonly self: SelfAttention;
  /** Before cross-attention. */
  readonly norm2: Affine;
  /** Attention to the text. */
  readonly cross: Attention;
  /** Before the feed-forward layer. */
  readonly norm3: Affine;
  /** Into GEGLU. */
  readonly expand: Layer;
  /** Out of it. */
  readonly shrink: Layer;
}

/** Sizes of a transformer. */
export interface TransformerSize {
  /** Channels, in and out. */
  readonly channels: number;
  /** Attention heads. */
  readonly heads: number;
  /** Channels of the text states. */
  readonly text: number;
  /** GroupNorm groups. */
  readonly groups: number;
  /** Number of blocks. */
  readonly depth: number;
}

function selfAttentionParameters(
  p: Parameters,
  name: string,
  { channels, heads }: TransformerSize,
): SelfAttention {
  const layers = ["to_q", "to_k", "to_v"].map((part) => ({
    name: `${name}.${part}`,
    out: channels,
  }));
  return {
    qkv: p.stacked(layers, channels, { turns: heads, bias: false }),
    out: p.linear(`${name}.to_out.0`, channels, channels),
  };
}

function crossAttentionParameters(
  p: Parameters,
  name: string,
  { channels, text }: TransformerSize,
): Attention {
  return {
    q: p.linear(`${name}.to_q`, channels, channels, false),
    k: p.linear(`${name}.to_k`, channels, text, false),
    v: p.linear(`${name}.to_v`, channels, text, false),
    out: p.linear(`${name}.to_out.0`, channels, channels),
  };
}

/** Asks for the weights of diffusers' `BasicTransformerBlock`. */
export function transformerBlockParameters(
  p: Parameters,
  name: string,
  size: TransformerSize,
): TransformerBlock {
  const { channels, heads } = size;
  return {
    heads,
    norm1: p.affine(`${name}norm1`, channels),
    self: selfAttentionParameters(p, `${name}attn1`, size),
    norm2: p.affine(`${name}norm2`, channels),
    cross: crossAttentionParameters(p, `${name}attn2`, size),
    norm3: p.affine(`${name}norm3`, channels),
    expand: p.linear(`${name}ff.net.0.proj`, 8 * channels, channels),
    shrink: p.linear(`${name}ff.net.2`, channels, 4 * channels),
  };
}

const LAYER_NORM_EPS = 1e-5;

/** Keys and values of one attention layer. */
export interface KeysAndValues {
  /** `[batch, channels, ...space]`. */
  readonly k: Tensor;
  /** Like `k`. */
  readonly v: Tensor;
}

/** What cross-attention attends to. */
export interface TextContext {
  /** `[batch, text channels, tokens]`. */
  readonly states: Tensor;
  /**
   * What each attention layer made of the states. Filled where it is empty, so that a prompt is
   * projected once and not in every pass; the owner disposes the tensors.
   */
  readonly projected?: Map<Attention, KeysAndValues> | undefined;
}

/** The projections of `states`, which the caller disposes. */
function keysAndValues(
  a: Attention,
  { states, projected }: TextContext,
): KeysAndValues {
  const known = projected?.get(a);
  if (known) return { k: known.k.retain(), v: known.v.retain() };
  const made = {
    k: linear(states, a.k.weight),
    v: linear(states, a.v.weight),
  };
  projected?.set(a, { k: made.k.retain(), v: made.v.retain() });
  return made;
}

/** Runs attention for the hooks of a site, projects what it gives and adds that to `residual`. */
function attend(
  run: (options: AttentionOptions) => Attended,
  out: Layer,
  residual: Tensor,
  { heads, site, hooks }: { heads: number; site: string; hooks: ProbeHooks },
): Tensor {
  const { out: made, logProbs } = run({
    heads,
    probe: hooks.probe?.(site),
    edit: hooks.edit?.(site),
  });
  using attended = made;
  if (logProbs) hooks.onProbe?.(site, logProbs);
  return linear(attended, out.weight, { bias: out.bias, residual });
}

/**
 * Runs one transformer block.
 *
 * @param x `[batch, channels, ...space]`.
 * @param site Name for the hooks, ending in a dot or empty.
 */
export function transformerBlock(
  b: TransformerBlock,
  x: Tensor,
  text: TextContext,
  site: string,
  hooks: ProbeHooks,
): Tensor {
  const { heads } = b;
  using n1 = layerNorm(x, b.norm1.weight, b.norm1.bias, LAYER_NORM_EPS);
  using x1 = attend(
    (options) => {
      using qkv = linear(n1, b.self.qkv.weight);
      return selfAttention(qkv, options);
    },
    b.self.out,
    x,
    { heads, site: `${site}attn1`, hooks },
  );
  using n2 = layerNorm(x1, b.norm2.weight, b.norm2.bias, LAYER_NORM_EPS);
  using x2 = attend(
    (options) => {
      using q = linear(n2, b.cross.q.weight);
      const { k: keys, v: values } = keysAndValues(b.cross, text);
      using k = keys;
      using v = values;
      return attention(q, k, v, options);
    },
    b.cross.out,
    x1,
    { heads, site: `${site}attn2`, hooks },
  );
  using n3 = layerNorm(x2, b.norm3.weight, b.norm3.bias, LAYER_NORM_EPS);
  using gated = linearGeglu(n3, b.expand.weight, b.expand.bias!);
  return linear(gated, b.shrink.weight, { bias: b.shrink.bias, residual: x2 });
}

/** `transformerBlock` that keeps its input alone on a tape; its probes are results like any other. */
function thriftyBlock(
  b: TransformerBlock,
  x: Tensor,
  text: TextContext,
  site: string,
  hooks: ProbeHooks,
): Tensor {
  const { probe } = hooks;
  const names: string[] = [];
  const [y, ...probes] = recompute([x], () => {
    const found: Tensor[] = [];
    names.length = 0;
    const out = transformerBlock(b, x, text, site, {
      ...probe ? { probe } : {},
      onProbe: (name, logProbs) => {
        names.push(name);
        found.push(logProbs);
      },
    });
    return [out, ...found];
  });
  probes.forEach((logProbs, i) => hooks.onProbe?.(names[i]!, logProbs));
  return y!;
}

/** GroupNorm, projection, transformer blocks, projection, plus the input. */
export interface Transformer {
  /** GroupNorm groups. */
  readonly groups: number;
  /** GroupNorm, eps 1e-6. */
  readonly norm: Affine;
  /** Before the blocks. */
  readonly projectIn: Layer;
  /** In order. */
  readonly blocks: readonly TransformerBlock[];
  /** After them. */
  readonly projectOut: Layer;
}

/** Asks for the weights of diffusers' `Transformer2DModel`; its projections may be linear or 1x1. */
export function transformerParameters(
  p: Parameters,
  name: string,
  size: TransformerSize,
): Transformer {
  const { channels, groups, depth } = size;
  return {
    groups,
    norm: p.affine(`${name}norm`, channels),
    projectIn: p.linear(`${name}proj_in`, channels, channels),
    blocks: Array.from(
      { length: depth },
      (_, i) =>
        transformerBlockParameters(p, `${name}transformer_blocks.${i}.`, size),
    ),
    projectOut: p.linear(`${name}proj_out`, channels, channels),
  };
}

/** Runs a transformer over the cells of `x` `[batch, channels, height, width]`. */
export function transformer(
  t: Transformer,
  x: Tensor,
  text: TextContext,
  site: string,
  hooks: ProbeHooks,
): Tensor {
  using normed = groupNorm(x, t.norm.weight, t.norm.bias, {
    groups: t.groups,
    eps: 1e-6,
  });
  let hidden = linear(normed, t.projectIn.weight, { bias: t.projectIn.bias });
  t.blocks.forEach((block, i) => {
    hidden = into(
      hidden,
      (h) => {
        const name = `${site}transformer_blocks.${i}.`;
        const run = hooks.recompute?.(name) ? thriftyBlock : transformerBlock;
        return run(block, h, text, name, hooks);
      },
    );
  });
  using last = hidden;
  return linear(last, t.projectOut.weight, {
    bias: t.projectOut.bias,
    residual: x,
  });
}

/** Self-attention with one head and biases, as in the VAE's middle. */
export interface PlainAttention extends Attention {
  /** GroupNorm groups. */
  readonly groups: number;
  /** GroupNorm, eps 1e-6. */
  readonly norm: Affine;
}

/** Asks for the weights of the VAE's attention; published SD1.5 files use the older names. */
export function plainAttentionParameters(
  p: Parameters,
  name: string,
  channels: number,
  groups: number,
): PlainAttention {
  const old = p.has(`${name}query.weight`);
  const layer = (now: string, before: string): Layer =>
    p.linear(name + (old ? before : now), channels, channels);
  return {
    groups,
    norm: p.affine(`${name}group_norm`, channels),
    q: layer("to_q", "query"),
    k: layer("to_k", "key"),
    v: layer("to_v", "value"),
    out: layer("to_out.0", "proj_attn"),
  };
}

/** GroupNorm (eps 1e-6), attention over the cells, plus the input. */
export function plainAttention(a: PlainAttention, x: Tensor): Tensor {
  using n = groupNorm(x, a.norm.weight, a.norm.bias, {
    groups: a.groups,
    eps: 1e-6,
  });
  using q = linear(n, a.q.weight, { bias: a.q.bias });
  using k = linear(n, a.k.weight, { bias: a.k.bias });
  using v = linear(n, a.v.weight, { bias: a.v.bias });
  using attended = attention(q, k, v, { heads: 1 }).out;
  return linear(attended, a.out.weight, { bias: a.out.bias, residual: x });
}
