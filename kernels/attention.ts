/**
 * Attention without an N x N matrix: in the gpu family by the kernels of `flash_attention.ts`, in the
 * software family by those of `flash_texel.ts`. Where these cannot or should not, as with an
 * autoencoder's one wide head, in chunks of queries: scores of one chunk by a matrix product, softmax
 * over the keys, values by a matrix product; the way back computes each chunk's probabilities again.
 *
 * Probes: for chosen keys (text tokens) the log-probabilities come out as a second, differentiable
 * result. Their gradient is `h = dE/d log a = a dE/da`, which is bounded, and the softmax Jacobian
 * over the keys becomes `dS_uj = h_uj [j probed] - p_uj sum_i h_ui`.
 */
import probeWgsl from "./attention_probe.wgsl" with { type: "text" };
import foursWgsl from "./fours.wgsl" with { type: "text" };
import onesWgsl from "./ones.wgsl" with { type: "text" };
import scaleWgsl from "./scale_columns.wgsl" with { type: "text" };
import gradWgsl from "./softmax_grad.wgsl" with { type: "text" };
import {
  attentionProbeRef,
  scaleColumnsRef,
  softmaxGradRef,
} from "./attention_ref.ts";
import {
  channelMajor,
  elementGroups,
  expectShape,
  type Kernel,
  record,
  runGroups,
  type Tensor,
} from "./backend.ts";
import {
  FLASH_WIDTH,
  flashAttention,
  flashAttentionGrad,
} from "./flash_attention.ts";
import {
  fitsFlashTexel,
  fitsFlashTexelGrad,
  flashTexel,
  flashTexelGrad,
} from "./flash_texel.ts";
import { attentionRows } from "./attention_rows.ts";
import { gemm } from "./gemm.ts";
import {
  headMatrix,
  headNames,
  headParams,
  type Heads,
  packedHeads,
  wholeHeads,
} from "./heads.ts";
import { keySums } from "./key_sums.ts";
import { fours, packedPair, packLines } from "./pack_lines.ts";
import { softmaxColumns } from "./softmax.ts";

const SCALE: Kernel = {
  name: "scale_columns",
  wgsl: scaleWgsl,
  bindings: "wr",
  params: ["count", "width", "queries"],
  ref: scaleColumnsRef,
};
const PROBE: Kernel = {
  name: "attention_probe",
  wgsl: probeWgsl,
  bindings: "rrrrw",
  params: [
    "count",
    "tokens",
    "queries",
    "keys",
    "width",
    "scale:f",
    ...headNames("q", "k"),
  ],
  ref: attentionProbeRef,
};
const GRAD: Kernel = {
  name: "softmax_grad_fours",
  wgsl: foursWgsl + gradWgsl,
  bindings: "wwrrr",
  params: ["batch", "keys", "columns", "queries", "first", "tokens"],
  ref: softmaxGradRef,
};
/** Where queries do not come in fours, or see but some keys. */
const GRAD_ONES: Kernel = {
  ...GRAD,
  name: "softmax_grad_ones",
  wgsl: onesWgsl + gradWgsl,
};

/** Keys of a workgroup of `softmax_grad`. */
const GRAD_KEYS = 8;

/** Scores of one chunk stay below this. */
const CHUNK_BYTES = 32 * 2 ** 20;

/** Options of `attention`. */
export interface AttentionOptions {
  /** Number of heads; head h owns channels `h width` to `(h + 1) width`. */
  readonly heads: number;
  /** A query sees only keys up to its own position. Default false. */
  readonly causal?: boolean;
  /** Keys whose log-probabilities are wanted. */
  readonly probe?: readonly number[] | undefined;
  /**
   * Changes the weights `[batch heads, keys, queries]` of some queries, from `first` on, in place before
   * they meet the values. They are probabilities but for a factor per query, and must keep their sum.
   * Probes see what was before. Not differentiable: no tape may record.
   */
  readonly edit?:
    | ((weights: Tensor, first: number) => void)
    | undefined;
  /** Most bytes of scores held at once, to test the chunking. */
  readonly chunkBytes?: number;
}

/** What `attention` gives. */
export interface Attended {
  /** `[batch, heads width, ...space of q]`. */
  readonly out: Tensor;
  /** Natural logarithms of the probed probabilities, `[batch, heads, probed keys, ...space of q]`. */
  readonly logProbs: Tensor | undefined;
}

/**
 * `softmax(q^T k / sqrt(width)) v` per head, over the keys.
 *
 * @param q `[batch, heads width, ...space]`, queries are the cells of the space.
 * @param k `[batch, heads width, ...keys]`.
 * @param v Like `k`.
 * @returns New tensors. Differentiable in q, k and v from both; saves q, k, v, the result and two
 *   numbers per query.
 * @see Vaswani et al. 2017, arXiv:1706.03762; chunking as in Rabe and Staats 2021, arXiv:2112.05682.
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions,
): Attended {
  const [batch, channels, queries] = channelMajor(q, "attention");
  const [, , keys] = channelMajor(k, "attention");
  expectShape(k, [batch, channels, ...k.shape.slice(2)], "attention keys");
  expectShape(v, k.shape, "attention values");
  const width = channels / options.heads;
  expectHeads(q, width, options.heads);
  const whole = (x: Tensor): Heads => wholeHeads(x, width);
  return attend(
    {
      tensors: [q, k, v],
      parts: [whole(q), whole(k), whole(v)],
      gradients(go, needs) {
        const tensors = [q, k, v].map((x, i) =>
          needs[i] && (i < 2 || go) ? x.backend.alloc(x.shape) : undefined
        );
        const [dq, dk, dv] = tensors.map((x) => x && whole(x));
        return { tensors, parts: [dq, dk, dv] };
      },
    },
    { shape: q.shape, width, queries, keys },
    options,
  );
}

/**
 * `attention` of cells to each other, whose queries, keys and values one product made.
 *
 * @param qkv `[batch, heads 3 width, ...space]`: queries, keys and values of the first head, those of the
 *   second one, and so on.
 * @returns New tensors, `out` `[batch, heads width, ...space]`. Differentiable in `qkv`; saves what
 *   `attention` does.
 */
export function selfAttention(
  qkv: Tensor,
  options: AttentionOptions,
): Attended {
  const [batch, channels, cells] = channelMajor(qkv, "attention");
  const width = channels / 3 / options.heads;
  expectHeads(qkv, width, 3 * options.heads);
  const shape = [batch, channels / 3, ...qkv.shape.slice(2)];
  return attend(
    {
      tensors: [qkv],
      parts: packedHeads(qkv, width),
      gradients(go) {
        // Without a gradient on the result there is none on the values.
        const grad = go
          ? qkv.backend.alloc(qkv.shape)
          : qkv.backend.upload(new Float32Array(qkv.size), qkv.shape);
        const [dq, dk, dv] = packedHeads(grad, width);
        return { tensors: [grad], parts: [dq, dk, go ? dv : undefined] };
      },
    },
    { shape, width, queries: cells, keys: cells },
    options,
  );
}

/** Throws unless a tensor has so many heads of a whole number of channels. */
function expectHeads(x: Tensor, width: number, heads: number): void {
  if (!Number.isInteger(width)) {
    throw new RangeError(
      `Cannot run attention: ${heads} heads must divide the channels: current shape is [${x.shape}]`,
    );
  }
}

/** Sizes of one attention. */
interface Sizes {
  /** Of the result. */
  readonly shape: readonly number[];
  /** Dimensions of a head. */
  readonly width: number;
  /** Queries of each. */
  readonly queries: number;
  /** Keys of each. */
  readonly keys: number;
}

/** What an attention reads. */
interface Inputs {
  /** The tensors. */
  readonly tensors: readonly Tensor[];
  /** Queries, keys and values in them. */
  readonly parts: readonly [q: Heads, k: Heads, v: Heads];
  /**
   * Tensors for the gradients on `tensors`, and where in them those on queries, keys and values go, as far
   * as they are needed; `go` says whether there is a gradient on the result.
   */
  gradients(go: boolean, needs: readonly boolean[]): {
    readonly tensors: readonly (Tensor | undefined)[];
    readonly parts: readonly [
      dq: Heads | undefined,
      dk: Heads | undefined,
      dv: Heads | undefined,
    ];
  };
}

function attend(
  { tensors, parts: [q, k, v], gradients }: Inputs,
  { shape, width, queries, keys }: Sizes,
  options: AttentionOptions,
): Attended {
  const { heads, causal = false, probe, chunkBytes = CHUNK_BYTES } = options;
  const [batch = 1] = shape;
  for (const token of probe ?? []) {
    if (!(Number.isInteger(token) && token >= 0 && token < keys)) {
      throw new RangeError(
        `Cannot probe attention: key must be below ${keys}: current ${token}`,
      );
    }
  }
  const { backend } = q.tensor;
  if (options.edit && backend.tape) {
    throw new RangeError(
      "Cannot edit attention: no tape must record: current one does",
    );
  }
  const z = batch * heads;
  const scale = 1 / Math.sqrt(width);
  // A multiple of 4, so that the matrix products may use vec4; the same for one prompt and for two, since
  // it decides how products are cut, and that how they are added up.
  const rows = Math.max(2, batch) * heads * keys;
  const chunk = Math.min(
    queries,
    Math.max(4, Math.floor(chunkBytes / (4 * rows) / 4) * 4),
  );
  const work = heads * width * queries * keys; // of one batch element
  const perHead = { stride: queries, batchStride: width * queries };
  const chunks: [first: number, columns: number][] = [];
  for (let first = 0; first < queries; first += chunk) {
    chunks.push([first, Math.min(chunk, queries - first)]);
  }

  /** Scores of one chunk, keys (a line of `k`) by queries. */
  const scores = (
    k: Heads,
    line: number,
    first: number,
    columns: number,
  ): Tensor => {
    const s = backend.alloc([z, line, columns]);
    gemm(
      [line, columns, width],
      headMatrix(k, line),
      headMatrix(q, queries, first),
      { tensor: s, stride: columns, batchStride: line * columns },
      { batch: z, a: "column", alpha: scale, work, needed: keys / line },
    );
    return s;
  };

  using stats = backend.alloc([z, 2, queries]);
  const out = backend.alloc(shape);
  // Energies are made of few probabilities: what is probed stays in 32 bits.
  const exact = probe !== undefined;
  const flashShape = { heads: z, queries, keys, width, causal, exact, work };
  const parts = [q, k, v] as const;
  // Weights that are to be edited must be there as a matrix.
  const flash = backend.family === "gpu" && width <= FLASH_WIDTH &&
    !options.edit;
  const texel = fitsFlashTexel(backend, parts, flashShape) && !options.edit;
  if (flash) flashAttention(parts, flashShape, { stats, out });
  else if (texel) flashTexel(parts, flashShape, { stats, out });
  else {
    for (const [first, columns] of chunks) {
      using s = scores(k, keys, first, columns);
      softmaxColumns(s, stats, { first, causal });
      options.edit?.(s, first);
      gemm(
        [width, columns, keys],
        headMatrix(v, keys),
        { tensor: s, stride: columns, batchStride: keys * columns },
        { tensor: out, ...perHead, offset: first },
        { batch: z, work },
      );
    }
    backend.dispatch(SCALE, {
      bind: [out, stats],
      params: { count: z * queries, width, queries },
      groups: elementGroups(z * queries),
    });
  }
  const tokens = probe?.length ?? 0;
  using probed = tokens
    ? backend.upload(Float32Array.from(probe!), [tokens])
    : undefined;
  let logProbs: Tensor | undefined;
  if (probed) {
    logProbs = backend.alloc([batch, heads, tokens, ...shape.slice(2)]);
    backend.dispatch(PROBE, {
      bind: [q.tensor, k.tensor, stats, probed, logProbs],
      params: {
        count: logProbs.size,
        tokens,
        queries,
        keys,
        width,
        scale,
        ...headParams({ q, k }),
      },
      groups: elementGroups(logProbs.size),
    });
  }

  const back = (
    go: Tensor | undefined,
    h: Tensor | undefined,
    needs: readonly boolean[],
  ): readonly (Tensor | undefined)[] => {
    const grads = gradients(go !== undefined, needs);
    const [dq, dk, dv] = grads.parts;
    const known = { q, k, v, out, stats, go, h, probed };
    if (flash) {
      flashAttentionGrad(known, flashShape, grads.parts);
      return grads.tensors;
    }
    if (texel && fitsFlashTexelGrad(known, flashShape, grads.parts)) {
      flashTexelGrad(known, flashShape, grads.parts);
      return grads.tensors;
    }
    const flags = { OUTPUT: Number(!!go), PROBE: Number(!!h) };
    using rows = attentionRows({ out, stats, go, h }, z, tokens);
    const sizes = { z, width, queries, keys, chunk, work };
    // Where nothing goes to the keys, products come in fours if lines of zeros fill them up: these add nothing to dq.
    const filled = keys % 4 !== 0 && !dk && !(go && dv) &&
      backend.family === "software" && backend.kind !== "cpu";
    const line = filled ? fours(keys) : keys;
    const needed = keys / line;
    using packed = filled
      ? packLines(k, v, { heads: z, width, cells: keys })
      : undefined;
    const [key, value] = packed ? packedPair(packed, width) : [k, v];
    using toKeys = dk && keySums(q, dk, sizes);
    using toValues = go && dv && keySums(wholeHeads(go, width), dv, sizes);
    chunks.forEach(([first, columns]) => {
      using s = scores(key, line, first, columns);
      using ds = backend.alloc(s.shape);
      const inChunk = {
        tensor: ds,
        stride: columns,
        batchStride: line * columns,
      };
      if (go) {
        gemm(
          [line, columns, width],
          headMatrix(value, line),
          { tensor: go, ...perHead, offset: first },
          inChunk,
          { batch: z, a: "column", work, needed },
        );
      }
      backend.dispatch(queries % 4 || causal ? GRAD_ONES : GRAD, {
        bind: [s, ds, rows, h ?? rows, probed ?? rows],
        params: { batch: z, keys: line, columns, queries, first, tokens },
        constants: {
          ...flags,
          VALUES: Number(!!toValues),
          CAUSAL: Number(causal),
        },
        groups: [
          runGroups(line, columns)[0],
          Math.ceil(line / GRAD_KEYS),
          z,
        ],
      });
      toValues?.add(s, first, columns, 1);
      if (dq) {
        gemm(
          [width, columns, line],
          headMatrix(key, line),
          inChunk,
          headMatrix(dq, queries, first),
          { batch: z, alpha: scale, work, needed },
        );
      }
      toKeys?.add(ds, first, columns, scale);
    });
    toValues?.finish?.();
    toKeys?.finish?.();
    return grads.tensors;
  };
  record(
    logProbs ? [out, logProbs] : [out],
    tensors,
    [...tensors, out, stats, ...(probed ? [probed] : [])],
    ([go, h], needs) => back(go, h, needs),
  );
  return { out, logProbs };
}
