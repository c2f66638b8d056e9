import { strict as assert } from "node:assert";
import { test } from "node:test";
import { upsampleNearest } from "../../kernels/upsample.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

// [batch, channels, height, width, outHeight, outWidth]
const CASES = [
  [1, 1, 1, 1, 1, 1],
  [1, 1, 1, 1, 2, 2],
  [2, 3, 4, 4, 8, 8],
  [1, 3, 7, 5, 13, 9], // one less than twice, where the level below rounded up
  [2, 1, 4, 8, 7, 16],
  [1, 2, 3, 5, 3, 11],
  [1, 2, 9, 7, 64, 65],
  [2, 64, 16, 16, 32, 32],
] as const;

test("upsampleNearest() copies the nearest cell", async () => {
  for (const [batch, channels, h, w, H, W] of CASES) {
    const x = input(1, [batch, channels, h, w]);
    const cells = Math.ceil(H / h) * Math.ceil(W / w);
    await checkOp(
      `upsample [${batch}, ${channels}, ${h}, ${w}] to ${H} x ${W}`,
      {
        inputs: [x],
        wrt: [0],
        forward: (x) => [upsampleNearest(x, [H, W])],
      },
      {
        values: 0, // a copy
        grads: U * Math.sqrt(cells), // a sum of as many as read one cell
        numeric: x.data.length < 1000,
        formula: () => {
          const y = new Float64Array(batch * channels * H * W);
          for (let i = 0; i < y.length; i++) {
            const row = Math.floor(i / W) % H, column = i % W;
            const plane = Math.floor(i / W / H);
            // The cell whose share of the output holds the left top corner of this one.
            let r = 0, c = 0;
            while ((r + 1) * H <= row * h) r++;
            while ((c + 1) * W <= column * w) c++;
            y[i] = x.data[(plane * h + r) * w + c]!;
          }
          return [y];
        },
      },
    );
  }
});

test("upsampleNearest() refuses to shrink", async () => {
  const backend = await testBackend();
  using x = backend.alloc([1, 1, 4, 4]);
  using flat = backend.alloc([1, 1, 16]);
  const refused = (run: () => unknown) =>
    assert.throws(run, { name: "RangeError", message: /Cannot run upsample/ });
  refused(() => upsampleNearest(x, [3, 8]));
  refused(() => upsampleNearest(x, [8, 3]));
  refused(() => upsampleNearest(flat, [8, 8]));
  upsampleNearest(x, [4, 4]).dispose();
});
