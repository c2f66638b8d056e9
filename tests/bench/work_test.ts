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
import { gemm } from "../../kernels/gemm.ts";
import { loadUnet } from "../../pipeline/unet.ts";
import { tinyUnet } from "../networks/tiny_unet.ts";

test("caseFlops() is what our own kernels do, by the definition", async () => {
  using plan = new WorkPlan();
  const own = ownKernels(plan, { name: "plan" });
  for (const c of KERNEL_CASES) {
    const prepared = (await own.prepare(c))!;
    const { directFlops } = await plan.count(async () =>
      void await prepared.time(1)
    );
    prepared.dispose();
    // Before a gradient the forward pass is recorded, which its time leaves out.
    const kind = c.kind.replace(" gradient", "") as typeof c.kind;
    const forward = kind === c.kind
      ? 0
      : caseFlops({ ...c, kind } as KernelCase);
    assert.equal(directFlops, caseFlops(c) + forward, caseName(c));
  }
  assert.equal(plan.memory.liveBytes, 0);
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
