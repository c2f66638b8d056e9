/** latent -> RGB in overlapping tiles, where the whole decoder would need too much memory. */
import type { Floats, Tensor } from "../kernels/backend.ts";

/** Latent cells that neighbouring tiles share at least, a quarter of the tile as in diffusers. */
const OVERLAP = 1 / 4;

/**
 * Where tiles start so that they cover a side evenly, each at least a quarter of a tile into the last.
 *
 * @param cells Latent cells along the side.
 * @param tile Cells of a tile.
 * @returns First cells, rising; `[0]` where one tile covers all.
 */
export function tileStarts(cells: number, tile: number): number[] {
  if (cells <= tile) return [0];
  const step = tile - Math.ceil(tile * OVERLAP);
  const count = Math.ceil((cells - tile) / Math.max(1, step)) + 1;
  return Array.from(
    { length: count },
    (_, i) => Math.round(i * (cells - tile) / (count - 1)),
  );
}

/**
 * Decodes tile by tile and blends what overlaps, each tile's weight rising linearly from its edge.
 *
 * An approximation, as in diffusers' tiled decoding: the decoder's normalisations and its attention
 * see one tile at a time, so colours may differ slightly from those of the whole.
 *
 * @param decode Decodes one tile, `[1, channels, height, width]` to `[1, 3, factor height, factor width]`.
 * @param latent The whole latent, already divided by the VAE's scaling factor.
 * @param options.tile Most latent cells along a tile's side.
 * @param options.factor Image pixels per latent cell along one side.
 * @returns `[3, factor height, factor width]`, about -1 to 1, on the host.
 */
export async function decodeInTiles(
  decode: (tile: Tensor) => Promise<Floats>,
  latent: Tensor,
  options: {
    readonly tile: number;
    readonly factor: number;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<Float64Array> {
  const { backend } = latent;
  const { tile, factor, signal } = options;
  const [, channels = 0, height = 0, width = 0] = latent.shape;
  const [z] = await backend.read([latent], { signal });
  const [rows, columns] = [height * factor, width * factor];
  const sum = new Float64Array(3 * rows * columns);
  const weight = new Float64Array(rows * columns);
  const [tileHeight, tileWidth] = [
    Math.min(tile, height),
    Math.min(tile, width),
  ];
  const tall = ramp(tileHeight * factor), wide = ramp(tileWidth * factor);
  for (const top of tileStarts(height, tile)) {
    for (const left of tileStarts(width, tile)) {
      signal?.throwIfAborted();
      const part = crop(z!, [channels, height, width], {
        top,
        left,
        size: [tileHeight, tileWidth],
      });
      using x = backend.upload(part, [1, channels, tileHeight, tileWidth]);
      const pixels = await decode(x);
      for (let y = 0; y < tall.length; y++) {
        for (let i = 0; i < wide.length; i++) {
          const w = tall[y]! * wide[i]!;
          const at = (top * factor + y) * columns + left * factor + i;
          weight[at] = weight[at]! + w;
          for (let c = 0; c < 3; c++) {
            const to = c * rows * columns + at;
            sum[to] = sum[to]! +
              w * pixels[(c * tall.length + y) * wide.length + i]!;
          }
        }
      }
    }
  }
  return sum.map((v, i) => v / weight[i % weight.length]!);
}

/** Weights along a tile's side: 1, 2, 3, ... from both edges, level past the overlap. */
function ramp(pixels: number): number[] {
  const most = Math.max(1, Math.ceil(pixels * OVERLAP));
  return Array.from(
    { length: pixels },
    (_, i) => Math.min(i + 1, pixels - i, most),
  );
}

function crop(
  z: Floats,
  [channels, height, width]: readonly [number, number, number],
  { top, left, size: [rows, columns] }: {
    readonly top: number;
    readonly left: number;
    readonly size: readonly [number, number];
  },
): Float32Array {
  const out = new Float32Array(channels * rows * columns);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < rows; y++) {
      const from = (c * height + top + y) * width + left;
      out.set(z.subarray(from, from + columns), (c * rows + y) * columns);
    }
  }
  return out;
}
