/** Work that a device records once and repeats: the same numbers, in the same memory. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Backend, Tensor, Work } from "../../kernels/backend.ts";
import { add, combine } from "../../kernels/combine.ts";
import { conv3x3 } from "../../kernels/conv.ts";
import { linear } from "../../kernels/linear.ts";
import { Plan } from "../../kernels/plan.ts";
import { Tape } from "../../kernels/tape.ts";
import { BACKEND, testBackend } from "../backend.ts";
import { rand } from "../compare.ts";

const SHAPE = [1, 40, 8, 8] as const;
const SIZE = 40 * 64;

/** How often work runs by itself. A recording stands for it on a device. */
function counted(
  backend: Backend,
  work: Work,
): { run: Work; times: () => number } {
  let times = 0;
  const run = backend.repeated((inputs) => {
    times++;
    return work(inputs);
  });
  return { run, times: () => times };
}

/** What `times` must be on this backend, if a device runs the work by itself so often. */
function ownRuns(calls: number, recorded: number): number {
  return BACKEND === "cpu" ? calls : recorded;
}

/** A product, a convolution and a gradient, with an upload and a copy between them. */
function network(
  backend: Backend,
  weight: Tensor,
  kernel: Tensor,
): Work {
  return ([x, y]) => {
    using tape = new Tape(backend, [x!]);
    const out = tape.run(() => {
      using product = linear(x!, weight);
      using sum = add(product, y!);
      return conv3x3(sum, kernel);
    });
    using seed = backend.upload(rand(7, SIZE), SHAPE);
    const [grad] = tape.backward([[out, seed]]);
    const moved = backend.alloc(SHAPE);
    backend.copy(seed, moved, { first: 0, at: SIZE / 2, count: SIZE / 2 });
    backend.copy(out, moved, { first: 0, at: 0, count: SIZE / 2 });
    return [out, grad!, moved];
  };
}

/** Some numbers of each result; frees them. A message would take minutes over all. */
async function take(
  backend: Backend,
  results: readonly Tensor[],
): Promise<number[][]> {
  const values = await backend.read(results);
  for (const x of results) x.dispose();
  return values.map((v) => [...v.subarray(0, SIZE)]);
}

test("repeated() gives what its work gives, whatever is in the tensors", async () => {
  const backend = await testBackend();
  backend.trim(); // as on a new device: what tests before it left is not freed in the midst of a recording
  using weight = backend.upload(rand(1, 1600), [40, 40]);
  using kernel = backend.upload(rand(2, 40 * 40 * 9), [40, 40, 3, 3]);
  const work = network(backend, weight, kernel);
  const { run, times } = counted(backend, work);
  const before = backend.memory.liveBytes;
  for (let round = 0; round < 5; round++) {
    // Other buffers each time, other numbers in all of them, and stages that hold something else.
    using x = backend.upload(rand(10 + round, SIZE), SHAPE);
    using _hole = round % 2 ? backend.alloc(SHAPE) : undefined;
    using y = backend.upload(rand(20 + round, SIZE), SHAPE);
    backend.write(weight, rand(30 + round, 1600));
    const own = await take(backend, work([x, y]));
    assert.deepEqual(await take(backend, run([x, y])), own, `round ${round}`);
  }
  assert.equal(times(), ownRuns(5, 1));
  assert.equal(backend.memory.liveBytes, before);
});

test("repeated() runs its work again where a recording would not do", async () => {
  const backend = await testBackend();
  backend.trim();
  let kept: Tensor | undefined;
  let factor = backend.upload([2, 2, 2, 2], [4]);
  const { run, times } = counted(backend, ([x]) => {
    kept ??= combine(x!, 1, x!, 0); // a table, made when it is first needed
    using sum = add(x!, factor);
    return [add(sum, kept)];
  });
  const expect = async (
    values: readonly number[],
    wanted: number,
    recorded: number,
    what: string,
  ): Promise<void> => {
    using x = backend.upload(values, [values.length]);
    const before = times();
    const [[first] = []] = await take(backend, run([x]));
    assert.equal(first, wanted, what);
    assert.equal(times() - before, ownRuns(1, recorded), what);
  };
  await expect([1, 1, 1, 1], 4, 1, "first: it keeps a tensor");
  await expect([5, 1, 1, 1], 8, 1, "recorded");
  await expect([6, 1, 1, 1], 9, 0, "repeated");
  backend.write(factor, Float32Array.of(3, 3, 3, 3));
  await expect([6, 1, 1, 1], 10, 0, "other numbers outside");
  factor.dispose();
  factor = backend.upload([4, 4, 4, 4], [4]);
  await expect([6, 1, 1, 1], 11, 1, "another tensor outside");
  await expect([7, 1, 1, 1], 12, 0, "repeated with it");
  backend.trim();
  await expect([7, 1, 1, 1], 12, 1, "its buffers were freed");
  await expect([8, 1, 1, 1], 13, 0, "repeated with others");
  {
    using x = backend.upload([1, 1, 1, 1], [4]);
    const [held] = run([x]);
    using _held = held!;
    await expect([2, 1, 1, 1], 7, 1, "a result is still in use");
  }
  using flat = backend.upload([9, 1, 1, 1], [1, 4]);
  const before = times();
  assert.deepEqual((await take(backend, run([flat])))[0]![0], 14);
  assert.equal(times() - before, 1, "another shape");
  kept!.dispose();
  factor.dispose();
});

test("repeated() makes again what its work had kept and others freed", async () => {
  const backend = await testBackend();
  let kept: Tensor | undefined;
  const { run, times } = counted(backend, ([x]) => {
    kept ??= combine(x!, 1, x!, 0);
    return [add(x!, kept)];
  });
  for (const value of [1, 2]) {
    using x = backend.upload([value], [1]);
    assert.deepEqual(await take(backend, run([x])), [[2 * value]]);
    assert.deepEqual((await backend.read([kept!]))[0]![0], value);
    kept!.dispose();
    kept = undefined;
  }
  assert.equal(times(), 2);
});

test("repeated() and others do not take each other's copies of matrices for their own", async () => {
  const backend = await testBackend();
  backend.alloc([2 ** 23]).dispose(); // nothing after it is the largest tensor, which would free all others
  const sizes = [128, 128] as const;
  using weight = backend.upload(rand(1, 128 * 128), sizes);
  using other = backend.upload(rand(2, 128 * 128), sizes);
  using x = backend.upload(rand(3, 128 * 1024), [1, 128, 1024]);
  const product = async (by: Tensor, input = x): Promise<number[]> =>
    (await take(backend, [linear(input, by)]))[0]!;
  const wanted = await product(weight);
  const { run, times } = counted(backend, ([x]) => {
    using first = linear(x!, weight);
    return [first.retain(), linear(x!, other)];
  });
  const check = async (): Promise<void> => {
    assert.deepEqual((await take(backend, run([x])))[0], wanted);
    assert.deepEqual(await product(weight), wanted, "after it");
  };
  await check();
  await product(other);
  for (let round = 0; round < 2; round++) await check();
  // Larger matrices than any before: the copies get another place.
  using wide = backend.upload(rand(4, 128 * 4096), [1, 128, 4096]);
  using tall = backend.upload(rand(5, 1024 * 128), [1024, 128]);
  await product(tall, wide);
  for (let round = 0; round < 2; round++) await check();
  assert.equal(times(), ownRuns(5, 2));
});

test("repeated() does not record what writes or frees a tensor from outside", async () => {
  const backend = await testBackend();
  using outside = backend.upload([1], [1]);
  let next = 1;
  const writes = counted(backend, ([x]) => {
    backend.write(outside, Float32Array.of(next++));
    return [add(x!, outside)];
  });
  const frees = counted(backend, ([x]) => {
    const made = backend.upload([1], [1]);
    const sum = add(x!, made);
    made.dispose();
    gone.dispose();
    return [sum];
  });
  let gone = outside;
  for (let round = 1; round <= 4; round++) {
    using x = backend.upload([10], [1]);
    assert.deepEqual(await take(backend, writes.run([x])), [[10 + round]]);
    gone = backend.alloc([1]);
    assert.deepEqual(await take(backend, frees.run([x])), [[11]]);
  }
  assert.deepEqual([writes.times(), frees.times()], [4, 4]);
});

test("repeated() is part of what a tape or other repeated work records", async () => {
  const backend = await testBackend();
  using x = backend.upload([1, 2], [2]);
  const twice = backend.repeated(([x]) => [combine(x!, 2, x!, 0)]);
  const four = backend.repeated(([x]) => {
    const [a] = twice([x!]);
    using one = a!;
    return twice([one]);
  });
  for (let round = 0; round < 3; round++) {
    using tape = new Tape(backend, [x]);
    const [y] = tape.run(() => twice([x]));
    using seed = backend.upload([1, 1], [2]);
    const [grad] = tape.backward([[y!, seed]]);
    assert.deepEqual(await take(backend, [y!, grad!]), [[2, 4], [2, 2]]);
    assert.deepEqual(await take(backend, four([x])), [[4, 8]]);
  }
});

test("repeated() leaves nothing behind if its work fails", async () => {
  const backend = await testBackend();
  using x = backend.upload([1], [1]);
  const before = backend.memory.liveBytes;
  let fails = true;
  const run = backend.repeated(([x]) => {
    using sum = add(x!, x!);
    if (fails) throw new Error("not now");
    return [add(sum, x!)];
  });
  assert.throws(() => run([x]), /not now/);
  assert.equal(backend.memory.liveBytes, before);
  fails = false;
  assert.deepEqual(await take(backend, run([x])), [[3]]);
  assert.deepEqual(await take(backend, run([x])), [[3]]);
});

if (BACKEND !== "cpu") {
  test("repeated() takes the memory that a plan says, recorded or not", async () => {
    const backend = await testBackend();
    const peaks = async (on: Backend): Promise<unknown[]> => {
      using weight = on.upload(new Float32Array(1600), [40, 40]);
      using kernel = on.upload(new Float32Array(40 * 40 * 9), [40, 40, 3, 3]);
      const run = on.repeated(network(on, weight, kernel));
      on.trim();
      const found = [];
      const start = on.memory;
      for (let round = 0; round < 4; round++) {
        on.resetPeak();
        using x = on.alloc(SHAPE);
        using y = on.alloc(SHAPE);
        for (const made of run([x, y])) made.dispose();
        await on.read([]);
        const { peakBytes, peakReservedBytes } = on.memory;
        found.push([
          peakBytes - start.liveBytes,
          peakReservedBytes - start.reservedBytes,
        ]);
      }
      return found;
    };
    using plan = new Plan(Infinity, backend.family, backend.matrix);
    assert.deepEqual(await peaks(backend), await peaks(plan));
  });
}
