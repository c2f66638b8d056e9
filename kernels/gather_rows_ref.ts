/** Float64 definition of `gather_rows`. */
import type { Params } from "./backend.ts";

/** Bindings table, positions, ids, out. */
export function gatherRowsRef(bind: readonly Float64Array[], p: Params): void {
  const [table, positions, ids, out] = bind as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const { count = 0, channels = 1, cells = 1, first = 0, rows = 0 } = p;
  for (let i = 0; i < count; i++) {
    const n = i % cells;
    const c = Math.floor(i / cells) % channels;
    const b = Math.floor(i / cells / channels);
    const row = ids[b * cells + n]! - first;
    if (row < 0 || row >= rows) continue;
    out[i] = table[row * channels + c]! +
      positions[n * channels + c]!;
  }
}
