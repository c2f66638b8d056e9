/** Float64 definitions of group normalisation, its statistics and its vjp. */
import type { Params } from "./backend.ts";

/** Statistics per (batch, group); bindings x, weight, bias, g, forward, stats. */
export function groupNormStatsRef(
  bind: readonly Float64Array[],
  p: Params,
  { GRAD = 0, SILU = 0 }: Params,
): void {
  const [x, weight, bias, g, forward, stats] = bind as Float64Array[] as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { count = 1, cells = 1, groups = 1, eps = 0, blocks = 0 } = p;
  for (let block = 0; block < blocks; block++) {
    const start = block * count;
    let first = 0, second = 0;
    if (GRAD) {
      const channel = block % groups * (count / cells);
      for (let i = 0; i < count; i++) {
        const c = channel + Math.floor(i / cells);
        const xhat = (x[start + i]! - forward[2 * block]!) *
          forward[2 * block + 1]!;
        const q = g[start + i]! * weight[c]! *
          (SILU ? siluSlope(xhat * weight[c]! + bias[c]!) : 1);
        first += q;
        second += q * xhat;
      }
    } else {
      for (let i = 0; i < count; i++) first += x[start + i]!;
      first /= count;
      for (let i = 0; i < count; i++) second += (x[start + i]! - first) ** 2;
      second = 1 / Math.sqrt(second / count + eps);
    }
    stats[2 * block] = first;
    stats[2 * block + 1] = second;
  }
}

/** Normalises, or with GRAD goes back; bindings x, weight, bias, g, forward, sums, out. */
export function groupNormRef(
  bind: readonly Float64Array[],
  p: Params,
  { GRAD = 0, SILU = 0 }: Params,
): void {
  const [x, weight, bias, g, forward, sums, out] = bind as Float64Array[] as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { planes = 0, count = 1, cells = 1, groups = 1 } = p;
  for (let i = 0; i < planes * cells; i++) {
    const block = Math.floor(i / count);
    const c = block % groups * (count / cells) + Math.floor(i % count / cells);
    const rstd = forward[2 * block + 1]!;
    const xhat = (x[i]! - forward[2 * block]!) * rstd;
    const pre = xhat * weight[c]! + bias[c]!;
    if (GRAD) {
      const q = g[i]! * weight[c]! * (SILU ? siluSlope(pre) : 1);
      out[i] = rstd *
        (q - (sums[2 * block]! + xhat * sums[2 * block + 1]!) / count);
    } else out[i] = SILU ? pre / (1 + Math.exp(-pre)) : pre;
  }
}

function siluSlope(x: number): number {
  const s = 1 / (1 + Math.exp(-x));
  return s * (1 + x * (1 - s));
}
