import { strict as assert } from "node:assert";
import { test } from "node:test";
import { add, combine } from "../../kernels/combine.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

test("combine() adds with weights", async () => {
  for (const size of [1, 63, 64, 65, 1009]) {
    const x = input(1, [size]);
    const y = input(2, [1, size]);
    for (const [alpha, beta] of [[1, 1], [0.75, -2], [7.5, 0], [0.1, 1]]) {
      for (const wrt of [[0, 1], [0], [1]]) {
        await checkOp(`combine ${size} ${alpha} ${beta} ${wrt}`, {
          inputs: [x, y],
          wrt,
          forward: (x, y) => [combine(x, alpha!, y, beta!)],
        }, {
          // The weight, the product and the sum are rounded; a sum that cancels was at most
          // |alpha x| + |beta y|, whose mean square is the sum's.
          values: 3 * U,
          grads: 2 * U,
          formula: () => [
            Float64Array.from(
              x.data,
              (v, i) => alpha! * v + beta! * y.data[i]!,
            ),
          ],
        });
      }
    }
  }
});

test("add() adds", async () => {
  const x = input(1, [2, 3]);
  const y = input(2, [2, 3]);
  await checkOp("add", {
    inputs: [x, y],
    wrt: [0, 1],
    forward: (x, y) => [add(x, y)],
  }, {
    values: U,
    grads: 0,
    formula: () => [Float64Array.from(x.data, (v, i) => v + y.data[i]!)],
  });
});

test("combine() refuses tensors of different size", async () => {
  const backend = await testBackend();
  using x = backend.alloc([3]);
  using y = backend.alloc([4]);
  assert.throws(() => combine(x, 1, y, 1), {
    name: "RangeError",
    message: /hold 3 numbers/,
  });
  combine(x, 1, x, 1).dispose();
});
