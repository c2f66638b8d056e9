/**
 * Worked numbers and properties of the WinWinLay formulas, through the kernels that the sampler uses.
 * The numbers were made with numpy in float64 from the paper's equations, independently of this code.
 */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { attention } from "../../kernels/attention.ts";
import type { Backend, Floats, Tensor } from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { langevinStep } from "../../kernels/langevin.ts";
import { layoutEnergy } from "../../kernels/layout_energy.ts";
import { Tape } from "../../kernels/tape.ts";
import {
  type Box,
  logPrior,
  type PriorOptions,
  rasterize,
} from "../../pipeline/layout.ts";
import {
  rhoAt,
  winwinlay,
  WINWINLAY_DEFAULTS,
} from "../../pipeline/guidance/winwinlay.ts";
import { testBackend } from "../backend.ts";
import { assertClose, rand } from "../compare.ts";

const N = 4;
const BOX: Box = [0.25, 0, 0.75, 0.75];
const RHO = 5;
// deno-fmt-ignore
const A = [
  0.10, 0.20, 0.10, 0.05,
  0.20, 0.60, 0.40, 0.10,
  0.10, 0.30, 0.20, 0.10,
  0.05, 0.10, 0.10, 0.05,
];
// Six decimals are printed in the reference; float32 through exp and log is good to about 1e-6.
const SIX = 2e-6;

interface Evaluated {
  readonly aef: number;
  readonly nap: number;
  readonly share: number;
  readonly h: Floats;
}

/** Energy and gradient of one map with one box. */
async function energyOf(
  backend: Backend,
  map: ArrayLike<number>,
  rho: number,
  options: { prior?: PriorOptions; box?: Box; weight?: number } = {},
): Promise<Evaluated> {
  const { prior = { lambda: 4 }, box = BOX, weight = 1 } = options;
  const side = Math.sqrt(map.length);
  const inBox = rasterize(box, side, side);
  const tau = logPrior(box, inBox, side, side, prior).map((v) =>
    Math.max(v, -2e30)
  );
  using logA = backend.upload(Float64Array.from(map, Math.log), [
    1,
    1,
    1,
    side,
    side,
  ]);
  using mask = backend.upload(inBox, [1, map.length]);
  using logTau = backend.upload(tau, [1, map.length]);
  using rows = backend.upload([0, 0, 1, weight], [1, 4]);
  using priorWeight = backend.upload([rho], [1]);
  const { h, terms } = layoutEnergy(
    logA,
    { mask, logTau, rows, mostPriors: 1 },
    { rho: priorWeight },
  );
  const [values, numbers] = await backend.read([h, terms]);
  h.dispose();
  terms.dispose();
  const [aef = 0, nap = 0, share = 0] = numbers!;
  return { aef, nap, share, h: values! };
}

function near(
  actual: number,
  expected: number,
  what: string,
  bound = SIX,
): void {
  assert.ok(
    Math.abs(actual - expected) <= bound * Math.max(1, Math.abs(expected)),
    `${what}: ${actual}, expected ${expected}`,
  );
}

test("layoutEnergy() gives the worked example's energies and gradients", async () => {
  const backend = await testBackend();
  const { aef, nap, share, h } = await energyOf(backend, A, RHO);
  near(share, 0.654545, "f");
  near(aef, 0.119339, "E_aef");
  near(nap, 0.082528, "R_nap");
  near(aef + RHO * nap, 0.531977, "E + 5 R");
  const plain = await energyOf(backend, A, 0);
  A.forEach((a, u) => {
    const inside = u < 12 && (u % N === 1 || u % N === 2);
    near(
      plain.h[u]! / a,
      inside ? -0.086792 : 0.164448,
      `dE_aef/da of cell ${u}`,
      1e-5,
    );
  });
  const both = [[-1.098239, -3.023648], [1.027536, -0.098756], [
    0.028053,
    -1.098239,
  ]];
  both.forEach((row, y) =>
    row.forEach((expected, k) =>
      near(
        h[y * N + 1 + k]! / A[y * N + 1 + k]!,
        expected,
        `dE/da of ${y},${1 + k}`,
        1e-5,
      )
    )
  );
});

test("logPrior() gives the worked example's tau", () => {
  const tau = logPrior(BOX, rasterize(BOX, N, N), N, N, { lambda: 4 }).map(
    Math.exp,
  );
  for (const [y, expected] of [0.147249, 0.205502, 0.147249].entries()) {
    near(tau[y * N + 1]!, expected, `tau ${y},1`);
    near(tau[y * N + 2]!, expected, `tau ${y},2`);
  }
});

/** One Langevin step of four numbers, with its state. */
async function step(
  backend: Backend,
  inputs: {
    z: readonly number[];
    eps: readonly number[];
    grad: readonly number[];
    noise: readonly number[];
  },
  options: Partial<Parameters<typeof langevinStep>[5]> = {},
): Promise<{ z: Floats; state: Floats }> {
  const put = (x: readonly number[]): Tensor => backend.upload(x, [1, 4]);
  using z = put(inputs.z);
  using eps = put(inputs.eps);
  using grad = put(inputs.grad);
  using noise = put(inputs.noise);
  using state = backend.upload(new Float32Array(6), [1, 6]);
  using next = langevinStep(z, eps, grad, noise, state, {
    noiseLevel: 0.9,
    snr: 0.06,
    guard: 0.1,
    ...options,
  });
  const [a, b] = await backend.read([next, state]);
  return { z: a!, state: b! };
}

const LATENT = {
  z: [0.5, -1, 0.25, 2],
  eps: [0.6, -0.9, 0.1, 1.8],
  grad: [0.01, 0.02, -0.04, 0],
  noise: [1, -0.5, 0.25, -1.5],
};

test("langevinStep() gives the worked example's numbers", async () => {
  const { z, state } = await step(await testBackend(), LATENT);
  near(Math.sqrt(state[0]!) / 0.9, 2.335977, "|s|");
  near(Math.sqrt(state[1]!), 0.045826, "|grad|");
  near(state[4]!, 50.975205, "nu");
  near(Math.sqrt(state[2]!), 3.016808, "|g|");
  near(state[5]!, 0.00281833, "xi", 1e-8);
  [0.571762, -1.037594, 0.274203, 1.881747].forEach((expected, i) =>
    near(z[i]!, expected, `z'[${i}]`)
  );
});

test("langevinStep() moves by r times the noise", async () => {
  for (const snr of [0.06, 0.15]) {
    const { state } = await step(await testBackend(), LATENT, { snr });
    const [, , g2 = 0, n2 = 0, , xi = 0] = state;
    near(
      xi * Math.sqrt(g2) / Math.sqrt(2 * xi * n2),
      snr,
      "drift over noise",
      1e-6,
    );
  }
});

test("langevinStep() does not care for the scale of the energy", async () => {
  const backend = await testBackend();
  const one = await step(backend, LATENT);
  const thousand = await step(backend, {
    ...LATENT,
    grad: LATENT.grad.map((x) => 1000 * x),
  });
  assertClose(thousand.z, one.z, { relL2: 2e-7 }, "z'");
});

test("langevinStep() is equivariant: the same step in sigma space", async () => {
  // x = z sqrt(1 + sigma^2), score -eps / sigma, gradient grad / sqrt(1 + sigma^2); by hand in float64.
  const sigma = 0.9 / Math.sqrt(1 - 0.81);
  const scale = Math.sqrt(1 + sigma * sigma);
  const norm = (v: readonly number[]): number => Math.hypot(...v);
  const score = LATENT.eps.map((e) => -e / sigma);
  const grad = LATENT.grad.map((d) => d / scale);
  const nu = norm(score) / norm(grad);
  const g = score.map((s, i) => s - nu * grad[i]!);
  const xi = 2 * (0.06 * norm(LATENT.noise) / norm(g)) ** 2;
  const x = LATENT.z.map((v, i) =>
    v * scale + xi * g[i]! + Math.sqrt(2 * xi) * LATENT.noise[i]!
  );
  // The noise there is as large as the drift demands: xi is (1 + sigma^2) times the one here.
  const { z, state } = await step(await testBackend(), LATENT);
  near(xi / (scale * scale), state[5]!, "xi", 1e-8);
  assertClose(z, x.map((v) => v / scale) as unknown as Float64Array, {
    relL2: 1e-6,
  }, "z'");
});

test("langevinStep() keeps, fixes and guards as its options say", async () => {
  const backend = await testBackend();
  const { state } = await step(backend, { ...LATENT, grad: [0, 0, 0, 0] });
  assert.equal(state[4], 0, "nu is 0 where the gradient is");
  near((await step(backend, LATENT, { nu: 7 })).state[4]!, 7, "a constant nu");
  near(
    (await step(backend, LATENT, { factor: 2 })).state[4]!,
    101.95041,
    "twice nu",
  );
  near(
    (await step(backend, LATENT, { adapt: false })).state[4]!,
    0,
    "the kept nu",
  );
  // score and nu grad all but cancel: without the guard the step would have no bound
  const parallel = await step(backend, {
    ...LATENT,
    grad: LATENT.eps.map((e) => -e),
  });
  near(
    parallel.state[5]!,
    2 *
      (0.06 * Math.sqrt(parallel.state[3]!) /
          (0.1 * Math.sqrt(parallel.state[0]!) / 0.9)) ** 2,
    "guarded xi",
  );
  const still = await step(backend, LATENT, { addNoise: false });
  const moved = await step(backend, LATENT);
  near(still.state[5]!, moved.state[5]!, "xi without noise", 1e-8);
  LATENT.noise.forEach((n, i) =>
    near(
      moved.z[i]! - still.z[i]!,
      Math.sqrt(2 * moved.state[5]!) * n,
      "the noise term",
    )
  );
  near(
    (await step(backend, LATENT, { expectedNorm: true })).state[5]!,
    2 * (0.06 * 2 / 3.016808) ** 2,
    "xi with the expected norm",
    1e-7,
  );
});

test("layoutEnergy() depends on ratios alone and its gradient sums to zero", async () => {
  const backend = await testBackend();
  const map = rand(9, 64).map((x) => 0.02 + 0.5 * Math.abs(x));
  const box: Box = [0.13, 0.25, 0.75, 0.87];
  const one = await energyOf(backend, map, RHO, { box });
  const three = await energyOf(backend, map.map((a) => 3 * a), RHO, { box });
  near(three.aef, one.aef, "E_aef of 3 a");
  near(three.nap, one.nap, "R_nap of 3 a");
  // Sums of 64 terms of at most 1, each rounded in float32.
  near(
    [...one.h].reduce((sum, x) => sum + x, 0),
    0,
    "sum of h = sum of a dE/da",
    1e-5,
  );
  const cells = await energyOf(backend, map, RHO, {
    box,
    prior: { lambda: 0.5, units: "cells" },
  });
  near(
    cells.nap,
    one.nap,
    "lambda 4 in the unit square is 0.5 per cell on a grid of 8",
  );
  const flat = await energyOf(backend, new Float64Array(64).fill(0.3), RHO, {
    box,
    prior: { lambda: 0 },
  });
  near(flat.nap, 0, "R_nap of a flat map with a flat prior");
});

test("layoutEnergy() stays finite where probabilities underflow", async () => {
  const backend = await testBackend();
  // The box holds a share of exp(-300): zero in float32, not in logarithms.
  using logA = backend.upload([-300, -301, -1, -2], [1, 1, 1, 2, 2]);
  using mask = backend.upload([1, 1, 0, 0], [1, 4]);
  using logTau = backend.upload([Math.log(0.5), Math.log(0.5), -2e30, -2e30], [
    1,
    4,
  ]);
  using rows = backend.upload([0, 0, 1, 1], [1, 4]);
  using rho = backend.upload([1], [1]);
  const { h, terms } = layoutEnergy(
    logA,
    { mask, logTau, rows, mostPriors: 1 },
    { rho },
  );
  const [values, [aef = 0, nap = 0] = []] = await backend.read([h, terms]);
  h.dispose();
  terms.dispose();
  near(aef, 1, "E_aef");
  const p = 1 / (1 + Math.exp(-1)); // the box's own distribution is (p, 1 - p)
  near(
    nap,
    p * Math.log(2 * p) + (1 - p) * Math.log(2 * (1 - p)),
    "R_nap",
    1e-5,
  );
  assert.ok(values!.every(Number.isFinite));
});

/** `[1, width, cells]` from rows of cells. */
function columns(rows: readonly (readonly number[])[]): number[] {
  return rows[0]!.flatMap((_, d) => rows.map((row) => row[d]!));
}

test("attention() carries a gradient on one token's probabilities to the queries", async () => {
  const backend = await testBackend();
  using q = backend.upload(columns([[1, 0], [0.5, -0.5]]), [1, 2, 2]);
  using k = backend.upload(columns([[0.2, 0.1], [1, -0.4], [-0.3, 0.8]]), [
    1,
    2,
    3,
  ]);
  using tape = new Tape(backend, [q]);
  const { out, logProbs } = tape.run(() =>
    attention(q, k, k, { heads: 1, probe: [1] })
  );
  using _out = out;
  using logs = logProbs!;
  const [values] = await backend.read([logs]);
  [0.508442, 0.489069].forEach((p, u) =>
    near(Math.exp(values![u]!), p, `P[${u}, 1]`)
  );
  using h = backend.upload([
    0.7 * Math.exp(values![0]!),
    -0.2 * Math.exp(values![1]!),
  ], logs.shape);
  using dq = tape.backward([[logs, h]])[0]!;
  const [grad] = await backend.read([dq]);
  columns([[0.124483, -0.097577], [-0.035259, 0.027453]]).forEach((
    expected,
    i,
  ) => near(grad![i]!, expected, `dQ ${i}`));
});

test("E + rho R through softmax(Q K^T) has the gradient of central differences", async () => {
  const backend = new Cpu(); // float64
  const text = Float64Array.from(rand(12, 4 * 5, 2));
  const evaluate = async (
    query: Float64Array,
    back: boolean,
  ): Promise<{ energy: number; grad: Floats }> => {
    using q = backend.upload(query, [1, 4, 4, 4]);
    using k = backend.upload(text, [1, 4, 5]);
    using tape = new Tape(backend, [q]);
    const { out, logProbs } = tape.run(() =>
      attention(q, k, k, { heads: 1, probe: [2] })
    );
    using _out = out;
    using logs = logProbs!;
    const [values] = await backend.read([logs]);
    const { aef, nap, h } = await energyOf(backend, values!.map(Math.exp), RHO);
    if (!back) return { energy: aef + RHO * nap, grad: values! };
    using seed = backend.upload(h, logs.shape);
    using dq = tape.backward([[logs, seed]])[0]!;
    const [grad] = await backend.read([dq]);
    return { energy: aef + RHO * nap, grad: grad! };
  };
  const query = Float64Array.from(rand(11, 64, 2));
  const { grad } = await evaluate(query, true);
  for (const i of [0, 17, 38, 63]) {
    const at = async (d: number): Promise<number> =>
      (await evaluate(query.with(i, query[i]! + d), false)).energy;
    const numeric = (await at(1e-5) - await at(-1e-5)) / 2e-5;
    near(grad[i]!, numeric, `dE/dQ[${i}]`, 1e-8);
  }
});

test("winwinlay() schedules rho as its options say", () => {
  const rho = (
    rhoSchedule: "guided_steps" | "all_steps" | "exclusive_end" | "constant",
    steps = 10,
  ): number[] => {
    const options = { ...WINWINLAY_DEFAULTS, steps, rhoSchedule };
    return Array.from({ length: steps }, (_, i) => rhoAt(options, i, 50));
  };
  [
    5,
    4.444444,
    3.888889,
    3.333333,
    2.777778,
    2.222222,
    1.666667,
    1.111111,
    0.555556,
    0,
  ].forEach((expected, i) =>
    near(rho("guided_steps")[i]!, expected, `rho ${i}`)
  );
  assert.deepEqual(rho("guided_steps", 1), [5]);
  near(rho("all_steps")[9]!, 4.081633, "over all 50 steps");
  assert.deepEqual(rho("exclusive_end").slice(-2), [1, 0.5]);
  // Fewer steps than would be guided: both ends are reached all the same.
  const short = { ...WINWINLAY_DEFAULTS, steps: 10 };
  near(rhoAt(short, 4, 5), 0, "the last of five steps");
  near(
    rhoAt({ ...short, placement: "after_step" }, 3, 5),
    0,
    "the last of four that are guided after a step",
  );
  assert.deepEqual(new Set(rho("constant")), new Set([5]));
});

test("winwinlay() takes the factor on nu where nu is a number, too", async () => {
  const backend = await testBackend();
  const nuOf = async (nu: number, nuFactor: number): Promise<number> => {
    const { update } = winwinlay({ ...WINWINLAY_DEFAULTS, nu, nuFactor });
    const { z, eps, grad, noise } = LATENT;
    const tensors = [z, eps, grad, noise].map((x) => backend.upload(x, [1, 4]));
    using state = backend.upload(new Float32Array(6), [1, 6]);
    const context = { step: 0, steps: 1, iteration: 0, iterations: 1 };
    const [a, b, c, d] = tensors as [Tensor, Tensor, Tensor, Tensor];
    using next = update(a, b, c, d, { ...context, alphaBar: 0.2, state });
    const [numbers] = await backend.read([state, next]);
    for (const x of tensors) x.dispose();
    return numbers![4]!;
  };
  near(await nuOf(7, 3), 21, "three times nu");
  near(await nuOf(7, 1), 7, "nu");
});
