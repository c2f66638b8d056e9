import { strict as assert } from "node:assert";
import { test } from "node:test";
import { dotInto } from "../../kernels/dot.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

test("dotInto() writes one product per item into its slot and nothing else", async () => {
  for (
    const [batch, count] of [[1, 1], [3, 7], [2, 255], [2, 256], [2, 257], [
      5,
      1009,
    ], [2, 4096]]
  ) {
    // Shifted, so that no sum cancels: then the relative error is that of a sum of positive numbers.
    const x = input(1, [batch!, count!], 1, 2);
    const y = input(2, [batch!, count!], 1, 2);
    const before = input(3, [20]);
    await checkOp(`dot [${batch}, ${count}]`, {
      inputs: [x, y, before],
      forward: (x, y, out) => {
        dotInto(x, y, out, { slot: 1, stride: 3 });
        dotInto(x, x, out, { slot: 2, stride: 3 });
        return [out.retain()];
      },
    }, {
      // count / 256 numbers a thread in a row, whose errors all count in full (they are positive),
      // then a tree of 8 levels.
      values: (10 + count! / 256) * U,
      formula: () => {
        const out = Float64Array.from(before.data);
        for (let b = 0; b < batch!; b++) {
          out[1 + 3 * b] = out[2 + 3 * b] = 0;
          for (let i = b * count!; i < (b + 1) * count!; i++) {
            out[1 + 3 * b]! += x.data[i]! * y.data[i]!;
            out[2 + 3 * b]! += x.data[i]! * x.data[i]!;
          }
        }
        return [out];
      },
    });
  }
});

test("dotInto() refuses slots outside the output", async () => {
  const backend = await testBackend();
  using x = backend.upload([1, 2, 3, 4], [2, 2]);
  using y = backend.alloc([3]);
  using out = backend.alloc([4]);
  const refused = (run: () => unknown, message: RegExp) =>
    assert.throws(run, { name: "RangeError", message });
  refused(() => dotInto(x, y, out, { slot: 0, stride: 1 }), /hold 4 numbers/);
  refused(() => dotInto(x, x, out, { slot: 1, stride: 3 }), /slots must lie/);
  dotInto(x, x, out, { slot: 0, stride: 3 });
  const [values] = await backend.read([out]);
  assert.deepEqual([values![0], values![3]], [5, 25]);
});
