/** Float64 definition of layer normalisation and its vjp. */
import type { Params } from "./backend.ts";

/** Normalises over channels, or with GRAD goes back; bindings x, weight, bias, g, out. */
export function layerNormRef(
  bind: readonly Float64Array[],
  p: Params,
  { GRAD = 0 }: Params,
): void {
  const [x, weight, bias, g, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { columns = 0, channels = 1, cells = 1, eps = 0 } = p;
  for (let i = 0; i < columns; i++) {
    const start = Math.floor(i / cells) * channels * cells + i % cells;
    let mean = 0, square = 0, first = 0, second = 0;
    for (let c = 0; c < channels; c++) mean += x[start + c * cells]! / channels;
    for (let c = 0; c < channels; c++) {
      square += (x[start + c * cells]! - mean) ** 2;
    }
    const rstd = 1 / Math.sqrt(square / channels + eps);
    if (GRAD) {
      for (let c = 0; c < channels; c++) {
        const q = g[start + c * cells]! * weight[c]!;
        first += q;
        second += q * (x[start + c * cells]! - mean) * rstd;
      }
    }
    for (let c = 0; c < channels; c++) {
      const at = start + c * cells;
      const xhat = (x[at]! - mean) * rstd;
      out[at] = GRAD
        ? rstd * (g[at]! * weight[c]! - (first + xhat * second) / channels)
        : xhat * weight[c]! + bias[c]!;
    }
  }
}
