/** Edges of a map. */
import type { Grid, Mapped } from "./mapped.ts";

/** 3x3, row by row; the other axis is its transpose. */
const SOBEL = [-1, 0, 1, -2, 0, 2, -1, 0, 1];

/** Keeps the derivative of the root finite where there is no edge. */
const TINY = 1e-12;

/** `sqrt(gx^2 + gy^2)` of the cells that have all their neighbours; 0 on the border. */
export function sobel(map: Float64Array, [height, width]: Grid): Mapped {
  const values = new Float64Array(map.length);
  const gx = new Float64Array(map.length);
  const gy = new Float64Array(map.length);
  const each = (
    visit: (u: number, v: number, wx: number, wy: number) => void,
  ) => {
    for (let y = 1; y < height - 1; y++) {
      for (let x = 1; x < width - 1; x++) {
        for (let k = 0; k < 9; k++) {
          const [dy, dx] = [Math.floor(k / 3) - 1, k % 3 - 1];
          const u = y * width + x;
          visit(u, u + dy * width + dx, SOBEL[k]!, SOBEL[k % 3 * 3 + dy + 1]!);
        }
      }
    }
  };
  each((u, v, wx, wy) => {
    gx[u]! += wx * map[v]!;
    gy[u]! += wy * map[v]!;
  });
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const u = y * width + x;
      values[u] = Math.sqrt(gx[u]! ** 2 + gy[u]! ** 2 + TINY);
    }
  }
  return {
    values,
    back(gradient) {
      const out = new Float64Array(map.length);
      each((u, v, wx, wy) =>
        out[v]! += gradient[u]! * (wx * gx[u]! + wy * gy[u]!) / values[u]!
      );
      return out;
    },
  };
}
