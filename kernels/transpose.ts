/** Transposed copies, for products that read a matrix along its other axis. */
import wgsl from "./transpose.wgsl" with { type: "text" };
import { type Kernel, runGroups, type Tensor } from "./backend.ts";
import { transposeRef } from "./transpose_ref.ts";

const KERNEL: Kernel = {
  name: "transpose",
  wgsl,
  bindings: "rw",
  params: ["batch", "rows", "columns"],
  ref: transposeRef,
};

/**
 * `out[z, c, r] = x[z, r, c]`. Not differentiable.
 *
 * @param x `batch` matrices of `rows` lines; a line has what is left of its size.
 * @param out Where to put it; holds as many numbers.
 * @throws {RangeError} If `batch` times `rows` does not divide the size, or `out` has another.
 */
export function transposeInto(
  x: Tensor,
  out: Tensor,
  batch: number,
  rows: number,
): void {
  const columns = x.size / batch / rows;
  if (!(columns >= 1 && Number.isInteger(columns)) || out.size !== x.size) {
    throw new RangeError(
      `Cannot run transpose: ${batch} matrices of ${rows} lines must fill both tensors: current shapes are [${x.shape}] and [${out.shape}]`,
    );
  }
  const [runs] = runGroups(rows, columns);
  x.backend.dispatch(KERNEL, {
    bind: [x, out],
    params: { batch, rows, columns },
    groups: [runs, rows, batch],
  });
}
