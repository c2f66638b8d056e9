import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Kernel, PlannedKernel } from "../../kernels/backend.ts";
import { type Compiler, Compilers } from "../../kernels/compilers.ts";

const planned = (count: number): PlannedKernel[] =>
  Array.from({ length: count }, (_, i) => {
    const name = `kernel ${i}`;
    const kernel: Kernel = {
      name,
      wgsl: "",
      bindings: "",
      params: [],
      ref() {},
    };
    return { kernel, constants: {} };
  });

/** Notes what is asked of it; fails where `broken`. */
class Fake implements Compiler {
  kernels: readonly PlannedKernel[] = [];
  waited = 0;
  disposed = 0;
  constructor(readonly broken = false) {}
  prepare(kernels: readonly PlannedKernel[]): Promise<void> {
    this.kernels = kernels;
    return Promise.resolve();
  }
  read(): Promise<Float32Array[]> {
    assert.equal(this.disposed, 0);
    this.waited++;
    return this.broken
      ? Promise.reject(new Error("lost"))
      : Promise.resolve([]);
  }
  [Symbol.dispose](): void {
    this.disposed++;
  }
}

test("Compilers.share() gives each kernel to one device, which begins with it", async () => {
  for (
    const [kernels, threads, devices] of [
      [50, 3, 3],
      [50, 1, 1],
      [50, 64, 4],
      [9, 8, 2],
      [3, 8, 1],
      [0, 8, 1],
    ] as const
  ) {
    const list = planned(kernels);
    const opened: Fake[] = [];
    using compilers = new Compilers();
    const [own, theirs] = await compilers.share(list, () => {
      const made = new Fake();
      opened.push(made);
      return Promise.resolve(made);
    }, threads);
    assert.equal(opened.length, devices - 1);
    assert.deepEqual(opened.flatMap((x) => x.kernels), theirs);
    assert.equal(new Set([...own, ...theirs]).size, kernels);
    assert.equal(own.length + theirs.length, kernels);
    for (const { kernels: share } of opened) {
      assert.ok(Math.abs(share.length - own.length) <= 1);
    }
  }
});

test("Compilers.done() waits for each and closes it, whatever became of it; dispose only closes", async () => {
  for (const way of ["done", "dispose"] as const) {
    const opened: Fake[] = [];
    using compilers = new Compilers();
    await compilers.share(planned(20), () => {
      const made = new Fake(opened.length === 0);
      opened.push(made);
      return Promise.resolve(made);
    }, 3);
    if (way === "done") await compilers.done();
    else compilers[Symbol.dispose]();
    assert.deepEqual(
      opened.map(({ waited, disposed }) => [waited, disposed]),
      [1, 2].map(() => [way === "done" ? 1 : 0, 1]),
    );
    await compilers.done(); // nothing is left
    assert.deepEqual(opened.map(({ disposed }) => disposed), [1, 1]);
  }
});
