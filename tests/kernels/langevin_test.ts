import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  LANGEVIN_STATE,
  type LangevinOptions,
  langevinStep,
} from "../../kernels/langevin.ts";
import { testBackend } from "../backend.ts";
import { sumBound, U } from "../compare.ts";
import { checkOp, input } from "./check_op.ts";

const BASE: LangevinOptions = { noiseLevel: 0.75, snr: 0.0625, guard: 0.25 };

async function checkLangevin(
  shape: readonly number[],
  options: Partial<LangevinOptions>,
  gradScale = 1e-3,
): Promise<void> {
  const all = { ...BASE, ...options };
  const [batch = 1] = shape;
  const z = input(1, shape);
  const eps = input(2, shape, 1.5);
  const grad = input(3, shape, gradScale);
  const noise = input(4, shape, 1.7);
  const state = input(5, [batch, LANGEVIN_STATE], 1, 3);
  const count = z.data.length / batch;
  // Each norm is a sum of count / 256 numbers a thread, a tree of 8 levels, and a root; then some 10
  // roundings to xi. nu and the drift scale with two norms, xi with three.
  const norms = (16 + Math.sqrt(count / 256)) * U;
  await checkOp(`langevin [${shape}] ${JSON.stringify(options)}`, {
    inputs: [z, eps, grad, noise, state],
    forward: (z, eps, grad, noise, state) => [
      langevinStep(z, eps, grad, noise, state, all),
      state.retain(),
    ],
  }, {
    values: [norms + sumBound(1), 2 * norms],
    formula: () => {
      const next = new Float64Array(z.data.length);
      const report = Float64Array.from(state.data);
      for (let b = 0; b < batch; b++) {
        const part = (x: { data: ArrayLike<number> }) =>
          Array.from({ length: count }, (_, i) => x.data[b * count + i]!);
        const norm = (x: number[]) =>
          Math.sqrt(x.reduce((a, v) => a + v * v, 0));
        const score = part(eps).map((e) => -e / all.noiseLevel);
        const slope = part(grad);
        const n = part(noise);
        let nu = (all.factor ?? 1) * norm(score) / norm(slope);
        if (norm(slope) === 0) nu = 0;
        if (all.adapt === false) nu = state.data[b * LANGEVIN_STATE + 4]!;
        if (all.nu !== undefined) nu = all.nu;
        const g = score.map((s, i) => s - nu * slope[i]!);
        const size = all.expectedNorm ? Math.sqrt(count) : norm(n);
        const floor = Math.max(norm(g), all.guard * norm(score));
        const xi = 2 * (all.snr * size / floor) ** 2;
        for (let i = 0; i < count; i++) {
          next[b * count + i] = z.data[b * count + i]! + xi * g[i]! +
            (all.addNoise === false ? 0 : Math.sqrt(2 * xi) * n[i]!);
        }
        report.set([
          norm(part(eps)) ** 2,
          norm(slope) ** 2,
          norm(g) ** 2,
          norm(n) ** 2,
          nu,
          xi,
        ], b * LANGEVIN_STATE);
      }
      return [next, report];
    },
  });
}

test("langevinStep() matches the equations of the paper", async () => {
  for (
    const shape of [[1, 1], [2, 7], [1, 63], [2, 64], [3, 5, 13], [
      2,
      4,
      64,
      64,
    ]]
  ) {
    await checkLangevin(shape, {});
  }
});

test("langevinStep() takes each option", async () => {
  const shape = [2, 4, 5, 3];
  await checkLangevin(shape, { factor: 2.5 });
  await checkLangevin(shape, { adapt: false });
  await checkLangevin(shape, { nu: 12 });
  await checkLangevin(shape, { nu: 0 });
  await checkLangevin(shape, { addNoise: false });
  await checkLangevin(shape, { expectedNorm: true });
  await checkLangevin(shape, { guard: 100 });
  await checkLangevin(shape, {}, 0); // no gradient: nu is 0, not infinite
});

test("langevinStep() refuses tensors that do not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using z = backend.upload(new Float32Array(8).fill(1), [2, 4]);
    using state = backend.alloc([2, LANGEVIN_STATE]);
    using small = backend.alloc([2, 3]);
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    refused(() => langevinStep(z, small, z, z, state, BASE), /hold 8/);
    refused(() => langevinStep(z, z, small, z, state, BASE), /hold 8/);
    refused(() => langevinStep(z, z, z, small, state, BASE), /hold 8/);
    refused(() => langevinStep(z, z, z, z, small, BASE), /hold 12/);
    langevinStep(z, z, z, z, state, BASE).dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});
