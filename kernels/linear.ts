/** Linear layers and 1x1 convolutions: one matrix product on channel-major data. */
import { channelMajor, expectSize, record, type Tensor } from "./backend.ts";
import { besideShape } from "./concat.ts";
import { gemm } from "./gemm.ts";

/** Options of `linear`. */
export interface LinearOptions {
  /** `[out]`. */
  readonly bias?: Tensor | undefined;
  /** Added to the result; has its shape. Differentiable. */
  readonly residual?: Tensor | undefined;
  /** Its channels follow those of `x`, as if both were one tensor: `[batch, others, ...space]`. Differentiable. */
  readonly beside?: Tensor | undefined;
}

/**
 * `y[b,o,n] = sum_i weight[o,i] x[b,i,n] (+ bias[o]) (+ residual[b,o,n])`.
 *
 * @param x `[batch, in, ...space]`; with `beside` only the first of the channels.
 * @param weight `[out, in]` or `[out, in, 1, 1]`, as checkpoints store it.
 * @returns `[batch, out, ...space]`. Differentiable in `x`, `beside` and `residual`; saves nothing.
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  { bias, residual, beside }: LinearOptions = {},
): Tensor {
  const [batch, own, cells] = channelMajor(x, "linear");
  const channels = beside ? besideShape(x, beside, "linear")[1]! : own;
  const out = weight.shape[0] ?? 0;
  expectSize(weight, out * channels, "linear");
  if (bias) expectSize(bias, out, "linear bias");
  if (residual) expectSize(residual, batch * out * cells, "linear residual");
  const y = x.backend.alloc([batch, out, ...x.shape.slice(2)]);
  /** Which columns of the weight belong to a source. */
  const parts = [
    { source: x, first: 0, count: own },
    ...beside ? [{ source: beside, first: own, count: channels - own }] : [],
  ];
  for (const { source, first, count } of parts) {
    gemm(
      [out, cells, count],
      { tensor: weight, stride: channels, offset: first },
      { tensor: source, stride: cells, batchStride: count * cells },
      { tensor: y, stride: cells, batchStride: out * cells },
      first ? { batch, accumulate: true } : { batch, bias, residual },
    );
  }
  const sources = parts.map(({ source }) => source);
  const inputs = residual ? [...sources, residual] : sources;
  record([y], inputs, [], ([g], needs) => {
    const grads = parts.map(({ source, first, count }, i) => {
      if (!needs[i]) return undefined;
      const dx = source.backend.alloc(source.shape);
      gemm(
        [count, cells, out],
        { tensor: weight, stride: channels, offset: first },
        { tensor: g!, stride: cells, batchStride: out * cells },
        { tensor: dx, stride: cells, batchStride: count * cells },
        { batch, a: "column", scaled: true },
      );
      return dx;
    });
    return [...grads, needs[parts.length] ? g!.retain() : undefined];
  });
  return y;
}
