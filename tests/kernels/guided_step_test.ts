import { strict as assert } from "node:assert";
import { test } from "node:test";
import { guidedStep } from "../../kernels/guided_step.ts";
import { sizeOf } from "../../kernels/backend.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

test("guidedStep() guides and steps", async () => {
  const coefficients = { a: 1.25, b: -0.375, c: 1.5, d: -1.125 };
  for (const shape of [[1], [1, 61], [1, 64], [5, 13], [2, 4, 64, 64]]) {
    for (const scale of [1, 7.5]) {
      const size = sizeOf(shape);
      const z = input(1, shape);
      const outputs = input(2, [2 * shape[0]!, ...shape.slice(1)]);
      await checkOp(`guided_step [${shape}] x ${scale}`, {
        inputs: [z, outputs],
        forward: (z, outputs) => {
          const { next, clean } = guidedStep(z, outputs, scale, coefficients);
          assert.deepEqual([next.shape, clean.shape], [shape, shape]);
          return [next, clean];
        },
      }, {
        // Difference, product, sum, two products, sum.
        values: 6 * U,
        formula: () => {
          const e = (i: number) =>
            (1 - scale) * outputs.data[i]! + scale * outputs.data[size + i]!;
          const { a, b, c, d } = coefficients;
          return [
            Float64Array.from(z.data, (v, i) => a * v + b * e(i)),
            Float64Array.from(z.data, (v, i) => c * v + d * e(i)),
          ];
        },
      });
    }
  }
});

test("guidedStep() refuses a single output", async () => {
  const backend = await testBackend();
  using z = backend.alloc([1, 4]);
  assert.throws(() => guidedStep(z, z, 1, { a: 1, b: 0, c: 1, d: 0 }), {
    name: "RangeError",
    message: /hold 8 numbers/,
  });
});
