import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  concatChannels,
  sliceBatch,
  stackBatch,
} from "../../kernels/concat.ts";
import { sizeOf } from "../../kernels/backend.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

// [batch, channels of x, channels of y, ...space]
const CASES = [
  [1, 1, 1, 1],
  [2, 3, 5, 7],
  [3, 1, 4, 3, 5],
  [2, 63, 65, 1],
  [2, 320, 640, 8, 8],
] as const;

test("concatChannels() puts the channels of y behind those of x", async () => {
  for (const [batch, first, second, ...space] of CASES) {
    const x = input(1, [batch, first, ...space]);
    const y = input(2, [batch, second, ...space]);
    for (const wrt of [[0, 1], [0], [1]]) {
      await checkOp(
        `concat ${batch} x (${first} + ${second}) x [${space}], ${wrt}`,
        {
          inputs: [x, y],
          wrt,
          forward: (x, y) => [concatChannels(x, y)],
        },
        {
          values: 0,
          grads: 0,
          numeric: x.data.length < 1000,
          formula: () => {
            const cells = sizeOf(space);
            const out: number[] = [];
            for (let b = 0; b < batch; b++) {
              for (let i = 0; i < first * cells; i++) {
                out.push(x.data[b * first * cells + i]!);
              }
              for (let i = 0; i < second * cells; i++) {
                out.push(y.data[b * second * cells + i]!);
              }
            }
            return [Float64Array.from(out)];
          },
        },
      );
    }
  }
});

test("concatChannels() adds both gradients of one tensor", async () => {
  await checkOp("concat of x and x", {
    inputs: [input(1, [2, 3, 5])],
    wrt: [0],
    forward: (x) => [concatChannels(x, x)],
  }, { values: 0, grads: U });
});

test("stackBatch() and sliceBatch() keep every item in its place", async () => {
  const shape = [2, 3, 5];
  const parts = [1, 2, 3].map((seed) => input(seed, shape));
  await checkOp("stack and slice", {
    inputs: parts,
    forward: (...parts) => {
      const all = stackBatch(parts);
      assert.deepEqual(all.shape, [6, 3, 5]);
      return [
        all,
        sliceBatch(all, 0, 6),
        sliceBatch(all, 1, 3),
        sliceBatch(all, 5, 1),
      ];
    },
  }, {
    values: 0,
    formula: () => {
      const all = Float64Array.from(parts.flatMap(({ data }) => [...data]));
      return [all, all, all.slice(15, 60), all.slice(75)];
    },
  });
});

test("concatChannels(), stackBatch() and sliceBatch() refuse what does not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using x = backend.alloc([2, 3, 4]);
    using batch = backend.alloc([1, 3, 4]);
    using space = backend.alloc([2, 3, 5]);
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    refused(() => concatChannels(x, batch), /must agree/);
    refused(() => concatChannels(x, space), /must agree/);
    refused(() => stackBatch([]), /at least one/);
    refused(() => stackBatch([x, space]), /\[2,3,4\]/);
    refused(() => sliceBatch(x, 1, 2), /must lie in the batch/);
    refused(() => sliceBatch(x, -1, 1), /must lie in the batch/);
    refused(() => sliceBatch(x, 0, 0), /must lie in the batch/);
    concatChannels(x, x).dispose();
    stackBatch([x, x]).dispose();
    sliceBatch(x, 1, 1).dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});
