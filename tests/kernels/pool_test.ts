import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Backend, Tensor } from "../../kernels/backend.ts";
import { conv3x3 } from "../../kernels/conv.ts";
import { Plan } from "../../kernels/plan.ts";
import { Pool } from "../../kernels/pool.ts";
import { attention } from "../../kernels/attention.ts";
import { WebGpu } from "../../kernels/webgpu.ts";
import { BACKEND, DEVICE } from "../backend.ts";

function pool(): {
  pool: Pool<{ size: number }>;
  made: number[];
  gone: number[];
} {
  const made: number[] = [], gone: number[] = [];
  const pool = new Pool<{ size: number }>({
    create(size) {
      made.push(size);
      return { size };
    },
    destroy: ({ size }) => gone.push(size),
    beforeTrim: () => {},
  });
  return { pool, made, gone };
}

test("Pool takes the smallest free buffer that is at most twice as large", () => {
  const { pool: p, made } = pool();
  const sizes = [4096, 1024, 512].map((size) => p.take(size));
  for (const { buffer, bytes } of sizes) p.give(buffer, bytes);
  assert.deepEqual(made, [4096, 1024, 512]);
  assert.equal(p.take(600).bytes, 1024); // rounded up to 768
  assert.equal(p.take(500).bytes, 512);
  assert.equal(p.take(1100).bytes, 1280); // 4096 would be more than twice
  assert.equal(p.take(2048).bytes, 4096);
  assert.deepEqual(made, [4096, 1024, 512, 1280]);
});

test("Pool gives equal steps equal buffers", () => {
  const { pool: p } = pool();
  const step = (): number[] => {
    const a = p.take(1000), b = p.take(700), c = p.take(1000);
    p.give(c.buffer, c.bytes);
    const d = p.take(900);
    for (const x of [b, d, a]) p.give(x.buffer, x.bytes);
    return [a, b, c, d].map((x) => p.id(x.buffer));
  };
  step();
  assert.deepEqual(step(), step());
});

test("Pool keeps buffers for repeated work, which takes none of the others'", () => {
  const { pool: p, made } = pool();
  const own = p.repeat(() => p.take(1000));
  p.give(own.buffer, own.bytes);
  assert.equal(p.repeat(() => p.take(1000)).buffer, own.buffer);
  p.give(own.buffer, own.bytes);
  // Memory is not left unused for it.
  const outside = p.take(1000);
  assert.equal(outside.buffer, own.buffer);
  p.give(outside.buffer, outside.bytes);
  const other = p.repeat(() => p.take(1000));
  assert.notEqual(other.buffer, outside.buffer);
  assert.deepEqual(made, [1024, 1024]);
  assert.deepEqual([p.has(outside.buffer), p.has(other.buffer)], [true, false]);
  p.give(other.buffer, other.bytes);
  p.claim([outside, other], 5000);
  assert.deepEqual([p.live, p.peak, p.reserved], [2048, 5000, 2048]);
});

test("Pool counts bytes in use and bytes taken, and their peaks", () => {
  const { pool: p, gone } = pool();
  const a = p.take(1), b = p.take(1024);
  assert.deepEqual([p.live, p.reserved], [1280, 1280]);
  p.give(b.buffer, b.bytes);
  const c = p.take(256);
  assert.deepEqual([p.live, p.peak, p.reserved, p.peakReserved], [
    512,
    1280,
    1536,
    1536,
  ]);
  p.resetPeak();
  assert.deepEqual([p.peak, p.peakReserved], [512, 1536]);
  p.trim();
  assert.deepEqual([gone, p.reserved], [[1024], 512]);
  for (const x of [a, c]) p.give(x.buffer, x.bytes);
  // A larger buffer than ever frees those of the stage before it.
  p.take(4096);
  assert.deepEqual([p.live, p.reserved], [4096, 4096]);
});

/** Convolutions and attention as in a network, freed as they go. */
function work(backend: Backend): void {
  const make = (...shape: number[]): Tensor => backend.alloc(shape);
  using x = make(2, 8, 12, 10);
  for (let round = 0; round < 3; round++) {
    using weight = make(24, 8, 3, 3);
    using q = conv3x3(x, weight, { workBytes: 20_000 });
    using narrow = make(8, 24, 3, 3);
    const { out } = attention(q, q, q, { heads: 3, chunkBytes: 50_000 });
    using attended = out;
    conv3x3(attended, narrow).dispose();
  }
}

if (BACKEND === "webgpu") {
  test("Plan foretells the bytes that a device takes", async () => {
    using own = await WebGpu.open({ device: DEVICE });
    using plan = new Plan(own.maxTensorBytes, own.family);
    work(own);
    work(plan);
    await own.read([]);
    assert.ok(plan.memory.peakReservedBytes > 50_000);
    assert.deepEqual(own.memory, plan.memory);
  });
}

test("Plan counts matrix products, refuses what an adapter cannot bind, and reads zeros", async () => {
  using plan = new Plan(4096);
  work(new Plan());
  assert.throws(() => plan.alloc([1025]), {
    name: "DeviceMemoryError",
    message: /4096 bytes: current size is 4100/,
  });
  using x = plan.upload(new Float32Array(40).fill(1), [1, 1, 2, 20]);
  using weight = plan.alloc([3, 1, 3, 3], "f16");
  conv3x3(x, weight).dispose();
  // 16 products of [3, 1] with [1, 10 tiles], and two more to make fours
  assert.equal(plan.flops, 2 * 16 * 3 * 12);
  assert.equal(plan.dispatches, 4);
  assert.equal(plan.largestTensorBytes, 16 * 3 * 12 * 4);
  assert.deepEqual(await plan.read([x]), [new Float32Array(40)]);
});

test("Pool starts over when it is trimmed, so that a second run takes what the first did", () => {
  const { pool: p } = pool();
  const run = (): number => {
    p.trim();
    p.resetPeak();
    for (const sizes of [[512, 512, 512], [4096]]) {
      const taken = sizes.map((size) => p.take(size));
      for (const { buffer, bytes } of taken) p.give(buffer, bytes);
    }
    return p.peakReserved;
  };
  assert.deepEqual([run(), run()], [4096, 4096]);
});

test("Pool hands out nothing that was made before it lost trust", () => {
  const { pool: p, made, gone } = pool();
  const [a, b] = [p.take(1024), p.take(2048)];
  p.give(a.buffer, a.bytes);
  p.distrust();
  assert.deepEqual(gone, [1024]);
  p.give(b.buffer, b.bytes);
  assert.deepEqual([gone, p.live, p.reserved], [[1024, 2048], 0, 0]);
  const c = p.take(2048);
  p.give(c.buffer, c.bytes);
  p.take(2048);
  assert.deepEqual(made, [1024, 2048, 2048]);
});

test("Plan refuses more workgroups along an axis than there can be", () => {
  using plan = new Plan();
  using x = plan.alloc([4]);
  const kernel = { name: "k", wgsl: "", bindings: "w", params: [], ref() {} };
  const run = (groups: [number, number, number]) =>
    plan.dispatch(kernel, { bind: [x], params: {}, groups });
  run([65_535, 1, 65_535]);
  assert.throws(() => run([1, 65_536, 1]), {
    name: "DeviceMemoryError",
    message: /Cannot run k: it must have at most 65535 workgroups.*65536/,
  });
});

test("Plan refuses a tensor whose buffer is more than an adapter can bind", () => {
  using plan = new Plan(1000);
  plan.alloc([192]).dispose();
  // 900 bytes of numbers, in a buffer of 1024.
  assert.throws(() => plan.alloc([225]), { name: "DeviceMemoryError" });
});
