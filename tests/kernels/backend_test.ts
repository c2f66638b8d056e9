import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  type Backend,
  elementGroups,
  type Floats,
  foldGroups,
  type Kernel,
  STAGE_SIZE,
  type Tensor,
} from "../../kernels/backend.ts";
import { add, combine } from "../../kernels/combine.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { DeviceLostError, DeviceMemoryError } from "../../kernels/errors.ts";
import { gemm } from "../../kernels/gemm.ts";
import { toHalves } from "../../kernels/half.ts";
import { Plan } from "../../kernels/plan.ts";
import { WebGpu } from "../../kernels/webgpu.ts";
import { BACKEND, DEVICE, KERNELS, testBackend } from "../backend.ts";
import { compare, rand } from "../compare.ts";

test("rand() is seeded, exact in float32 and spread over its range", () => {
  const x = rand(1, 10_000, 2);
  assert.deepEqual(rand(1, 10_000, 2), x);
  assert.notDeepEqual(rand(2, 10_000, 2), x);
  const mean = x.reduce((a, b) => a + b, 0) / x.length;
  assert.ok(Math.abs(mean) < 0.06, `mean ${mean}`); // 5 standard errors
  assert.ok(Math.max(...x) <= 2 && Math.max(...x) > 1.99);
  assert.ok(Math.min(...x) >= -2 && Math.min(...x) < -1.99);
});

test("compare() measures, and fails on lengths and on what is not finite", () => {
  const found = compare(Float32Array.of(3, 4, 1), Float32Array.of(3, 4, 0));
  assert.deepEqual(found, { nmse: 0.04, relL2: 0.2, maxAbs: 1, refMax: 4 });
  const one = Float32Array.of(1);
  assert.throws(() => compare(one, Float32Array.of(1, 2)), /lengths/);
  for (const bad of [NaN, Infinity, -Infinity]) {
    assert.throws(() => compare(Float32Array.of(bad), one), /not finite/);
    assert.throws(() => compare(one, Float32Array.of(bad)), /not finite/);
  }
});

test("foldGroups() covers every count with axes below 65,536", () => {
  for (const count of [1, 2, 65_535, 65_536, 131_071, 10_000_019]) {
    const [x, y, z] = foldGroups(count);
    assert.ok(x <= 65_535 && y <= 65_535 && z === 1);
    assert.ok(x * y >= count && x * y < count + y);
  }
  assert.deepEqual(elementGroups(64), [1, 1, 1]);
  assert.deepEqual(elementGroups(65), [2, 1, 1]);
});

test("Backend reads back what was uploaded, several tensors in one wait", async () => {
  const backend = await testBackend();
  const data = [1, 2, 3, 7, 1001].map((n) => rand(n, n));
  const tensors = data.map((x) => backend.upload(x, [x.length]));
  const empty = backend.upload([], [0]);
  const values = await backend.read([...tensors, empty, tensors[1]!]);
  assert.deepEqual(
    values.map((v) => Float32Array.from(v)),
    [...data, new Float32Array(0), data[1]],
  );
  for (const x of [...tensors, empty]) x.dispose();
});

test("Backend.write() does not reach dispatches that came before it", async () => {
  const backend = await testBackend();
  using x = backend.upload([1, 2], [2]);
  using before = combine(x, 1, x, 0);
  backend.write(x, Float32Array.of(10, 20));
  using after = combine(x, 1, x, 0);
  const values = await backend.read([before, after]);
  assert.deepEqual(values.map((v) => [...v]), [[1, 2], [10, 20]]);
});

test("Backend.write() writes a part of a tensor", async () => {
  const backend = await testBackend();
  using x = backend.upload([1, 2, 3, 4, 5], [5]);
  backend.write(x, Float32Array.of(20, 30), 1);
  backend.write(x, Float32Array.of(50), 4);
  const [values] = await backend.read([x]);
  assert.deepEqual([...values!], [1, 20, 30, 4, 50]);
  for (const [count, first] of [[2, 4], [1, -1], [1, 0.5], [6, 0]] as const) {
    assert.throws(() => backend.write(x, new Float32Array(count), first), {
      name: "RangeError",
      message: /data must lie inside 5 numbers/,
    });
  }
  assert.throws(() => backend.write(x, new Float32Array(2)), {
    name: "RangeError",
    message: /data must hold 5 numbers: current 2/,
  });
});

test("Backend.writeHalf() writes a part of a tensor, pairs of numbers at a time", async () => {
  const backend = await testBackend();
  using a = backend.alloc([7, 1], "f16");
  backend.writeHalf(a, toHalves(Float32Array.of(1, 2, 3, 4, 5, 6, 7)));
  backend.writeHalf(a, toHalves(Float32Array.of(30, 40)), 2);
  backend.writeHalf(a, toHalves(Float32Array.of(70)), 6); // the last one has no other
  using one = backend.upload([1], [1, 1]);
  using y = backend.alloc([7, 1]);
  gemm(
    [7, 1, 1],
    { tensor: a, stride: 1 },
    { tensor: one, stride: 1 },
    { tensor: y, stride: 1 },
  );
  const [values] = await backend.read([y]);
  assert.deepEqual([...values!], [1, 2, 30, 40, 5, 6, 70]);
  for (const [count, first] of [[2, 1], [1, 2]] as const) {
    assert.throws(() => backend.writeHalf(a, new Uint16Array(count), first), {
      name: "RangeError",
      message: /must begin and end at even numbers/,
    });
  }
});

test("Backend reuses memory only behind the dispatches that read it", async () => {
  const backend = await testBackend();
  const sums: Tensor[] = [];
  for (let i = 0; i < 5; i++) {
    using x = backend.upload(new Float32Array(300).fill(i), [300]);
    sums.push(combine(x, 1, x, 1));
  }
  const values = await backend.read(sums);
  values.forEach((v, i) => assert.ok(v.every((n) => n === 2 * i), `sum ${i}`));
  for (const x of sums) x.dispose();
});

test("Backend keeps the parameters of more dispatches than one submission holds", async () => {
  const backend = await testBackend();
  using one = backend.upload([1], [1]);
  let sum = backend.upload([0], [1]);
  for (let i = 1; i <= 4200; i++) {
    const next = combine(sum, 1, one, i % 7);
    sum.dispose();
    sum = next;
  }
  const [values] = await backend.read([sum]);
  assert.equal(values![0], 600 * (1 + 2 + 3 + 4 + 5 + 6));
  sum.dispose();
});

test("Backend counts live, peak and reserved bytes", async () => {
  const backend = await testBackend();
  const start = backend.memory.liveBytes;
  const a = backend.alloc([1000]);
  const b = backend.alloc([1000]);
  const live = backend.memory.liveBytes;
  assert.ok(live >= start + 8000);
  b.retain();
  b.dispose();
  assert.equal(backend.memory.liveBytes, live);
  b.dispose();
  assert.ok(backend.memory.liveBytes < live);
  assert.ok(backend.memory.peakBytes >= live);
  backend.resetPeak();
  assert.equal(backend.memory.peakBytes, backend.memory.liveBytes);
  a.dispose();
  backend.trim();
  assert.equal(backend.memory.reservedBytes, backend.memory.liveBytes);
  assert.equal(backend.memory.liveBytes, start);
});

test("Backend and Tensor refuse wrong sizes and dead tensors", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using x = backend.upload([1, 2], [2]);
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    refused(() => backend.upload([1, 2, 3], [2]), /hold 2 numbers: current 3/);
    refused(
      () => backend.write(x, new Float32Array(3)),
      /2 numbers: current 3/,
    );
    const gone = backend.alloc([2]);
    gone.dispose();
    assert.equal(gone.disposed, true);
    refused(() => gone.dispose(), /must be alive/);
    refused(() => gone.retain(), /must be alive/);
    backend.write(x, new Float32Array(2));
  }
  assert.equal(backend.memory.liveBytes, before);
});

test("Backend.stage() grows, is counted as reserved, and refuses what is too much", async () => {
  const backend = await testBackend();
  if (!(backend instanceof WebGpu)) return; // references read the tensor itself
  backend.trim();
  using x = backend.alloc([STAGE_SIZE.f32 + 4]);
  using half = backend.alloc([4096], "f16");
  const before = backend.memory;
  const grown = (): number =>
    backend.memory.reservedBytes - before.reservedBytes;
  const step = 64 * 260 * 16; // 64 rows
  backend.stage("a", x, 0, 4 * 256 * 64);
  backend.stage("a", x, 4, 4);
  assert.equal(grown(), step);
  backend.stage("a", x, 0, 4 * 256 * 64 + 4);
  assert.equal(grown(), 2 * step);
  backend.stage("b", x, 0, 4);
  assert.equal(grown(), 3 * step);
  backend.stage("a", half, 4, 4);
  assert.equal(grown(), 3.5 * step);
  assert.equal(backend.memory.liveBytes, before.liveBytes);
  assert.throws(
    () => backend.stage("a", x, 0, STAGE_SIZE.f32 + 4),
    /Cannot stage \[2097156\]: at most 2097152 numbers fit/,
  );
  backend.trim();
  assert.equal(grown(), 0);
});

test("Backend.copy() copies a range after what was recorded before, and refuses what does not fit", async () => {
  const backend = await testBackend();
  using x = backend.upload([1, 2, 3, 4, 5], [5]);
  using y = backend.upload([6, 7, 8], [3]);
  using sum = add(x, x);
  backend.copy(sum, y, { first: 3, at: 1, count: 2 });
  using more = add(y, y);
  backend.write(x, Float32Array.of(9, 9, 9, 9, 9));
  backend.copy(x, y, { first: 4, at: 0, count: 1 });
  const found = await backend.read([y, more]);
  assert.deepEqual(found.map((v) => [...v]), [[9, 8, 10], [12, 16, 20]]);
  // What is written comes after, whether to where numbers come from or to where they go.
  using from = backend.upload([1, 2], [2]);
  using to = backend.upload([3, 4], [2]);
  backend.copy(from, to, { first: 0, at: 0, count: 2 });
  backend.write(from, Float32Array.of(5, 6));
  assert.deepEqual([...(await backend.read([to]))[0]!], [1, 2]);
  backend.copy(from, to, { first: 0, at: 0, count: 2 });
  backend.write(to, Float32Array.of(0, 1));
  assert.deepEqual([...(await backend.read([to]))[0]!], [0, 1]);
  const refused = (...given: Parameters<typeof backend.copy>) =>
    assert.throws(
      () => backend.copy(...given),
      /^RangeError: Cannot copy .* must be alive, two, and hold them/,
    );
  refused(x, y, { first: 4, at: 0, count: 2 });
  refused(x, y, { first: 0, at: 2, count: 2 });
  refused(x, x, { first: 0, at: 2, count: 1 });
  const gone = backend.alloc([3]);
  gone.dispose();
  refused(gone, y, { first: 0, at: 0, count: 1 });
  using half = backend.alloc([4], "f16");
  assert.throws(
    () => backend.copy(half, y, { first: 0, at: 0, count: 1 }),
    /^TypeError: Cannot copy \[4\]: it must be stored as f32/,
  );
});

test("Backend.stage() copies again what was written since, by a kernel, a copy or from the host", async () => {
  const backend = await testBackend();
  const size = 64;
  const [one, two, three] = [1, 2, 3].map((seed) => rand(seed, size * size));
  using a = backend.upload(one!, [size, size]);
  using b = backend.upload(two!, [size, size]);
  const line = (tensor: Tensor) => ({ tensor, stride: size });
  const results: Tensor[] = [];
  const multiply = (): void => {
    const c = backend.alloc([size, size]);
    gemm([size, size, size], line(a), line(b), line(c), { variant });
    results.push(c);
  };
  const variant = KERNELS === "gpu" ? "tiled" : "texel";
  multiply();
  multiply();
  gemm([size, size, size], line(a), line(a), line(b), { variant });
  multiply(); // b is a a
  using other = backend.upload(two!, [size, size]);
  backend.copy(other, b, { first: 0, at: 0, count: b.size });
  multiply();
  backend.write(b, three!);
  multiply();
  const product = (x: Floats, y: Floats): Float64Array => {
    const out = new Float64Array(size * size);
    for (let m = 0; m < size; m++) {
      for (let n = 0; n < size; n++) {
        for (let k = 0; k < size; k++) {
          out[m * size + n]! += x[m * size + k]! * y[k * size + n]!;
        }
      }
    }
    return out;
  };
  const wanted = [
    product(one!, two!),
    product(one!, two!),
    product(one!, product(one!, one!)),
    product(one!, two!),
    product(one!, three!),
  ];
  (await backend.read(results)).forEach((values, i) =>
    assert.ok(compare(values, wanted[i]!).relL2 < 1e-6, `product ${i}`)
  );
  for (const c of results) c.dispose();
});

// Not skipped but not there: these say something about WebGPU only.
const deviceTest = BACKEND === "cpu" ? () => {} : test;

test("Backend.prepare() leaves kernels that run as if they were not prepared", async () => {
  const backend = await testBackend();
  using plan = new Plan();
  const run = (on: Backend): Tensor => {
    using a = on.upload(rand(1, 64 * 64), [64, 64]);
    using b = on.upload(rand(2, 64 * 256), [64, 256]);
    const c = on.alloc([64, 256]);
    const [x, y, z] = [
      { tensor: a, stride: 64 },
      { tensor: b, stride: 256 },
      { tensor: c, stride: 256 },
    ];
    gemm([64, 256, 64], x, y, z);
    return c;
  };
  run(plan).dispose();
  const { liveBytes } = backend.memory;
  await backend.prepare(plan.kernels);
  assert.equal(backend.memory.liveBytes, liveBytes);
  using found = run(backend);
  using cpu = new Cpu();
  using wanted = run(cpu);
  const [values] = await backend.read([found]);
  const [reference] = await cpu.read([wanted]);
  assert.ok(compare(values!, reference!).relL2 < 1e-6);
  // A kernel that is no WGSL is named when numbers are wanted.
  if (BACKEND !== "webgpu") return;
  using broken = await WebGpu.open(DEVICE ? { device: DEVICE } : {});
  const kernel = { ...plan.kernels[0]!.kernel, wgsl: "fn main( {" };
  await broken.prepare([{ kernel, constants: {} }]);
  await assert.rejects(broken.read([]), /Cannot compile gemm_texel/);
});

deviceTest(
  "WebGpu.prepare() shares many kernels with other devices, and takes them along when it goes",
  async () => {
    const shapes = [[64, 64, 64], [64, 4, 512]] as const;
    const run = (on: Backend): Tensor[] =>
      [0, 1, 2, 3, 4, 5, 6, 7].map((flags) => {
        const [m, n, k] = shapes[flags & 1]!;
        using a = on.upload(rand(1, m * k), [m, k]);
        using b = on.upload(rand(2, k * n), [k, n]);
        using bias = on.upload(rand(3, m), [m]);
        const c = on.upload(rand(4, m * n), [m, n]);
        gemm(
          [m, n, k],
          { tensor: a, stride: k },
          { tensor: b, stride: n },
          { tensor: c, stride: n },
          {
            bias: flags & 2 ? bias : undefined,
            accumulate: (flags & 4) > 0,
            variant: "texel",
          },
        );
        return c;
      });
    using plan = new Plan();
    for (const c of run(plan)) c.dispose();
    assert.ok(plan.kernels.length >= 8);
    const options = DEVICE ? { device: DEVICE } : {};
    using first = await WebGpu.open(options);
    await first.prepare(plan.kernels);
    first[Symbol.dispose](); // while it compiles
    using second = await WebGpu.open(options);
    const { liveBytes } = second.memory;
    await second.prepare(plan.kernels);
    const results = run(second);
    using cpu = new Cpu();
    const wanted = await cpu.read(run(cpu));
    const found = await second.read(results);
    for (const [i, values] of found.entries()) {
      assert.ok(compare(values, wanted[i]!).relL2 < 1e-6, `${i}`);
    }
    for (const c of results) c.dispose();
    assert.equal(second.memory.liveBytes, liveBytes);
  },
);

test("Backend.read() stops when the signal is aborted", async () => {
  const backend = await testBackend();
  using x = backend.upload([1], [1]);
  const signal = AbortSignal.abort(new Error("enough"));
  await assert.rejects(
    async () => await backend.read([x], { signal }),
    /enough/,
  );
  const [values] = await backend.read([x], {
    signal: new AbortController().signal,
  });
  assert.deepEqual([...values!], [1]);
});

deviceTest(
  "WebGpu refuses tensors past the binding limit and dead bindings",
  async () => {
    const backend = await testBackend();
    assert.throws(() => backend.alloc([2 ** 34]), DeviceMemoryError);
    using x = backend.upload([1], [1]);
    const gone = backend.upload([2], [1]);
    gone.dispose();
    assert.throws(() => combine(x, 1, gone, 1), /must be alive/);
    combine(x, 1, x, 1).dispose();
  },
);

deviceTest(
  "WebGpu.read() tells of a kernel that does not compile, and no numbers",
  async () => {
    using own = await WebGpu.open({ device: DEVICE });
    using x = own.upload([1], [1]);
    const kernel: Kernel = {
      name: "broken",
      wgsl: "@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }",
      bindings: "w",
      params: [],
      ref: () => {},
    };
    const [values] = await own.read([x]);
    assert.deepEqual([...values!], [1]);
    own.dispatch(kernel, { bind: [x], params: {}, groups: [1, 1, 1] });
    await assert.rejects(() => own.read([x]), /Cannot compile broken/);
    await assert.rejects(() => own.read([x]), /Cannot compile broken/);
  },
);

deviceTest(
  "WebGpu.dispatch() refuses missing params and bindings",
  async () => {
    const backend = await testBackend();
    using x = backend.upload([1], [1]);
    const kernel: Kernel = {
      name: "idle",
      wgsl: `@group(0) @binding(0) var<storage, read_write> x: array<f32>;
struct Params { size: u32 }
@group(0) @binding(1) var<uniform> p: Params;
@compute @workgroup_size(1) fn main() { x[0] = f32(p.size); }`,
      bindings: "w",
      params: ["size"],
      ref: () => {},
    };
    const groups = [1, 1, 1] as const;
    assert.throws(
      () =>
        backend.dispatch(kernel, { bind: [x, x], params: { size: 1 }, groups }),
      /binds 1 tensors: current 2/,
    );
    assert.throws(
      () => backend.dispatch(kernel, { bind: [x], params: {}, groups }),
      /"size" must be given/,
    );
    backend.dispatch(kernel, { bind: [x], params: { size: 7 }, groups });
    const [values] = await backend.read([x]);
    assert.deepEqual([...values!], [7]);
  },
);

deviceTest(
  "WebGpu.read() gives an error after the device is lost, never numbers",
  async () => {
    const own = await WebGpu.open({ device: DEVICE });
    const x = own.upload([1], [1]);
    assert.equal(own.lost.aborted, false);
    own[Symbol.dispose](); // destroys the device, which is one way to lose it
    await assert.rejects(() => own.read([x]), DeviceLostError);
    assert.ok(own.lost.aborted && own.lost.reason instanceof DeviceLostError);
  },
);

deviceTest(
  "WebGpu makes no new bind groups for steps that repeat",
  async () => {
    using own = await WebGpu.open({ device: DEVICE });
    let x = own.upload(rand(1, 64), [64]);
    const counts: number[] = [];
    for (let step = 0; step < 6; step++) {
      // Two that live at once, freed in another order than they were made.
      const a = combine(x, 2, x, 1);
      const b = combine(x, 3, a, 1);
      x.dispose();
      x = combine(a, 1, b, 1);
      a.dispose();
      b.dispose();
      await own.read([x]);
      counts.push(own.bindGroups);
    }
    x.dispose();
    assert.ok(counts[0]! > 0);
    assert.equal(counts[5], counts[3], `groups after each step: ${counts}`);
  },
);

test("what is disposed can neither be read nor bound", async () => {
  const backend = await testBackend();
  const gone = backend.upload([1, 2, 3, 4], [4]);
  gone.dispose();
  await assert.rejects(
    async () => await backend.read([gone]),
    /Cannot read \[4\]: it must be alive/,
  );
  using there = backend.upload([1, 2, 3, 4], [4]);
  assert.throws(() => combine(there, 1, gone, 1), /must be alive/);
});
