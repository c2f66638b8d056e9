/**
 * Self-attention of and to the cells of boxes.
 *
 * All that the losses need is how much of each cell's attention goes to cells in a box; what goes elsewhere
 * is the rest to 1. So only keys in boxes are probed: at most `heads x cells x cells` numbers per site, and
 * where that does not fit the device, the plan of the picture says so before anything is computed.
 */
import type { RasterMode } from "../../raster.ts";
import type { AttentionSite } from "../../unet_config.ts";
import type { EnergyContext } from "../method.ts";
import { cellsWhere, inBoxes } from "./cells.ts";
import type { SiteMap } from "./host_energy.ts";
import type { Grid, Mapped } from "./mapped.ts";

/** Per site the keys that lie in a box of anything. */
export function boxProbes(
  { subjects, grid }: Pick<EnergyContext, "subjects" | "grid">,
  sites: readonly AttentionSite[],
  raster: RasterMode,
): (readonly [site: string, keys: readonly number[]])[] {
  const boxes = subjects.flatMap((subject) => subject.boxes);
  return sites.map(({ id, level }) => {
    const own = grid.map((n) => Math.ceil(n / 2 ** level)) as unknown as Grid;
    return [id, cellsWhere(inBoxes(boxes, own, raster))];
  });
}

/**
 * How much of each cell's attention goes to the cells of a mask.
 *
 * @param map `[keys, cells]` as probed.
 * @param mask Of which every cell is among the keys.
 * @returns `[cells]`.
 */
export function massInside(
  map: Float64Array,
  { keys }: Pick<SiteMap, "keys">,
  mask: readonly boolean[],
): Mapped {
  const cells = mask.length;
  const rows = keys.flatMap((key, i) => mask[key] ? [i * cells] : []);
  const values = new Float64Array(cells);
  for (const row of rows) {
    for (let u = 0; u < cells; u++) values[u]! += map[row + u]!;
  }
  return {
    values,
    back(gradient) {
      const out = new Float64Array(map.length);
      for (const row of rows) out.set(gradient, row);
      return out;
    },
  };
}
