/** Operations that are counted for kernels and passes. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  caseFlops,
  caseName,
  KERNEL_CASES,
  type KernelCase,
} from "../../bench/kernel_cases.ts";
import { ownKernels } from "../../bench/own_kernels.ts";
import { passInputs } from "../../bench/pass_inputs.ts";
import { transposed } from "../../bench/transpose.ts";
import { dominant, replay, WorkPlan } from "../../bench/work.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { conv3x3 } from "../../kernels/conv.ts";
import { gemm } from "../../kernels/gemm.ts";
import { transformWeight } from "../../kernels/winograd.ts";
import { loadUnet } from "../../pipeline/unet.ts";
import { tinyUnet } from "../networks/tiny_unet.ts";

const FAMILIES = ["software", "gpu"] as const;
const UNITS = { M: 16, N: 16, K: 16, subgroup: 32, memory: 48 * 1024 };

for (const family of FAMILIES) {
  test(`caseFlops() is what our own ${family} kernels do, by the definition`, async () => {
    using plan = new WorkPlan(Infinity, family);
    const own = ownKernels(plan, { name: "plan" });
    for (const c of KERNEL_CASES) {
      const prepared = (await own.prepare(c))!;
      const { directFlops, products } = await plan.count(async () =>
        void await prepared.time(1)
      );
      prepared.dispose();
      // Before a gradient the forward pass is recorded, which its time leaves out.
      const kind = c.kind.replace(" gradient", "") as typeof c.kind;
      const forward = kind === c.kind
        ? 0
        : caseFlops({ ...c, kind } as KernelCase);
      assert.equal(directFlops, caseFlops(c) + forward, caseName(c));
      if (family === "software") continue;
      // The kernels that pictures take there.
      const expected = kind === "matmul"
        ? /^gemm_tiled_/
        : kind === "conv"
        ? /^conv_tiled_/
        : /^flash_attention/;
      for (const { name } of products) {
        assert.match(name, expected);
        assert.doesNotMatch(name, /undefined/);
      }
    }
    assert.equal(plan.memory.liveBytes, 0);
  });
}

test("WorkPlan counts the same by the definition for either family, and by matrix units", async () => {
  const source = await tinyUnet();
  // Level by level even sides, odd ones, and images of a single cell.
  for (const side of [8, 16, 20, 32]) {
    const found: number[][] = [];
    for (const units of [undefined, undefined, UNITS]) {
      const family = FAMILIES[Math.min(found.length, 1)]!;
      using plan = new WorkPlan(Infinity, family, units);
      using unet = await loadUnet(plan, source);
      using inputs = passInputs(unet, side);
      inputs.plain();
      const plain = await plan.count(() => inputs.plain());
      const guided = await plan.count(() => inputs.guided());
      found.push([plain.directFlops, guided.directFlops]);
    }
    assert.deepEqual(found[0], found[1], `side ${side}`);
    assert.deepEqual(found[0], found[2], `side ${side}, matrix units`);
  }
  await source.close();
});

test("WorkPlan counts the weights of a product once, in however many pieces it runs", async () => {
  const [M, N, K] = [4096, 64, 1280]; // A does not fit a stage of f16
  using plan = new WorkPlan();
  using a = plan.alloc([M, K], "f16");
  using b = plan.alloc([K, N]);
  using y = plan.alloc([M, N]);
  using bias = plan.alloc([M]);
  const product = (): void =>
    gemm(
      [M, N, K],
      { tensor: a, stride: K },
      { tensor: b, stride: N },
      { tensor: y, stride: N },
      { bias },
    );
  const { bytes, dispatches } = await plan.count(product);
  assert.equal(dispatches, 2);
  const [ofA, ofB, ofY, ofBias] = [2 * M * K, 4 * K * N, 4 * M * N, 4 * M];
  // Both are copied to a stage, B once for both pieces; each piece then reads it.
  assert.equal(bytes, 3 * ofA + (2 + 2) * ofB + ofY + 2 * ofBias);
  // A kernel that writes b makes the copy an old one.
  const again = await plan.count(product);
  assert.equal(again.bytes, bytes - 2 * ofB);
  gemm(
    [4, 4, 4],
    { tensor: a, stride: 4 },
    { tensor: y, stride: 4 },
    { tensor: b, stride: 4 },
  );
  assert.equal((await plan.count(product)).bytes, bytes);
});

test("WorkPlan counts parts of tensors, shared matrices and what is added to", async () => {
  using plan = new WorkPlan(Infinity, "gpu");
  using a = plan.alloc([100, 100]);
  using b = plan.alloc([2, 8, 16]);
  using y = plan.alloc([2, 4, 16]);
  const { bytes } = await plan.count(() =>
    gemm(
      [4, 16, 8],
      { tensor: a, stride: 100 },
      { tensor: b, stride: 16, batchStride: 8 * 16 },
      { tensor: y, stride: 16, batchStride: 4 * 16 },
      { batch: 2, accumulate: true, residual: y.retain() },
    )
  );
  y.dispose();
  assert.equal(bytes, 4 * (4 * 8 + 2 * 8 * 16 + 2 * (2 * 4 * 16)));
});

test("WorkPlan counts a kernel once that is transformed in pieces", async () => {
  const [out, channels] = [640, 1920];
  using plan = new WorkPlan();
  using weight = plan.alloc([out, channels, 3, 3], "f16");
  const { bytes } = await plan.count(() => {
    for (const first of [0, 160, 320, 480]) {
      using u = plan.alloc([16, 160, channels]);
      transformWeight(weight, u, {
        out: first,
        outs: 160,
        channel: 0,
        channels,
      });
    }
  });
  assert.equal(bytes, (9 * 2 + 16 * 4) * out * channels);
});

test("WorkPlan counts nine planes of sixteen where the image is doubled", async () => {
  using plan = new WorkPlan();
  using x = plan.alloc([1, 32, 8, 8]);
  using weight = plan.alloc([64, 32, 3, 3]);
  const work = await plan.count(() =>
    conv3x3(x, weight, { doubled: true }).dispose()
  );
  const [u, v, m] = [9 * 64 * 32, 9 * 32 * 64, 9 * 64 * 64];
  const staged = work.bytes / 4 -
    (x.size + weight.size + 2 * u + 2 * v + 2 * m + 4 * 64 * 64);
  assert.equal(work.directFlops, 2 * 9 * 64 * 32 * 16 * 16);
  assert.equal(staged, 2 * (u + v)); // copied to stages, where products read them
});

test("WorkPlan counts a guided pass as dearer than a plain one, and names all its products", async () => {
  const source = await tinyUnet();
  using plan = new WorkPlan();
  using unet = await loadUnet(plan, source);
  await source.close();
  using inputs = passInputs(unet, 16);
  const first = await plan.count(() => inputs.plain());
  const plain = await plan.count(() => inputs.plain());
  const guided = await plan.count(() => inputs.guided());
  assert.ok(first.flops > plain.flops); // the text is projected once
  assert.ok(guided.flops > 1.3 * plain.flops && guided.flops < 3 * plain.flops);
  for (const work of [plain, guided]) {
    const listed = work.products.reduce((n, p) => n + p.count * p.flops, 0);
    assert.equal(listed, work.flops);
    assert.ok(work.directFlops > work.flops);
    const most = dominant(work, 0.8).reduce((n, p) => n + p.count * p.flops, 0);
    assert.ok(most >= 0.8 * work.flops && most < work.flops);
  }
});

test("replay() runs a product with tensors of its own", async () => {
  using plan = new WorkPlan();
  const { products: [product] } = await plan.count(() => {
    const [a, b, y] = [[2, 3], [3, 4], [2, 4]].map((s) => plan.alloc(s));
    gemm(
      [2, 4, 3],
      { tensor: a!, stride: 3 },
      { tensor: b!, stride: 4 },
      { tensor: y!, stride: 4 },
    );
  });
  using cpu = new Cpu();
  const { run, dispose } = replay(cpu, product!);
  run();
  // a, which also stands for bias and residual, b and y
  assert.equal(cpu.memory.liveBytes, 8 * (6 + 12 + 8));
  dispose();
  assert.equal(cpu.memory.liveBytes, 0);
});

test("replay() copies anew what a product copies, and only that", async () => {
  using plan = new WorkPlan();
  const size = [64, 64, 256] as const; // large enough for stages on a device
  const { products } = await plan.count(() => {
    const [M, N, K] = size;
    const [a, b, y] = [[M, K], [K, N], [M, N]].map((s) => plan.alloc(s));
    for (let i = 0; i < 2; i++) { // the second time both are there
      gemm(
        [M, N, K],
        { tensor: a!, stride: K },
        { tensor: b!, stride: N },
        { tensor: y!, stride: N },
      );
    }
  });
  assert.deepEqual(
    products.map(({ copies, count }) => [
      count,
      copies.map((c) => [c.name, c.binding, c.first, c.count]),
    ]),
    [[1, [["a", 0, 0, 64 * 256], ["b", 1, 0, 256 * 64]]], [1, []]],
  );
  using again = new WorkPlan();
  for (const product of products) {
    const { run, dispose } = replay(again, product);
    const { bytes } = await again.count(() => {
      run();
      run();
    });
    const copied = product.copies.length ? 2 * 2 * 4 * 2 * 64 * 256 : 0;
    assert.equal(bytes - copied, 2 * 4 * (2 * 64 * 256 + 64 * 64));
    dispose();
  }
  assert.equal(again.memory.liveBytes, 0);
});

test("transposed() swaps the last two axes", () => {
  const data = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
  assert.deepEqual([...transposed(data, [2, 2, 3])], [
    0,
    3,
    1,
    4,
    2,
    5,
    6,
    9,
    7,
    10,
    8,
    11,
  ]);
});
