/** How much two boxes have in common. */
import type { Box } from "../raster.ts";

/** Area that both boxes cover, in the unit of the boxes squared. */
export function intersection(a: Box, b: Box): number {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return width > 0 && height > 0 ? width * height : 0;
}

/** Area of a box. */
export function boxArea([x0, y0, x1, y1]: Box): number {
  return (x1 - x0) * (y1 - y0);
}

/** Intersection over union, 0 to 1; 0 where the boxes have no area. */
export function iou(a: Box, b: Box): number {
  const both = intersection(a, b);
  return both === 0 ? 0 : both / (boxArea(a) + boxArea(b) - both);
}
