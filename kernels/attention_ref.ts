/** Float64 definitions of the row kernels of attention. */
import type { Params } from "./backend.ts";

/** Bindings s, stats; see `softmax_columns.wgsl`. */
export function softmaxColumnsRef(
  [s, stats]: readonly Float64Array[],
  p: Params,
  { CAUSAL = 0 }: Params,
): void {
  // `| 0` as in gemm_ref.ts; keys outside, queries inside is the order in which the numbers lie.
  const [keys, columns] = [p.keys! | 0, p.columns! | 0];
  const { count = 0, queries = 1, first = 0 } = p;
  for (let z = 0; z * columns < count; z++) {
    const start = z * keys * columns;
    const high = stats!.subarray(
      z * 2 * queries + first,
      z * 2 * queries + first + columns,
    );
    const inverse = stats!.subarray(
      (z * 2 + 1) * queries + first,
      (z * 2 + 1) * queries + first + columns,
    );
    const seen = (j: number, n: number): boolean => !CAUSAL || j <= first + n;
    high.fill(-Infinity);
    inverse.fill(0); // first the sum
    for (let j = 0; j < keys; j++) {
      for (let n = 0; n < columns; n++) {
        if (seen(j, n)) {
          high[n] = Math.max(high[n]!, s![start + j * columns + n]!);
        }
      }
    }
    for (let j = 0; j < keys; j++) {
      for (let n = 0; n < columns; n++) {
        const at = start + j * columns + n;
        const e = seen(j, n) ? Math.exp(s![at]! - high[n]!) : 0;
        s![at] = e;
        inverse[n] = inverse[n]! + e;
      }
    }
    for (let n = 0; n < columns; n++) inverse[n] = 1 / inverse[n]!;
  }
}

/** Bindings s, s, stats; see `softmax_texel.wgsl`. */
export function softmaxTexelRef(
  [, s, stats]: readonly Float64Array[],
  p: Params,
): void {
  const { z = 0, keys = 1, columns = 1, queries = 1 } = p;
  const bind = [
    s!.subarray(z * keys * columns),
    stats!.subarray(z * 2 * queries),
  ];
  softmaxColumnsRef(bind, p, {});
}

/** Bindings out, stats; see `scale_columns.wgsl`. */
export function scaleColumnsRef(
  [out, stats]: readonly Float64Array[],
  p: Params,
): void {
  const { count = 0, width = 1, queries = 1 } = p;
  for (let i = 0; i < count; i++) {
    const z = Math.floor(i / queries);
    const n = i % queries;
    const factor = stats![(2 * z + 1) * queries + n]!;
    for (let d = 0; d < width; d++) {
      const at = (z * width + d) * queries + n;
      out![at] = out![at]! * factor;
    }
  }
}

/** Bindings q, k, stats, tokens, out. */
export function attentionProbeRef(
  bind: readonly Float64Array[],
  p: Params,
): void {
  const [q, k, stats, tokens, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { count = 0, queries = 1, keys = 1, width = 1, scale = 1 } = p;
  const { qPitch = 1, qFirst = 0, kPitch = 1, kFirst = 0 } = p;
  for (let i = 0; i < count; i++) {
    const n = i % queries;
    const token = tokens[Math.floor(i / queries) % p.tokens!]!;
    const z = Math.floor(i / queries / p.tokens!);
    let sum = 0;
    for (let d = 0; d < width; d++) {
      sum += k[(z * kPitch + kFirst + d) * keys + token]! *
        q[(z * qPitch + qFirst + d) * queries + n]!;
    }
    const at = z * 2 * queries + n;
    out[i] = scale * sum - stats[at]! + Math.log(stats[at + queries]!);
  }
}

/** Bindings go, o, h, stats, rows; see `attention_rows.wgsl`. */
export function attentionRowsRef(
  bind: readonly Float64Array[],
  p: Params,
  { OUTPUT = 0, PROBE = 0 }: Params,
): void {
  const [go, o, h, stats, rows] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { count = 0, queries = 1, width = 1, tokens = 0 } = p;
  for (let i = 0; i < count; i++) {
    const z = Math.floor(i / queries);
    const n = i % queries;
    let sum = 0;
    for (let d = 0; OUTPUT && d < width; d++) {
      const at = (z * width + d) * queries + n;
      sum += go[at]! * o[at]!;
    }
    for (let t = 0; PROBE && t < tokens; t++) {
      sum += h[(z * tokens + t) * queries + n]!;
    }
    rows[z * 3 * queries + n] = stats[z * 2 * queries + n]!;
    rows[(z * 3 + 1) * queries + n] = stats[(z * 2 + 1) * queries + n]!;
    rows[(z * 3 + 2) * queries + n] = sum;
  }
}

/** Bindings s, ds, rows, h, probed; see `softmax_grad.wgsl`. */
export function softmaxGradRef(
  bind: readonly Float64Array[],
  p: Params,
  { OUTPUT = 0, PROBE = 0, VALUES = 0, CAUSAL = 0 }: Params,
): void {
  const [s, ds, rows, h, probed] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { batch = 0, keys = 1, queries = 1, first = 0, tokens = 0 } = p;
  const columns = p.columns! | 0;
  let i = 0;
  for (let z = 0; z < batch; z++) {
    for (let key = 0; key < keys; key++) {
      for (let column = 0; column < columns; column++, i++) {
        const n = first + column;
        const row = 3 * z * queries + n;
        const seen = !CAUSAL || key <= n;
        const value = seen
          ? Math.exp(s[i]! - rows[row]!) * rows[row + queries]!
          : 0;
        if (VALUES) s[i] = value;
        let g = value * ((OUTPUT ? ds[i]! : 0) - rows[row + 2 * queries]!);
        for (let t = 0; PROBE && t < tokens; t++) {
          if (probed[t] === key) g += h[(z * tokens + t) * queries + n]!;
        }
        ds[i] = g;
      }
    }
  }
}
