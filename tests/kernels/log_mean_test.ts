import { strict as assert } from "node:assert";
import { test } from "node:test";
import { logMean } from "../../kernels/log_mean.ts";
import { sizeOf } from "../../kernels/backend.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

interface Case {
  readonly shape: readonly number[];
  readonly axis: number;
  readonly runs?: readonly number[];
}

const CASES: readonly Case[] = [
  { shape: [1], axis: 0 },
  { shape: [7], axis: 0 },
  { shape: [3, 5], axis: 1 },
  { shape: [3, 5], axis: 0 },
  { shape: [2, 4, 3, 5], axis: 1 },
  { shape: [2, 3, 6, 5], axis: 2, runs: [1, 3, 2] },
  { shape: [2, 3, 4, 21], axis: 2, runs: [4] },
  { shape: [5, 64], axis: 0, runs: [2, 3] },
  { shape: [1, 8, 3, 16, 16], axis: 1 }, // heads of SD 1.5 at 16 x 16
];

test("logMean() matches its definition", async () => {
  for (const c of CASES) {
    for (const mean of [0, -200]) {
      const { shape, axis, runs } = c;
      const x = input(1, shape, 4, mean);
      const inner = sizeOf(shape.slice(axis + 1));
      const outer = sizeOf(shape.slice(0, axis));
      const members = shape[axis]!;
      const groups = runs ?? [members];
      await checkOp(`log_mean ${JSON.stringify(c)} around ${mean}`, {
        inputs: [x],
        wrt: [0],
        forward: (x) => [logMean(x, axis, runs)],
      }, {
        // x and the result are rounded at |mean|; the differences, up to 8, go through exponentials of
        // 3 + 2 |x| ULP, which weigh less the smaller they are; the logarithm has 3 ULP or 2^-21.
        values: {
          relL2: mean ? 2 * U : 20 * U,
          maxAbs: (Math.abs(mean) + 24) * U,
        },
        // exp(x - y) has the error of y.
        grads: (Math.abs(mean) + 40) * U,
        numeric: x.data.length < 500,
        formula: () => {
          const y: number[] = [];
          for (let o = 0; o < outer; o++) {
            let first = 0;
            for (const size of groups) {
              for (let i = 0; i < inner; i++) {
                let sum = 0;
                for (let m = first; m < first + size; m++) {
                  sum += Math.exp(x.data[(o * members + m) * inner + i]!) /
                    size;
                }
                y.push(Math.log(sum));
              }
              first += size;
            }
          }
          return [Float64Array.from(y)];
        },
      });
    }
  }
});

test("logMean() refuses runs that do not fill the axis", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using x = backend.upload(new Float32Array(12), [3, 4]);
    for (const runs of [[3], [2, 3], [4, 0], [1.5, 2.5], []]) {
      assert.throws(() => logMean(x, 1, runs), {
        name: "RangeError",
        message: /fill axis 1/,
      });
    }
    assert.throws(() => logMean(x, 2), { name: "RangeError" });
    logMean(x, 1, [1, 3]).dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});
