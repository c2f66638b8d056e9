/** Log-probabilities of guided sites -> one small map per region, for people to look at. */
import type { Floats } from "../kernels/backend.ts";
import type { Picture } from "./bitmap_font.ts";

/** Where a phrase's attention lies at one denoising step. */
export interface AttentionMap {
  /** The region's phrase. */
  readonly phrase: string;
  /** Cells of the finest guided site. */
  readonly width: number;
  /** Cells of the finest guided site. */
  readonly height: number;
  /**
   * `[height * width]`, row-major: the part of a cell's attention, 0 to 1, that goes to a token of the
   * phrase. Mean over guided sites, heads and tokens; coarser sites are blended up.
   */
  readonly values: Float32Array;
  /** Share of it that lies in the region's boxes, as in `StepInfo.regionShares`. */
  readonly share: number;
}

/** The maps of a denoising step: of its conditional pass, after the guided updates. */
export interface AttentionStep {
  /** From 1. */
  readonly step: number;
  /** How many there are. */
  readonly steps: number;
  /** Of the picture that is being sampled. */
  readonly seed: number;
  /** Train timestep. */
  readonly timestep: number;
  /** Whether this step moved the latent by the layout. */
  readonly guided: boolean;
  /** Per region. */
  readonly maps: readonly AttentionMap[];
  /** The picture the model has in mind. Call it before `onAttention` returns. */
  preview(): Promise<Picture>;
}

/** One site's maps, read from the backend. */
export interface SiteMaps {
  /** `[1, 1, regions, height, width]`. */
  readonly shape: readonly number[];
  /** Logarithms of probabilities. */
  readonly logProbs: Floats;
}

/**
 * The mean of all sites on the grid of the finest.
 *
 * @param sites At least one.
 * @returns Per region `values` and their grid.
 */
export function meanMaps(
  sites: readonly SiteMaps[],
): Pick<AttentionMap, "width" | "height" | "values">[] {
  const gridOf = ({ shape }: SiteMaps) => ({
    regions: shape[2]!,
    height: shape[3]!,
    width: shape[4]!,
  });
  const grids = sites.map(gridOf);
  const finest = grids.toSorted((a, b) =>
    b.width * b.height - a.width * a.height
  )[0]!;
  const { regions, width, height } = finest;
  return Array.from({ length: regions }, (_, region) => {
    const values = new Float32Array(width * height);
    sites.forEach(({ logProbs }, i) => {
      const own = grids[i]!;
      const cells = own.width * own.height;
      const map = logProbs.subarray(region * cells, (region + 1) * cells).map(
        Math.exp,
      );
      for (let u = 0; u < values.length; u++) {
        const x = (u % width + 0.5) / width;
        const y = (Math.floor(u / width) + 0.5) / height;
        values[u]! += blended(map, own.width, own.height, x, y) / sites.length;
      }
    });
    return { width, height, values };
  });
}

/**
 * A map between its cells' centres, bilinearly; at the edges as the outermost cells.
 *
 * @param map `[height * width]`.
 * @param x Fraction of the image, from the left.
 * @param y Fraction of the image, from the top.
 */
export function blended(
  map: ArrayLike<number>,
  width: number,
  height: number,
  x: number,
  y: number,
): number {
  const [x0, x1, fx] = between(x, width);
  const [y0, y1, fy] = between(y, height);
  const row = (r: number): number =>
    map[r * width + x0]! * (1 - fx) + map[r * width + x1]! * fx;
  return row(y0) * (1 - fy) + row(y1) * fy;
}

/** The two cells around a place on an axis, and the weight of the second. */
function between(v: number, cells: number): [number, number, number] {
  const at = Math.min(Math.max(v * cells - 0.5, 0), cells - 1);
  const first = Math.floor(at);
  return [first, Math.min(first + 1, cells - 1), at - first];
}
