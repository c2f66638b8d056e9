import { strict as assert } from "node:assert";
import { test } from "node:test";
import { normal } from "../../kernels/normal.ts";
import { philox } from "../../kernels/normal_ref.ts";
import { testBackend } from "../backend.ts";
import { U } from "../compare.ts";
import { checkOp, runOp } from "./check_op.ts";

test("philox() gives the numbers of Random123", () => {
  // Known answers, kat_vectors of Random123: philox4x32 10
  const all = 0xffffffff;
  const cases: [number[], number[], number[]][] = [
    [[0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
    [[all, all, all, all], [all, all], [
      0x408f276d,
      0x41c83b0e,
      0xa20bc7c6,
      0x6d5451fd,
    ]],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ];
  for (const [counter, key, words] of cases) {
    assert.deepEqual(philox(counter, key), words);
  }
});

test("normal() matches its definition", async () => {
  const backend = await testBackend();
  for (const size of [1, 3, 4, 5, 255, 256, 257, 4 * 64 * 64]) {
    for (const seed of [0, 7, 2 ** 32 + 5, Number.MAX_SAFE_INTEGER]) {
      await checkOp(`normal ${size} of seed ${seed}`, {
        inputs: [{ data: new Float32Array(1), shape: [1] }],
        forward: (x) => [normal(x.backend, [size], seed, [1, 2 ** 31, 3])],
      }, {
        // Polynomials good to about 2 U; the logarithm's error is halved by the root, the angle and
        // the radius are rounded, then one product.
        values: { relL2: 4 * U, maxAbs: 40 * U },
      });
    }
  }
  assert.ok(backend);
});

test("normal() differs by seed, high bits of the seed, stream and position", async () => {
  const make = async (
    seed: number,
    stream: readonly [number, number, number],
    size = 64,
  ) => {
    const { values } = await runOp(await testBackend(), {
      inputs: [{ data: new Float32Array(1), shape: [1] }],
      forward: (x) => [normal(x.backend, [size], seed, stream)],
    });
    return values[0]!;
  };
  const first = await make(1, [0, 0, 0]);
  assert.deepEqual(await make(1, [0, 0, 0]), first);
  assert.deepEqual((await make(1, [0, 0, 0], 100)).subarray(0, 64), first);
  for (
    const other of [
      await make(2, [0, 0, 0]),
      await make(1 + 2 ** 32, [0, 0, 0]),
      await make(1, [1, 0, 0]),
      await make(1, [0, 1, 0]),
      await make(1, [0, 0, 1]),
    ]
  ) {
    const same = first.filter((v, i) => v === other[i]).length;
    assert.equal(same, 0);
  }
});

test("normal() has the moments of N(0, 1)", async () => {
  const n = 2 ** 17;
  const { values: [x] } = await runOp(await testBackend(), {
    inputs: [{ data: new Float32Array(1), shape: [1] }],
    forward: (x) => [normal(x.backend, [n], 3, [0, 0, 0])],
  });
  const moment = (k: number) =>
    Array.from(x!).reduce((sum, v) => sum + v ** k, 0) / n;
  // Five standard errors: sqrt((E x^2k - (E x^k)^2) / n)
  assert.ok(Math.abs(moment(1)) < 5 * Math.sqrt(1 / n), `mean ${moment(1)}`);
  assert.ok(Math.abs(moment(2) - 1) < 5 * Math.sqrt(2 / n), `${moment(2)}`);
  assert.ok(Math.abs(moment(3)) < 5 * Math.sqrt(15 / n), `${moment(3)}`);
  assert.ok(Math.abs(moment(4) - 3) < 5 * Math.sqrt(96 / n), `${moment(4)}`);
  for (const lag of [1, 2, 4]) { // inside a group of four words and across
    let sum = 0;
    for (let i = lag; i < n; i++) sum += x![i]! * x![i - lag]!;
    assert.ok(Math.abs(sum / n) < 5 / Math.sqrt(n), `lag ${lag}: ${sum / n}`);
  }
});

test("normal() refuses seeds that are no whole numbers", async () => {
  const backend = await testBackend();
  for (const seed of [-1, 0.5, 2 ** 53, NaN]) {
    assert.throws(() => normal(backend, [4], seed, [0, 0, 0]), {
      name: "RangeError",
      message: /seed must be/,
    });
  }
});
