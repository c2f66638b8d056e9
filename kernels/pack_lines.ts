/** Lines of two tensors side by side, each filled up to fours, as stages take them. */
import wgsl from "./pack_lines.wgsl" with { type: "text" };
import { elementGroups, type Kernel, type Tensor } from "./backend.ts";
import { headNames, headParams, type Heads } from "./heads.ts";
import { packLinesRef } from "./pack_lines_ref.ts";

const KERNEL: Kernel = {
  name: "pack_lines",
  wgsl,
  bindings: "rrw",
  params: ["count", "width", "cells", ...headNames("x", "y")],
  ref: packLinesRef,
};

/** Sizes of what is packed. */
export interface PackShape {
  /** Heads of the whole batch. */
  readonly heads: number;
  /** Lines of each. */
  readonly width: number;
  /** Numbers of a line. */
  readonly cells: number;
}

/**
 * Copies the lines of two tensors.
 *
 * @returns `[heads, 2, width, cells up to a multiple of 4]`, where lines end with zeros; the caller disposes it.
 */
export function packLines(
  x: Heads,
  y: Heads,
  { heads, width, cells }: PackShape,
): Tensor {
  const { backend } = x.tensor;
  const out = backend.alloc([heads, 2, width, fours(cells)]);
  const count = out.size / 4;
  backend.dispatch(KERNEL, {
    bind: [x.tensor, y.tensor, out],
    params: { count, width, cells, ...headParams({ x, y }) },
    groups: elementGroups(count),
  });
  return out;
}

/** Where `packLines` puts the lines of both. */
export function packedPair(
  tensor: Tensor,
  width: number,
): readonly [x: Heads, y: Heads] {
  const part = (first: number): Heads => ({ tensor, pitch: 2 * width, first });
  return [part(0), part(width)];
}

/** The next multiple of 4. */
export function fours(count: number): number {
  return 4 * Math.ceil(count / 4);
}
