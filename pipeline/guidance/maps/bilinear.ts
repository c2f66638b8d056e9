/** Maps on another grid. */
import type { Grid, Mapped } from "./mapped.ts";

/** Bilinear resampling as PyTorch's `interpolate` with `align_corners=False`. */
export function bilinear(map: Float64Array, from: Grid, to: Grid): Mapped {
  const rows = taps(from[0], to[0]);
  const columns = taps(from[1], to[1]);
  const each = (visit: (u: number, v: number, weight: number) => void) => {
    rows.forEach((ys, y) =>
      columns.forEach((xs, x) => {
        for (const [i, wy] of ys) {
          for (const [j, wx] of xs) {
            visit(y * to[1] + x, i * from[1] + j, wy * wx);
          }
        }
      })
    );
  };
  const values = new Float64Array(to[0] * to[1]);
  each((u, v, weight) => values[u]! += weight * map[v]!);
  return {
    values,
    back(gradient) {
      const out = new Float64Array(map.length);
      each((u, v, weight) => out[v]! += weight * gradient[u]!);
      return out;
    },
  };
}

/** Per target cell of one axis: source cells and their weights. */
function taps(from: number, to: number): [cell: number, weight: number][][] {
  return Array.from({ length: to }, (_, i) => {
    const at = Math.max(0, (i + 0.5) * from / to - 0.5);
    const low = Math.floor(at);
    const high = Math.min(low + 1, from - 1);
    return low === high ? [[low, 1]] : [[low, 1 - at + low], [high, at - low]];
  });
}
