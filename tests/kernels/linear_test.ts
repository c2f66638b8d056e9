import { strict as assert } from "node:assert";
import { test } from "node:test";
import { linear } from "../../kernels/linear.ts";
import { sizeOf } from "../../kernels/backend.ts";
import { testBackend } from "../backend.ts";
import { sumBound } from "../compare.ts";
import { apart, checkOp, type Input, input } from "./check_op.ts";

// [batch, in, out, ...space]; the last two are the text keys and a 1x1 convolution of SD 1.5.
const CASES = [
  [1, 1, 1, 1],
  [2, 3, 5, 7],
  [3, 13, 4, 3, 5],
  [2, 63, 65, 64],
  [2, 768, 320, 77],
  [1, 320, 320, 16, 16],
] as const;

// [batch, channels, of them in x, out, cells]: none in fours, borders of fours and of none, as large as SD1.5's.
const TWO = [
  [2, 5, 2, 3, 7],
  [2, 24, 8, 16, 16],
  [1, 24, 7, 16, 16],
  [1, 640, 320, 320, 64],
] as const;

/** The definition. */
function linearOf(
  x: Input,
  w: Input,
  bias?: Input,
  residual?: Input,
): Float64Array {
  const [batch = 0, channels = 0, ...space] = x.shape;
  const cells = sizeOf(space);
  const out = w.shape[0]!;
  const y = new Float64Array(batch * out * cells);
  for (let i = 0; i < y.length; i++) {
    const n = i % cells;
    const o = Math.floor(i / cells) % out;
    const b = Math.floor(i / cells / out);
    let sum = (bias?.data[o] ?? 0) + (residual?.data[i] ?? 0);
    for (let c = 0; c < channels; c++) {
      sum += w.data[o * channels + c]! *
        x.data[(b * channels + c) * cells + n]!;
    }
    y[i] = sum;
  }
  return y;
}

for (const [batch, channels, out, ...space] of CASES) {
  for (const residual of [false, true]) {
    const name = `[${batch}, ${channels}, ${space}] to ${out}`;
    test(`linear() matches its definition: ${name}${residual ? " plus residual" : ""}`, async () => {
      const x = input(1, [batch, channels, ...space]);
      const w = input(2, [out, channels, 1, 1]);
      const bias = input(3, [out]);
      const r = input(4, [batch, out, ...space]);
      await checkOp(`linear ${name}`, {
        inputs: [x, w, bias, r],
        wrt: residual ? [0, 3] : [0],
        forward: (x, w, bias, r) => [
          linear(x, w, residual ? { bias, residual: r } : {}),
        ],
      }, {
        values: sumBound(channels),
        grads: [sumBound(out), 0],
        numeric: channels < 64,
        formula: () => [
          residual ? linearOf(x, w, bias, r) : linearOf(x, w),
        ],
      });
    });
  }
}

test("linear() takes two tensors as one", async () => {
  for (const [batch, channels, own, out, cells] of TWO) {
    const x = input(1, [batch, channels, cells]);
    const sources = apart(x, own);
    const rest = [input(2, [out, channels]), input(3, [out])];
    const r = input(4, [batch, out, cells]);
    for (const wrt of [[0, 1, 4], [0], [1, 4]]) {
      await checkOp(`linear ${own} of ${channels}, ${wrt}`, {
        inputs: [...sources, ...rest, r],
        wrt,
        forward: (x, beside, w, bias, residual) => [
          linear(x, w, { beside, bias, residual }),
        ],
      }, {
        values: sumBound(channels),
        grads: wrt.map((i) => i === 4 ? 0 : sumBound(out)),
        numeric: channels < 64,
        formula: () => [linearOf(x, rest[0]!, rest[1]!, r)],
      });
    }
  }
});

test("linear() sends a gradient only where one is wanted", async () => {
  const r = input(4, [1, 2, 3]);
  await checkOp("linear residual only", {
    inputs: [input(1, [1, 4, 3]), input(2, [2, 4]), r],
    wrt: [2],
    forward: (x, w, residual) => [linear(x, w, { residual })],
  }, { values: sumBound(4), grads: 0 });
});

test("linear() adds both gradients when the residual is the input", async () => {
  await checkOp("linear residual is x", {
    inputs: [input(1, [2, 4, 3]), input(2, [4, 4])],
    wrt: [0],
    forward: (x, w) => [linear(x, w, { residual: x })],
  }, { values: sumBound(4), grads: sumBound(4) });
});

test("linear() refuses tensors that do not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using x = backend.alloc([1, 4, 3]);
    using w = backend.alloc([2, 4]);
    using flat = backend.alloc([4]);
    using empty = backend.alloc([1, 0, 3]);
    using wrong = backend.alloc([2, 5]);
    using shorter = backend.alloc([1, 1, 4]);
    assert.throws(() => linear(flat, w), /x must be \[batch, channels/);
    assert.throws(() => linear(empty, w), /not empty/);
    assert.throws(() => linear(x, wrong), /must hold 8 numbers/);
    assert.throws(
      () => linear(x, w, { beside: shorter }),
      /linear: batch and space must agree/,
    );
    assert.throws(() => linear(x, w, { bias: flat }), /must hold 2 numbers/);
    assert.throws(() => linear(x, w, { residual: x }), /must hold 6 numbers/);
    linear(x, w).dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});

// Each file is on its own in Deno. Taken down by it, these tests' device ends the process on lavapipe under Dawn.
if ("Deno" in globalThis) {
  test("the device of these tests goes down", async () => {
    (await testBackend())[Symbol.dispose]();
  });
}
