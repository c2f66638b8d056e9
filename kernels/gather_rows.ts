/** Token and position embeddings. */
import wgsl from "./gather_rows.wgsl" with { type: "text" };
import {
  elementGroups,
  expectSize,
  type Kernel,
  type Tensor,
} from "./backend.ts";
import { gatherRowsRef } from "./gather_rows_ref.ts";

const KERNEL: Kernel = {
  name: "gather_rows",
  wgsl,
  bindings: "rrrw",
  params: ["count", "channels", "cells"],
  ref: gatherRowsRef,
};

/**
 * `out[b, :, n] = table[ids[b, n]] + positions[n]`.
 *
 * @param table `[rows, channels]`.
 * @param positions `[at least cells, channels]`.
 * @param ids `batch` lists of `cells` row numbers each.
 * @returns `[batch, channels, cells]`. Not differentiable.
 * @throws {RangeError} If an id is not a row of the table.
 */
export function gatherRows(
  table: Tensor,
  positions: Tensor,
  ids: readonly Int32Array[],
): Tensor {
  const [rows = 0, channels = 0] = table.shape;
  const cells = ids[0]?.length ?? 0;
  expectSize(table, rows * channels, "gather_rows");
  expectSize(
    positions,
    (positions.shape[0] ?? 0) * channels,
    "gather_rows positions",
  );
  if (
    cells < 1 || cells > (positions.shape[0] ?? 0) ||
    ids.some((list) => list.length !== cells)
  ) {
    throw new RangeError(
      `Cannot run gather_rows: each list must hold 1 to ${
        positions.shape[0]
      } ids: current ${cells}`,
    );
  }
  for (const list of ids) {
    for (const id of list) {
      if (id < 0 || id >= rows) {
        throw new RangeError(
          `Cannot run gather_rows: each id must be below ${rows}: current ${id}`,
        );
      }
    }
  }
  const backend = table.backend;
  using index = backend.upload(
    Float32Array.from(ids.flatMap((list) => [...list])),
    [ids.length, cells],
  );
  const out = backend.alloc([ids.length, channels, cells]);
  backend.dispatch(KERNEL, {
    bind: [table, positions, index, out],
    params: { count: out.size, channels, cells },
    groups: elementGroups(out.size),
  });
  return out;
}
