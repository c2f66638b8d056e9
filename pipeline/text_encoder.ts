/** token ids -> text states: the CLIP text encoder, built from its `config.json`. */
import { type Activation, activation } from "../kernels/activation.ts";
import { attention } from "../kernels/attention.ts";
import type { Backend, Tensor } from "../kernels/backend.ts";
import { gatherRows } from "../kernels/gather_rows.ts";
import { gemm } from "../kernels/gemm.ts";
import { layerNorm } from "../kernels/layer_norm.ts";
import { linear } from "../kernels/linear.ts";
import { into } from "./resnet.ts";
import { readConfig } from "./config.ts";
import { type Affine, type Layer, Parameters } from "./parameters.ts";
import type { LoadOptions, WeightSource } from "./weight_source.ts";

/** What the config of a text encoder says, checked. */
export interface TextConfig {
  /** Rows of the token embedding. */
  readonly vocabulary: number;
  /** Channels of the states. */
  readonly channels: number;
  /** Channels inside the feed-forward layer. */
  readonly inner: number;
  /** Number of layers. */
  readonly layers: number;
  /** Attention heads. */
  readonly heads: number;
  /** Positions. */
  readonly length: number;
  /** Of the feed-forward layer. */
  readonly activation: Activation;
  /** Of the layer norms. */
  readonly eps: number;
  /** Channels of the text projection, where there is one. */
  readonly projection: number;
  /** The id that ends a text, as the config says: 2 in most, whatever the tokenizer has. */
  readonly eos: number;
}

/** Reads and checks a text encoder's `config.json`. */
export function textConfig(
  config: Readonly<Record<string, unknown>>,
  name: string,
): TextConfig {
  const read = readConfig(config, name);
  read.only("hidden_act", ["quick_gelu", "gelu", undefined]);
  return {
    vocabulary: read.integer("vocab_size", 49408),
    channels: read.integer("hidden_size", 512),
    inner: read.integer("intermediate_size", 2048),
    layers: read.integer("num_hidden_layers", 12),
    heads: read.integer("num_attention_heads", 8),
    length: read.integer("max_position_embeddings", 77),
    activation: read.string("hidden_act", "quick_gelu") as Activation,
    eps: read.number("layer_norm_eps", 1e-5),
    projection: read.integer("projection_dim", 512),
    eos: read.integer("eos_token_id", 2),
  };
}

/** One transformer layer. */
export interface TextLayer {
  /** Before attention. */
  readonly norm1: Affine;
  /** Queries. */
  readonly q: Layer;
  /** Keys. */
  readonly k: Layer;
  /** Values. */
  readonly v: Layer;
  /** After attention. */
  readonly out: Layer;
  /** Before the feed-forward layer. */
  readonly norm2: Affine;
  /** Into it. */
  readonly expand: Layer;
  /** Out of it. */
  readonly shrink: Layer;
}

/** A text encoder whose weights are on a backend. */
export interface TextEncoder extends Disposable {
  /** Where it lives. */
  readonly backend: Backend;
  /** Its sizes. */
  readonly config: TextConfig;
  /** Token embedding, `[vocabulary, channels]`, in parts of some rows where an adapter needs that. */
  readonly tokens: readonly Tensor[];
  /** Position embedding, `[length, channels]`. */
  readonly positions: Tensor;
  /** The layers in order. */
  readonly layers: readonly TextLayer[];
  /** The last LayerNorm. */
  readonly norm: Affine;
  /** `[projection, channels]`, where the checkpoint has one. */
  readonly projection: Tensor | undefined;
}

/**
 * Builds a text encoder and loads it.
 *
 * @param options.projection It must have a text projection, as SDXL's second has. Default: if it is there.
 */
export async function loadTextEncoder(
  backend: Backend,
  source: WeightSource & { readonly config: Readonly<Record<string, unknown>> },
  options: LoadOptions & { readonly projection?: boolean } = {},
): Promise<TextEncoder> {
  const config = textConfig(source.config, source.name);
  const { channels, inner, vocabulary, length } = config;
  const p = new Parameters(backend, source, options.storage);
  try {
    const layer = (name: string): TextLayer => ({
      norm1: p.affine(`${name}.layer_norm1`, channels),
      q: p.linear(`${name}.self_attn.q_proj`, channels, channels),
      k: p.linear(`${name}.self_attn.k_proj`, channels, channels),
      v: p.linear(`${name}.self_attn.v_proj`, channels, channels),
      out: p.linear(`${name}.self_attn.out_proj`, channels, channels),
      norm2: p.affine(`${name}.layer_norm2`, channels),
      expand: p.linear(`${name}.mlp.fc1`, inner, channels),
      shrink: p.linear(`${name}.mlp.fc2`, channels, inner),
    });
    const encoder = {
      backend,
      config,
      tokens: p.rows("text_model.embeddings.token_embedding.weight", [
        vocabulary,
        channels,
      ]),
      positions: p.tensor("text_model.embeddings.position_embedding.weight", [
        length,
        channels,
      ]),
      layers: Array.from(
        { length: config.layers },
        (_, i) => layer(`text_model.encoder.layers.${i}`),
      ),
      norm: p.affine("text_model.final_layer_norm", channels),
      projection: options.projection ?? p.has("text_projection.weight")
        ? p.matrix("text_projection.weight", [config.projection, channels])
        : undefined,
      [Symbol.dispose]: () => p[Symbol.dispose](),
    };
    // A list 0 to 76 that old checkpoints carry.
    p.skip("text_model.embeddings.position_ids");
    await p.load(options);
    return encoder;
  } catch (error) {
    p[Symbol.dispose]();
    throw error;
  }
}

/**
 * Runs the encoder. Attention is causal; padding is not masked.
 *
 * @param ids One list of token ids per prompt, all as long.
 * @param onHidden Sees `hidden_states.i`: the embeddings, then each layer's output. Not to be kept.
 * @returns `[prompts, channels, tokens]` after the final LayerNorm (what SD1.x conditions on).
 * @see Radford et al. 2021, arXiv:2103.00020.
 */
export function encodeText(
  encoder: TextEncoder,
  ids: readonly Int32Array[],
  onHidden?: (index: number, value: Tensor) => void,
): Tensor {
  const { layers, norm, config: { eps } } = encoder;
  return into(
    runLayers(encoder, ids, layers.length, onHidden),
    (h) => layerNorm(h, norm.weight, norm.bias, eps),
  );
}

/**
 * What SDXL takes of an encoder.
 *
 * @param ids Token ids of one prompt.
 * @param pool Also the pooled text; the encoder must have a projection.
 * @returns `states` `[1, channels, tokens]`, before the last layer and without the final LayerNorm;
 *   `pooled` `[1, projection, 1]`, the projected last state of the end of the text.
 */
export function encodePenultimate(
  encoder: TextEncoder,
  ids: Int32Array,
  pool: boolean,
): { readonly states: Tensor; readonly pooled: Tensor | undefined } {
  const { layers, projection, backend, config: { channels } } = encoder;
  const before = layers.length - 1;
  if (!pool) {
    return { states: runLayers(encoder, [ids], before), pooled: undefined };
  }
  if (!projection) {
    throw new RangeError(
      "Cannot pool a text: its encoder must have a text projection",
    );
  }
  let states: Tensor | undefined;
  using last = encodeText(encoder, [ids], (i, x) => {
    if (i === before) states = x.retain();
  });
  const tokens = ids.length;
  const chosen = new Float32Array(tokens);
  chosen[endOfText(ids, encoder.config.eos)] = 1;
  using column = backend.upload(chosen, [tokens, 1]);
  using end = backend.alloc([1, channels, 1]);
  gemm(
    [channels, 1, tokens],
    { tensor: last, stride: tokens },
    { tensor: column, stride: 1 },
    { tensor: end, stride: 1 },
  );
  return { states: states!, pooled: linear(end, projection) };
}

/**
 * Where a text ends: at the largest id where the config's `eos_token_id` is 2, as in all published
 * checkpoints, which then do not mean it; else at the first of that id.
 *
 * @see transformers `CLIPTextTransformer.forward`.
 */
export function endOfText(ids: Int32Array, eos: number): number {
  return Math.max(0, ids.indexOf(eos === 2 ? Math.max(...ids) : eos));
}

/** Embeddings and the first `count` layers. */
function runLayers(
  encoder: TextEncoder,
  ids: readonly Int32Array[],
  count: number,
  onHidden?: (index: number, value: Tensor) => void,
): Tensor {
  const { config: { heads, eps, activation: kind } } = encoder;
  let x = gatherRows(encoder.tokens, encoder.positions, ids);
  onHidden?.(0, x);
  encoder.layers.slice(0, count).forEach((layer, i) => {
    x = into(x, (h) => {
      using n1 = layerNorm(h, layer.norm1.weight, layer.norm1.bias, eps);
      using q = linear(n1, layer.q.weight, { bias: layer.q.bias });
      using k = linear(n1, layer.k.weight, { bias: layer.k.bias });
      using v = linear(n1, layer.v.weight, { bias: layer.v.bias });
      using attended = attention(q, k, v, { heads, causal: true }).out;
      using x1 = linear(attended, layer.out.weight, {
        bias: layer.out.bias,
        residual: h,
      });
      using n2 = layerNorm(x1, layer.norm2.weight, layer.norm2.bias, eps);
      using wide = linear(n2, layer.expand.weight, { bias: layer.expand.bias });
      using active = activation(wide, kind);
      return linear(active, layer.shrink.weight, {
        bias: layer.shrink.bias,
        residual: x1,
      });
    });
    onHidden?.(i + 1, x);
  });
  return x;
}
