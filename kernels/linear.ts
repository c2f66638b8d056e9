/** Linear layers and 1x1 convolutions: one matrix product on channel-major data. */
import { channelMajor, expectSize, record, type Tensor } from "./backend.ts";
import { gemm } from "./gemm.ts";

/** Options of `linear`. */
export interface LinearOptions {
  /** `[out]`. */
  readonly bias?: Tensor | undefined;
  /** Added to the result; has its shape. Differentiable. */
  readonly residual?: Tensor | undefined;
}

/**
 * `y[b,o,n] = sum_i weight[o,i] x[b,i,n] (+ bias[o]) (+ residual[b,o,n])`.
 *
 * @param x `[batch, in, ...space]`.
 * @param weight `[out, in]` or `[out, in, 1, 1]`, as checkpoints store it.
 * @returns `[batch, out, ...space]`. Differentiable in `x` and `residual`; saves nothing.
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  options: LinearOptions = {},
): Tensor {
  const [batch, channels, cells] = channelMajor(x, "linear");
  const out = weight.shape[0] ?? 0;
  expectSize(weight, out * channels, "linear");
  const { bias, residual } = options;
  if (bias) expectSize(bias, out, "linear bias");
  if (residual) expectSize(residual, batch * out * cells, "linear residual");
  const y = x.backend.alloc([batch, out, ...x.shape.slice(2)]);
  gemm(
    [out, cells, channels],
    { tensor: weight, stride: channels },
    { tensor: x, stride: cells, batchStride: channels * cells },
    { tensor: y, stride: cells, batchStride: out * cells },
    { batch, bias, residual },
  );
  record([y], residual ? [x, residual] : [x], [], ([g], needs) => {
    let dx: Tensor | undefined;
    if (needs[0]) {
      dx = x.backend.alloc(x.shape);
      gemm(
        [channels, cells, out],
        { tensor: weight, stride: channels },
        { tensor: g!, stride: cells, batchStride: out * cells },
        { tensor: dx, stride: cells, batchStride: channels * cells },
        { batch, a: "column", scaled: true },
      );
    }
    return [dx, needs[1] ? g!.retain() : undefined];
  });
  return y;
}
