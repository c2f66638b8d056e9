/** Float64 definition of `redistribute`. */
import type { Params } from "./backend.ts";

/** Bindings s, chosen, mask; see `redistribute.wgsl`. */
export function redistributeRef(
  bind: readonly Float64Array[],
  p: Params,
): void {
  const [s, chosen, mask] = bind as [Float64Array, Float64Array, Float64Array];
  const { count = 0, keys = 0, columns = 1, queries = 1, first = 0 } = p;
  for (let i = 0; i < count; i++) {
    const column = i % columns;
    const at = (key: number): number =>
      (Math.floor(i / columns) * keys + key) * columns + column;
    let before = 0;
    for (let k = 0; k < keys; k++) before += s[at(k)]!;
    let share = 0;
    for (const key of chosen) share += s[at(key)]!;
    chosen.forEach((key, t) => {
      s[at(key)] = share * mask[t * queries + first + column]!;
    });
    let total = 0;
    for (let k = 0; k < keys; k++) total += s[at(k)]!;
    for (let k = 0; k < keys; k++) s[at(k)]! *= before / Math.max(total, 1e-30);
  }
}
