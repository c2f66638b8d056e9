import { test } from "node:test";
import { activation } from "../../kernels/activation.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";
import { gelu, sigmoid } from "./formulas.ts";

const FORMULAS = {
  silu: (x: number) => x * sigmoid(x),
  gelu,
  quick_gelu: (x: number) => x * sigmoid(1.702 * x),
};
const KINDS = ["silu", "gelu", "quick_gelu"] as const;

for (const kind of KINDS) {
  test(`activation() matches its definition: ${kind}`, async () => {
    for (const scale of [1e-3, 1, 8, 60]) {
      for (const size of [1, 63, 64, 65, 997]) {
        // One number alone is positive: left of 0 the value vanishes, and its error only beside x.
        const x = size === 1
          ? { data: Float32Array.of(0.9 * scale), shape: [1] }
          : input(size, [size], scale);
        // Values: the sigmoid (an exponential of 3 + 2|x| ULP damped by s (1 - s), and a division of
        // 2.5 ULP) and erf keep 7 U; one product. Slopes: 1 - s has the absolute error of s, 3 U,
        // and x times that counts until s is 1, at x = 17.
        const values = 8 * U;
        const slopes = (8 + 3 * Math.min(scale, 17)) * U;
        await checkOp(`${kind} ${size} x ${scale}`, {
          inputs: [x],
          wrt: [0],
          forward: (x) => [activation(x, kind)],
        }, {
          values: { relL2: values, maxAbs: values * scale },
          grads: { relL2: slopes, maxAbs: slopes },
          formula: () => [Float64Array.from(x.data, FORMULAS[kind])],
        });
      }
    }
  });
}

test("activation() reaches past 65,535 workgroups", async () => {
  const x = input(1, [65_535 * 64 + 1], 4);
  await checkOp("silu of 4,194,241 numbers", {
    inputs: [x],
    forward: (x) => [activation(x, "silu")],
  }, { values: 8 * U });
});
