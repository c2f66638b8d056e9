/** Means of probabilities that are kept as logarithms: attention averaged over heads or tokens. */
import wgsl from "./log_mean.wgsl" with { type: "text" };
import {
  elementGroups,
  type Kernel,
  record,
  sizeOf,
  type Tensor,
} from "./backend.ts";
import { logMeanRef } from "./log_mean_ref.ts";

const KERNEL: Kernel = {
  name: "log_mean",
  wgsl,
  bindings: "rrrrw",
  params: ["count", "members", "inner", "groups"],
  ref: logMeanRef,
};

/**
 * `log(mean(exp(x)))` over runs of one axis.
 *
 * @param x Any shape.
 * @param axis The axis to average.
 * @param runs Sizes of the runs, which fill the axis; one run of all by default.
 * @returns `x` with as many entries on the axis as there are runs. Differentiable; saves `x` and the result.
 * @throws {RangeError} If the runs do not fill the axis.
 */
export function logMean(
  x: Tensor,
  axis: number,
  runs: readonly number[] = [x.shape[axis] ?? 0],
): Tensor {
  const members = x.shape[axis] ?? 0;
  if (
    !(runs.every((n) => Number.isInteger(n) && n > 0) &&
      runs.reduce((a, b) => a + b, 0) === members)
  ) {
    throw new RangeError(
      `Cannot run log_mean: runs must be positive and fill axis ${axis}: current runs [${runs}] of shape [${x.shape}]`,
    );
  }
  const backend = x.backend;
  const inner = sizeOf(x.shape.slice(axis + 1));
  const outer = sizeOf(x.shape.slice(0, axis));
  const params = {
    count: outer * runs.length * inner,
    members,
    inner,
    groups: runs.length,
  };
  let first = 0;
  const rows = runs.flatMap((size) => [(first += size) - size, size]);
  using table = backend.upload(rows, [runs.length, 2]);
  const out = backend.alloc(x.shape.with(axis, runs.length));
  const groups = elementGroups(params.count);
  backend.dispatch(KERNEL, {
    bind: [x, table, x, x, out],
    params,
    constants: { GRAD: 0 },
    groups,
  });
  record([out], [x], [x, out, table], ([g]) => {
    const dx = backend.alloc(x.shape);
    backend.dispatch(KERNEL, {
      bind: [x, table, out, g!, dx],
      params,
      constants: { GRAD: 1 },
      groups,
    });
    return [dx];
  });
  return out;
}
