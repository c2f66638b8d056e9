import { strict as assert } from "node:assert";
import { test } from "node:test";
import { layerNorm } from "../../kernels/layer_norm.ts";
import { sizeOf } from "../../kernels/backend.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkBatch, checkOp, input } from "./check_op.ts";
import { moments } from "./formulas.ts";

// [mean, batch, channels, ...space]
const CASES = [
  [0, 1, 1, 1],
  [0, 1, 7, 1],
  [0, 2, 5, 3],
  [0, 1, 3, 63],
  [0, 2, 4, 64],
  [0, 1, 13, 5, 13],
  [20, 2, 16, 9],
  [1024, 1, 9, 3], // what the first mean leaves out is more than the deviation
  [0, 1, 768, 77],
  [0, 2, 320, 8, 8],
  // Cells in fours: a workgroup that is not full, and fours of two items in one.
  [20, 2, 16, 8],
  [1024, 1, 9, 4],
  [0, 3, 5, 3, 4],
  [3, 1, 70, 4100],
  // On GPUs: 32 lanes of 4, and columns of both items in one workgroup; 16 lanes; 8 lanes.
  [100, 2, 133, 11],
  [3, 1, 70, 4099],
  [0, 2, 37, 8195],
] as const;

for (const [mean, batch, channels, ...space] of CASES) {
  const name = `[${batch}, ${channels}, ${space}]`;
  test(`layerNorm() matches its definition: ${name} around ${mean}`, async () => {
    const cells = sizeOf(space);
    const x = input(1, [batch, channels, ...space], 1, mean);
    const weight = input(2, [channels], 1, 1.5);
    const bias = input(3, [channels]);
    const eps = 1e-5;
    // The deviation of the uniform numbers is 0.58. The mean is repaired, so that one rounding of it is left;
    // the squares are a sum in a row over the channels; then about 6 roundings.
    const values = (Math.abs(mean) / 0.58 + Math.sqrt(channels) + 6) * U;
    await checkOp(`layer_norm ${name}`, {
      inputs: [x, weight, bias],
      wrt: [0],
      forward: (x, weight, bias) => [layerNorm(x, weight, bias, eps)],
    }, {
      values,
      grads: 2 * values,
      numeric: channels < 64 && cells < 100,
      formula: () => {
        const y = new Float64Array(x.data.length);
        for (let b = 0; b < batch; b++) {
          for (let n = 0; n < cells; n++) {
            const at = (c: number) => (b * channels + c) * cells + n;
            const column = Array.from(
              { length: channels },
              (_, c) => x.data[at(c)]!,
            );
            const [middle, inverse] = moments(column, eps);
            column.forEach((v, c) => {
              y[at(c)] = (v - middle) * inverse * weight.data[c]! +
                bias.data[c]!;
            });
          }
        }
        return [y];
      },
    });
  });
}

test("layerNorm() gives an item the same bits alone and in a batch", async () => {
  for (const shape of [[2, 133, 11], [2, 70, 2048]]) {
    const channels = [shape[1]!];
    await checkBatch(
      [input(1, shape), input(2, channels), input(3, channels)],
      (x, weight, bias) => layerNorm(x, weight, bias, 1e-5),
    );
  }
});

test("layerNorm() refuses what does not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using x = backend.alloc([1, 4, 5]);
    using four = backend.upload([1, 1, 1, 1], [4]);
    using three = backend.alloc([3]);
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    refused(() => layerNorm(x, three, four, 1e-5), /hold 4/);
    refused(() => layerNorm(x, four, three, 1e-5), /hold 4/);
    refused(() => layerNorm(four, four, four, 1e-5), /x must be/);
    layerNorm(x, four, four, 1e-5).dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});
