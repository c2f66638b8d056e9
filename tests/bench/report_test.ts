/** Statistics of the benchmark. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  bestRatio,
  kernelBars,
  type KernelResult,
  meanRatio,
  ratio,
} from "../../bench/kernels.ts";
import { passBars, type PassResult } from "../../bench/passes.ts";
import {
  atLeast,
  barLines,
  geometricMean,
  median,
  short,
  spread,
} from "../../bench/report.ts";

test("median() is the middle, of an even list the mean of two", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.throws(() => median([]), RangeError);
});

test("geometricMean() multiplies and takes the root", () => {
  assert.ok(Math.abs(geometricMean([2, 8]) - 4) < 1e-12);
  assert.ok(Number.isNaN(geometricMean([])));
});

test("short() keeps three digits", () => {
  assert.deepEqual([1234.5, 12.345, 0.012345, 0].map((x) => short(x)), [
    "1235",
    "12.3",
    "0.0123",
    "0.00",
  ]);
  assert.equal(spread([3, 1, 2]), "2.00 (1.00..3.00)");
});

test("atLeast() tells missed from not measured", () => {
  const bars = [
    atLeast("a", 2, 1),
    atLeast("b", 0.5, 1),
    atLeast("c", undefined, 1),
    atLeast("d", NaN, 1),
  ];
  assert.deepEqual(bars.map((b) => b.passed), [
    true,
    false,
    undefined,
    undefined,
  ]);
  assert.match(barLines(bars), /^PASS a: 2.00\nFAIL b: 0.500\nSKIP c/);
});

test("passBars() counts operations in both ways", () => {
  const pass = (
    kind: PassResult["kind"],
    [flops, directFlops]: readonly [number, number],
    seconds: readonly number[],
    productSeconds: readonly number[],
  ): PassResult => ({
    kind,
    work: { flops, directFlops, bytes: 0, dispatches: 0 },
    seconds,
    productSeconds,
    products: [],
  });
  // Ratios of what is measured side by side; their medians are those of the second round.
  const passes = [
    pass("plain", [10, 16], [1, 1, 2], [0.9, 0.5, 0.6]),
    pass("both", [20, 22], [2, 2, 2], [1.4, 1.5, 1.3]),
    pass("guided", [20, 24], [1.9, 2, 4.1], [1, 1, 1]),
  ];
  const bars = passBars([{ name: "m", weights: "f32", passes }]);
  assert.equal(
    barLines(bars),
    `PASS m: plain, one prompt, at least 70 % of its products' own rate, operations by the definition: 80 %
PASS m: plain, both prompts, at least 70 % of its products' own rate, operations by the definition: 77 %
FAIL m: guided inner step at most 1.15 times its FLOP ratio to a plain pass, operations by the definition: 1.33 (time 2.00, FLOPs 1.50)
FAIL m: plain, one prompt, at least 70 % of its products' own rate, operations as done: 50 %
PASS m: plain, both prompts, at least 70 % of its products' own rate, operations as done: 70 %
PASS m: guided inner step at most 1.15 times its FLOP ratio to a plain pass, operations as done: 1.00 (time 2.00, FLOPs 2.00)`,
  );
});

const SIDES = { own: "own", peers: ["jax-js", "ORT WebGPU"] };

/** A case in which every contender has the given samples. */
function result(
  kind: KernelResult["kind"],
  gflops: Readonly<Record<string, readonly number[]>>,
): KernelResult {
  const entries = Object.fromEntries(
    Object.entries(gflops).map(([name, list]) => [name, { gflops: list }]),
  );
  return { name: kind, kind, flops: 1, entries };
}

test("ratio() compares within rounds, so that a busy round cancels out", () => {
  // Three times as fast in each round, though the medians alone say 1.5.
  const one = result("conv", { own: [30, 6, 15], "jax-js": [10, 2, 5] });
  assert.equal(ratio(one, "own", "jax-js"), 3);
  assert.equal(ratio(one, "own", "ORT WebGPU"), undefined);
  assert.equal(bestRatio(one, SIDES), 3);
});

test("kernelBars() holds gradients to three times jax-js and skips what is missing", () => {
  const results = [
    result("matmul", { own: [8], "jax-js": [2], "ORT WebGPU": [4] }),
    result("conv gradient", { own: [4], "jax-js": [2], "ORT WebGPU": [] }),
  ];
  assert.ok(
    Math.abs(meanRatio(results, "own", "jax-js").mean - 8 ** 0.5) < 1e-9,
  );
  assert.equal(meanRatio(results, "own", "ORT WebGPU").cases, 1);
  const passed = kernelBars(results, SIDES).map((b) => b.passed);
  // Each beats its best peer; means 2.83 over jax-js and 2 over ORT; the gradient 2.
  assert.deepEqual(passed, [true, true, true, false, false]);
});
