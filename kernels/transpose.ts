/** Transposed copies, for products that read a matrix along its other axis. */
import wgsl from "./transpose.wgsl" with { type: "text" };
import { type Kernel, runGroups, type Tensor } from "./backend.ts";
import type { Matrix } from "./gemm.ts";
import { transposeRef } from "./transpose_ref.ts";

const KERNEL: Kernel = {
  name: "transpose",
  wgsl,
  bindings: "rw",
  params: ["batch", "rows", "columns", "sx", "so", "ox", "oo"],
  ref: transposeRef,
};

/** Matrices whose lines follow one another without gaps. */
export type Lines = Omit<Matrix, "stride">;

/**
 * `out[z, c, r] = x[z, r, c]`. Not differentiable.
 *
 * @param x `batch` matrices `[rows, columns]`.
 * @param out Where to put them.
 * @throws {RangeError} If a matrix reaches past its tensor.
 */
export function transposeInto(
  x: Lines,
  out: Lines,
  [batch, rows, columns]: readonly [number, number, number],
): void {
  const { batchStride: sx = 0, offset: ox = 0 } = x;
  const { batchStride: so = 0, offset: oo = 0 } = out;
  const size = rows * columns;
  const fits = ({ size: most }: Tensor, stride: number, first: number) =>
    first + (batch - 1) * stride + size <= most;
  if (!(size > 0 && fits(x.tensor, sx, ox) && fits(out.tensor, so, oo))) {
    throw new RangeError(
      `Cannot run transpose: ${batch} matrices of ${rows} lines of ${columns} must lie inside both tensors: current shapes are [${x.tensor.shape}] and [${out.tensor.shape}]`,
    );
  }
  const [runs] = runGroups(rows, columns);
  x.tensor.backend.dispatch(KERNEL, {
    bind: [x.tensor, out.tensor],
    params: { batch, rows, columns, sx, so, ox, oo },
    groups: [runs, rows, batch],
  });
}
