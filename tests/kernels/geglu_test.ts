import { strict as assert } from "node:assert";
import { test } from "node:test";
import { geglu } from "../../kernels/geglu.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";
import { gelu } from "./formulas.ts";

test("geglu() matches its definition", async () => {
  const shapes = [[1, 2, 1], [2, 6, 5], [1, 2, 63], [2, 2, 64], [3, 10, 13], [
    2,
    4,
    3,
    5,
  ]];
  for (const shape of shapes) {
    for (const scale of [1, 20]) {
      // One gate alone is positive: left of 0 gelu vanishes, and its error only beside the gate.
      const x = shape[1] === 2 && shape[2] === 1
        ? { data: Float32Array.of(0.3 * scale, 0.9 * scale), shape }
        : input(3, shape, scale);
      await checkOp(`geglu [${shape}] x ${scale}`, {
        inputs: [x],
        wrt: [0],
        forward: (x) => [geglu(x)],
      }, {
        // As gelu, 8 U, and two more products.
        values: 10 * U,
        grads: 10 * U,
        formula: () => {
          const [batch = 1] = shape;
          const plane = x.data.length / batch / 2;
          const y = new Float64Array(x.data.length / 2);
          for (let i = 0; i < y.length; i++) {
            const b = Math.floor(i / plane);
            const value = x.data[2 * b * plane + i % plane]!;
            const gate = x.data[(2 * b + 1) * plane + i % plane]!;
            y[i] = value * gelu(gate);
          }
          return [y];
        },
      });
    }
  }
});

test("geglu() matches its definition at a size of the networks", async () => {
  await checkOp("geglu [2, 2560, 64]", {
    inputs: [input(3, [2, 2560, 8, 8], 3)],
    wrt: [0],
    forward: (x) => [geglu(x)],
  }, { values: 10 * U, grads: 10 * U, numeric: false });
});

test("geglu() refuses an odd number of channels", async () => {
  const backend = await testBackend();
  using odd = backend.alloc([1, 3, 4]);
  using even = backend.alloc([1, 4, 4]);
  assert.throws(() => geglu(odd), { name: "RangeError", message: /even/ });
  geglu(even).dispose();
});
