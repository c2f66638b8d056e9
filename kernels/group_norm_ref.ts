/** Float64 definitions of group normalisation, its statistics and its vjp. */
import type { Params } from "./backend.ts";

/** x, or `own` channels of x and those of `beside` behind them, in each batch element. */
export function bothOf(
  x: Float64Array,
  beside: Float64Array,
  p: Params,
  { BESIDE = 0 }: Params,
): Float64Array {
  if (!BESIDE) return x;
  const { blocks = 0, groups = 1, count = 1, cells = 1, own = 0 } = p;
  const first = own * cells;
  const second = groups * count - first;
  const both = new Float64Array(blocks * count);
  for (let b = 0; b < blocks / groups; b++) {
    const at = b * (first + second);
    both.set(x.subarray(b * first, (b + 1) * first), at);
    both.set(beside.subarray(b * second, (b + 1) * second), at + first);
  }
  return both;
}

/**
 * Statistics per (batch, group), or with PARTS per `part` numbers of one; bindings x, beside, weight, bias, g,
 * forward, stats.
 */
export function groupNormStatsRef(
  bind: readonly Float64Array[],
  p: Params,
  constants: Params,
): void {
  const { GRAD = 0, SILU = 0, PARTS = 0 } = constants;
  const [own, beside, weight, bias, g, forward, stats] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const x = bothOf(own, beside, p, constants);
  const { count = 1, cells = 1, groups = 1, part = 1, parts = 1, eps = 0 } = p;
  for (let slot = 0; slot < p.blocks! * parts; slot++) {
    const block = Math.floor(slot / parts);
    const from = slot % parts * part;
    const to = Math.min(count, from + part);
    const start = block * count;
    let first = 0, second = 0;
    if (GRAD) {
      const channel = block % groups * (count / cells);
      for (let i = from; i < to; i++) {
        const c = channel + Math.floor(i / cells);
        const xhat = (x[start + i]! - forward[2 * block]!) *
          forward[2 * block + 1]!;
        const q = g[start + i]! * weight[c]! *
          (SILU ? siluSlope(xhat * weight[c]! + bias[c]!) : 1);
        first += q;
        second += q * xhat;
      }
    } else {
      for (let i = from; i < to; i++) first += x[start + i]!;
      first /= to - from;
      for (let i = from; i < to; i++) second += (x[start + i]! - first) ** 2;
      if (!PARTS) second = 1 / Math.sqrt(second / count + eps);
    }
    stats[2 * slot] = first;
    stats[2 * slot + 1] = second;
  }
}

/** Statistics per (batch, group) from those of the parts; bindings found, stats. */
export function groupNormMergeRef(
  bind: readonly Float64Array[],
  p: Params,
  { GRAD = 0 }: Params,
): void {
  const [found, stats] = bind as [Float64Array, Float64Array];
  const { blocks = 0, count = 1, part = 1, parts = 1, eps = 0 } = p;
  for (let block = 0; block < blocks; block++) {
    const at = (k: number) => 2 * (block * parts + k);
    const size = (k: number) => Math.min(part, count - k * part);
    let first = 0, second = 0;
    for (let k = 0; k < parts; k++) {
      first += GRAD ? found[at(k)]! : size(k) * found[at(k)]! / count;
    }
    for (let k = 0; k < parts; k++) {
      second += found[at(k) + 1]!;
      if (!GRAD) second += size(k) * (found[at(k)]! - first) ** 2;
    }
    stats[2 * block] = first;
    stats[2 * block + 1] = GRAD ? second : 1 / Math.sqrt(second / count + eps);
  }
}

/** Normalises, or with GRAD goes back; bindings x, beside, weight, bias, g, forward, sums, out. */
export function groupNormRef(
  bind: readonly Float64Array[],
  p: Params,
  constants: Params,
): void {
  const { GRAD = 0, SILU = 0 } = constants;
  const [own, beside, weight, bias, g, forward, sums, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const x = bothOf(own, beside, p, constants);
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

/** Statistics, unless GRAD reads them, and what `groupNormRef` does; bindings x, beside, weight, bias, g, stats, out. */
export function groupNormWholeRef(
  bind: readonly Float64Array[],
  p: Params,
  constants: Params,
): void {
  const [x, beside, weight, bias, g, stats, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { blocks = 0, count = 1 } = p;
  const sums = constants["GRAD"] ? new Float64Array(2 * blocks) : stats;
  const whole = { ...p, part: count, parts: 1 };
  const read = [x, beside, weight, bias, g, stats];
  groupNormStatsRef([...read, sums], whole, constants);
  groupNormRef([...read, sums, out], p, constants);
}

function siluSlope(x: number): number {
  const s = 1 / (1 + Math.exp(-x));
  return s * (1 + x * (1 - s));
}
