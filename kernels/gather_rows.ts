/** Token and position embeddings. */
import wgsl from "./gather_rows.wgsl" with { type: "text" };
import {
  elementGroups,
  expectShape,
  expectSize,
  type Kernel,
  type Tensor,
} from "./backend.ts";
import { gatherRowsRef } from "./gather_rows_ref.ts";

const KERNEL: Kernel = {
  name: "gather_rows",
  wgsl,
  bindings: "rrrw",
  params: ["count", "channels", "cells", "first", "rows"],
  ref: gatherRowsRef,
};

/**
 * `out[b, :, n] = table[ids[b, n]] + positions[n]`.
 *
 * @param tables `[rows, channels]`, f32 or f16; in parts of some rows each where one tensor would be
 *   more than an adapter can bind.
 * @param positions `[at least cells, channels]`.
 * @param ids `batch` lists of `cells` row numbers each.
 * @returns `[batch, channels, cells]`. Not differentiable.
 * @throws {RangeError} If an id is not a row of the table.
 */
export function gatherRows(
  tables: readonly Tensor[],
  positions: Tensor,
  ids: readonly Int32Array[],
): Tensor {
  const channels = tables[0]?.shape[1] ?? 0;
  const cells = ids[0]?.length ?? 0;
  let rows = 0;
  for (const table of tables) {
    const [own = 0] = table.shape;
    expectShape(table, [own, channels], "gather_rows");
    rows += own;
  }
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
  const backend = positions.backend;
  using index = backend.upload(
    Float32Array.from(ids.flatMap((list) => [...list])),
    [ids.length, cells],
  );
  const out = backend.alloc([ids.length, channels, cells]);
  let first = 0;
  for (const table of tables) {
    const own = table.shape[0]!;
    backend.dispatch(KERNEL, {
      bind: [table, positions, index, out],
      params: { count: out.size, channels, cells, first, rows: own },
      constants: { HALF: Number(table.type === "f16") },
      groups: elementGroups(out.size),
    });
    first += own;
  }
  return out;
}
