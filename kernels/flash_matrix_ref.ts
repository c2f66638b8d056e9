/** Float64 definitions of the flash kernels of matrix units: those of the others, on lines without their ends. */
import type { Params } from "./backend.ts";
import { flashAttentionRef, flashGradRef } from "./flash_attention_ref.ts";
import { halfScale } from "./halve_ref.ts";

/** Lines of `cells`, of those of `wide`. */
function lines(
  x: Float64Array,
  wide: number,
  cells: number,
  factor = 1,
): Float64Array {
  const out = new Float64Array(x.length / wide * cells);
  return out.map((_, i) =>
    factor * x[Math.floor(i / cells) * wide + i % cells]!
  );
}

/** Bindings q, k, v, stats, out. */
export function flashMatrixRef(
  bind: readonly Float64Array[],
  p: Params,
): void {
  const { queries = 1, keys = 1, wideQueries = 1, wideKeys = 1 } = p;
  const [q, k, v, stats, out] = bind as readonly Float64Array[] & {
    readonly length: 5;
  };
  flashAttentionRef(
    [
      lines(q!, wideQueries, queries),
      lines(k!, wideKeys, keys),
      lines(v!, wideKeys, keys),
      stats!,
      out!,
    ],
    p,
    {},
  );
}

/** Bindings go, out, stats, rows. */
export function flashRowsRef(
  [go, out, stats, rows]: readonly Float64Array[],
  { count = 0, queries = 1, width = 1, wide = 1 }: Params,
): void {
  for (let i = 0; i < count; i++) {
    const z = Math.floor(i / queries), n = i % queries;
    let sum = 0;
    for (let d = 0; d < width; d++) {
      const line = z * width + d;
      sum += go![line * wide + n]! * out![line * queries + n]!;
    }
    const at = z * 2 * queries + n;
    rows![at] = Math.LOG2E * stats![at]! - Math.log2(stats![at + queries]!);
    rows![at + queries] = sum;
  }
}

/** Bindings a, b, ga, gb, rows, peaks, out. */
export function flashMatrixGradRef(
  bind: readonly Float64Array[],
  p: Params,
  { BY_QUERY = 0, SLOPES = 0, VALUES = 0 }: Params,
): void {
  const [a, b, ga, gb, rows, peaks, out] = bind;
  const { own = 1, others = 1, wideOwn = 1, wideOthers = 1 } = p;
  // Of both only the gradient on the result was scaled.
  const back = 1 / halfScale(peaks!);
  const queries = BY_QUERY ? own : others;
  // As flashGradRef has them: max, 1 / sum, delta.
  const three = Array.from({ length: rows!.length / (2 * queries) }, (_, z) => {
    const part = (
      i: number,
    ) => [...rows!.subarray((2 * z + i) * queries, (2 * z + i + 1) * queries)];
    return [
      part(0).map((x) => x / Math.LOG2E),
      part(0).map(() => 1),
      part(1).map((delta) => delta * back),
    ];
  });
  const known = Float64Array.from(three.flat(2));
  const run = (values: number, name: string): void =>
    flashGradRef(
      [
        lines(a!, wideOwn, own),
        lines(b!, wideOthers, others),
        lines(ga!, wideOwn, own, BY_QUERY ? back : 1),
        lines(gb!, wideOthers, others, BY_QUERY ? 1 : back),
        known,
        known, // no probes
        known,
        out!,
      ],
      { ...p, outPitch: p[`${name}Pitch`]!, outFirst: p[`${name}First`]! },
      { BY_QUERY, VALUES: values, OUTPUT: 1 },
    );
  if (SLOPES) run(0, "slopes");
  if (VALUES) run(1, "values");
}
