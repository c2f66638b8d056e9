import { strict as assert } from "node:assert";
import { test } from "node:test";
import { groupNorm } from "../../kernels/group_norm.ts";
import { sizeOf } from "../../kernels/backend.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { apart, checkBatch, checkOp, input } from "./check_op.ts";
import { groupNormed } from "./formulas.ts";

interface Case {
  readonly shape: readonly number[];
  readonly groups: number;
  /** Channels of x; the others lie beside it. All if left out. */
  readonly own?: number;
  readonly mean?: number;
  readonly numeric?: boolean;
}

const CASES: readonly Case[] = [
  { shape: [1, 1, 1], groups: 1 },
  { shape: [2, 5, 1, 1], groups: 5 }, // one channel per group and one cell: the variance is 0
  { shape: [2, 3, 7], groups: 3 },
  { shape: [2, 6, 5], groups: 2 },
  { shape: [3, 4, 3, 5], groups: 1 },
  { shape: [1, 4, 63], groups: 2 },
  { shape: [1, 2, 64], groups: 2 },
  { shape: [2, 2, 65], groups: 2 },
  { shape: [1, 4, 31], groups: 2, mean: 10 },
  { shape: [1, 4, 256], groups: 2, mean: -300, numeric: false },
  // What the first mean leaves out is more than the deviation.
  { shape: [1, 1, 9], groups: 1, mean: 1024, numeric: false },
  // Cells in fours: fewer than threads, a part of a turn more, what the first mean leaves out.
  { shape: [2, 6, 2, 2], groups: 3 },
  { shape: [2, 4, 6, 6], groups: 2, mean: 2 },
  { shape: [1, 1, 12], groups: 1, mean: 1024, numeric: false },
  { shape: [2, 3, 2052], groups: 1, mean: 1, numeric: false }, // a block of sums and one four
  { shape: [2, 320, 16, 16], groups: 32, numeric: false },
  { shape: [1, 2, 257], groups: 1, numeric: false }, // a thread more than 256
  { shape: [2, 4, 1031], groups: 2, numeric: false }, // 8 x 256 threads, and 14 more
  // On GPUs cut into parts: two, an end, and borders of channels inside; the most parts.
  { shape: [2, 3, 11003], groups: 1, numeric: false },
  { shape: [1, 2, 530_000], groups: 1, mean: 3, numeric: false },
  // Of two tensors: groups of one, of the other, of both; a part of both; more threads than numbers of one.
  { shape: [2, 6, 5], groups: 2, own: 3 },
  { shape: [2, 6, 5], groups: 2, own: 4 },
  { shape: [2, 6, 2, 2], groups: 3, own: 1 },
  { shape: [2, 6, 2, 2], groups: 3, own: 5 },
  { shape: [2, 4, 6, 6], groups: 2, own: 3, mean: 2 },
  { shape: [2, 4, 1031], groups: 2, own: 1, numeric: false },
  { shape: [2, 3, 11003], groups: 1, own: 2, numeric: false },
  { shape: [2, 3, 2052], groups: 1, own: 1, mean: 1, numeric: false },
  { shape: [2, 320, 16, 16], groups: 32, own: 195, numeric: false },
];

for (const silu of [false, true]) {
  test(`groupNorm() matches its definition${silu ? " with SiLU" : ""}`, async () => {
    for (const c of CASES) await checkGroupNorm(c, silu);
  });
}

async function checkGroupNorm(c: Case, silu: boolean): Promise<void> {
  const { shape, groups, own, mean = 0, numeric = true } = c;
  const [batch = 1, channels = 1, ...space] = shape;
  const cells = sizeOf(space);
  const x = input(1, shape, 1, mean);
  const sources = own ? apart(x, own) : [x];
  const weight = input(2, [channels], 1, 1.5);
  const bias = input(3, [channels]);
  const eps = 1e-5;
  const count = channels / groups * cells;
  // The uniform numbers have a deviation of 0.58. The mean is one rounding of itself, the two sums
  // run over count / 64 numbers a thread and 6 levels of a tree, then about 4 roundings; SiLU adds
  // its 8 U, and its slope 16 U (see activation_test.ts, |x| < 4 or so).
  const values = (Math.abs(mean) / 0.58 + 12 + Math.sqrt(count / 64)) * U +
    (silu ? 8 * U : 0);
  await checkOp(`group_norm ${JSON.stringify(c)} ${silu ? "silu" : ""}`, {
    inputs: [weight, bias, ...sources],
    wrt: sources.map((_, i) => 2 + i),
    forward: (weight, bias, x, beside) => [
      groupNorm(x!, weight!, bias!, { groups, eps, silu, beside }),
    ],
  }, {
    values,
    // The sums of the way back are of the same kind, with q in place of x.
    // Of one number the gradient is 0: what is left is the rounding of q, times 1 / sqrt(eps).
    grads: sources.map(() =>
      (2 * values + (silu ? 16 * U : 0)) *
      (count === 1 ? 1 / Math.sqrt(eps) : 1)
    ),
    numeric,
    formula: () => [
      groupNormed(x.data, [batch, channels, cells], weight.data, bias.data, {
        groups,
        eps,
        silu,
      }),
    ],
  });
}

test("groupNorm() gives an item the same bits alone and in a batch", async () => {
  for (const shape of [[2, 4, 1031], [2, 2, 20_000]]) {
    const channels = [shape[1]!];
    for (const groups of [1, 2]) {
      await checkBatch(
        [input(1, shape), input(2, channels), input(3, channels)],
        (x, weight, bias) =>
          groupNorm(x, weight, bias, { groups, eps: 1e-5, silu: true }),
      );
    }
  }
});

test("groupNorm() refuses what does not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using x = backend.alloc([1, 4, 5]);
    using four = backend.upload([1, 1, 1, 1], [4]);
    using three = backend.alloc([3]);
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    const eps = 1e-5;
    refused(() => groupNorm(x, four, four, { groups: 3, eps }), /3 groups/);
    refused(() => groupNorm(x, three, four, { groups: 2, eps }), /hold 4/);
    refused(() => groupNorm(x, four, three, { groups: 2, eps }), /hold 4/);
    using beside = backend.alloc([1, 2, 6]);
    refused(
      () => groupNorm(x, four, four, { groups: 2, eps, beside }),
      /group_norm: batch and space must agree/,
    );
    refused(() => groupNorm(four, four, four, { groups: 2, eps }), /x must be/);
    groupNorm(x, four, four, { groups: 2, eps }).dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});
