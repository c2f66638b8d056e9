import { strict as assert } from "node:assert";
import { test } from "node:test";
import { layoutEnergy } from "../../kernels/layout_energy.ts";
import { sizeOf } from "../../kernels/backend.ts";
import { BACKEND, testBackend } from "../backend.ts";
import { rand, U } from "../compare.ts";
import { checkOp, type Input, input, runOp } from "./check_op.ts";

const NOWHERE = -3e38;

interface Case {
  readonly heads: number;
  readonly side: readonly number[];
  /** Per token: region, first prior, number of priors, weight. */
  readonly rows: readonly (readonly [number, number, number, number])[];
  readonly regions?: number;
  readonly priors?: number;
  readonly rho: number;
  readonly reverse?: boolean;
  readonly mask?: "full" | "cells" | "shares";
  readonly scale?: number;
}

function tablesOf(
  c: Case,
): { logA: Input; mask: Input; logTau: Input; rows: Input } {
  const cells = sizeOf(c.side);
  const { regions = 1, priors = 1, scale = 3 } = c;
  const logA = input(1, [1, c.heads, c.rows.length, ...c.side], scale, -scale);
  const mask = input(2, [regions, cells], 0.5, 0.5);
  mask.data.forEach((v, i) =>
    mask.data[i] = c.mask === "full"
      ? 1
      : c.mask === "shares"
      ? v
      : Number(v > 0.5)
  );
  const logTau = new Float32Array(priors * cells).fill(NOWHERE);
  for (let j = 0; j < priors; j++) {
    // At least the last cell, else about three of four.
    const tau = Array.from(
      rand(10 + j, cells),
      (v, u) => u === cells - 1 || v > -0.5 ? v + 1.5 : 0,
    );
    const sum = tau.reduce((a, b) => a + b, 0);
    tau.forEach((v, u) => {
      if (v > 0) logTau[j * cells + u] = Math.log(v / sum);
    });
  }
  return {
    logA,
    mask,
    logTau: { data: logTau, shape: [priors, cells] },
    rows: {
      data: Float32Array.from(c.rows.flat()),
      shape: [c.rows.length, 4],
    },
  };
}

/** Per head and token: share energy, mean KL, share; on probabilities, as the papers print it. */
function formula(c: Case, logA: ArrayLike<number>): Float64Array {
  const { mask, logTau } = tablesOf(c);
  const cells = sizeOf(c.side);
  const terms: number[] = [];
  for (let r = 0; r < c.heads * c.rows.length; r++) {
    const [region, first, count] = c.rows[r % c.rows.length]!;
    const weights = Array.from(
      { length: cells },
      (_, u) => Math.exp(logA[r * cells + u]!),
    );
    const all = weights.reduce((a, b) => a + b, 0);
    const a = weights.map((w) => w / all);
    const f = a.reduce(
      (sum, v, u) => sum + v * mask.data[region * cells + u]!,
      0,
    );
    let nap = 0;
    for (let j = first; j < first + count && c.rho !== 0; j++) {
      const tau = (u: number) => logTau.data[j * cells + u]!;
      const inside = a.map((_, u) => u).filter((u) => tau(u) > -1e30);
      const share = inside.reduce((sum, u) => sum + a[u]!, 0);
      for (const u of inside) {
        const p = a[u]! / share;
        const t = Math.exp(tau(u));
        nap += (c.reverse ? t * Math.log(t / p) : p * Math.log(p / t)) / count;
      }
    }
    terms.push((1 - f) ** 2, nap, f);
  }
  return Float64Array.from(terms);
}

async function checkEnergy(c: Case): Promise<void> {
  const { logA, mask, logTau, rows } = tablesOf(c);
  const cells = sizeOf(c.side);
  const { scale = 3 } = c;
  // Exponentials of up to 2 scale below the highest, sums of cells / 64 numbers a thread and a tree.
  const share = ((3 + 2 * scale) * 2 + 6 + Math.sqrt(cells / 64)) * U;
  const op = {
    inputs: [logA, mask, logTau, rows, {
      data: Float32Array.of(c.rho),
      shape: [1],
    }],
    forward: (
      ...[logA, mask, logTau, rows, rho]: Parameters<typeof layoutEnergy>[0][]
    ) => {
      const tables = {
        mask: mask!,
        logTau: logTau!,
        rows: rows!,
        mostPriors: Math.max(...c.rows.map(([, , priors]) => priors)),
      };
      const { reverse = false } = c;
      const { h, terms } = layoutEnergy(logA!, tables, { rho: rho!, reverse });
      return [terms, h];
    },
  };
  await checkOp(`layout_energy ${JSON.stringify(c)}`, op, {
    // The share enters once in f, and with the factor 2 in h and in the square.
    // Where one cell of the box has nearly all, l - tau - kl cancels: then the error is absolute, that
    // of two logarithms of up to 2 scale.
    values: [
      2 * share,
      scale > 10 ? { relL2: Infinity, maxAbs: 4 * scale * U } : 3 * share,
    ],
    formula: () => [formula(c, logA.data), undefined],
  });
  if (BACKEND !== "cpu") return;
  // h is the gradient of the weighted sum.
  const { values: [, h] } = await runOp(await testBackend(), op);
  const energy = (at: Float64Array) => {
    const terms = formula(c, at);
    let sum = 0;
    for (let r = 0; 3 * r < terms.length; r++) {
      const weight = c.rows[r % c.rows.length]![3];
      sum += weight * (terms[3 * r]! + c.rho * terms[3 * r + 1]!);
    }
    return sum;
  };
  const direction = rand(9, logA.data.length);
  const moved = (t: number) =>
    energy(Float64Array.from(logA.data, (v, i) => v + t * direction[i]!));
  const numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
  const analytic = [...h!].reduce((sum, v, i) => sum + v * direction[i]!, 0);
  const size = Math.hypot(...h!);
  assert.ok(
    Math.abs(numeric - analytic) <= 1e-6 * Math.max(size, 1e-3),
    `${JSON.stringify(c)}: ${analytic}, by differences ${numeric}`,
  );
}

test("layoutEnergy() matches the papers' energy and its gradient", async () => {
  const row = [0, 0, 1, 1] as const;
  for (const side of [[1], [7], [63], [64], [65], [3, 5], [16, 16], [64, 64]]) {
    await checkEnergy({ heads: 2, side, rows: [row], rho: 0.5 });
  }
});

test("layoutEnergy() keeps regions, priors, weights and heads apart", async () => {
  const c: Case = {
    heads: 3,
    side: [6, 7],
    regions: 2,
    priors: 4,
    rho: 0.75,
    rows: [[1, 0, 1, 2], [0, 1, 3, 0.5], [1, 2, 0, 1.5]],
  };
  for (const mask of ["cells", "shares", "full"] as const) {
    for (const reverse of [false, true]) {
      await checkEnergy({ ...c, mask, reverse });
    }
  }
  await checkEnergy({ ...c, rho: 0 });
});

test("layoutEnergy() stays finite where a box holds almost nothing", async () => {
  const c = {
    heads: 1,
    side: [9],
    rho: 1,
    scale: 60,
    rows: [[0, 0, 1, 1]],
  } as const;
  await checkEnergy(c);
});

test("layoutEnergy() refuses what does not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    const make = (...shape: number[]) =>
      backend.upload(new Float32Array(sizeOf(shape)), shape);
    using mask = make(1, 4);
    using rows = make(1, 4);
    using logA = make(1, 2, 1, 4);
    using batch = make(2, 2, 1, 4);
    using flat = make(1, 2, 1);
    using tokens = make(1, 2, 3, 4);
    using rho = make(1);
    const tables = { mask, logTau: mask, rows, mostPriors: 1 };
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    refused(
      () => layoutEnergy(batch, tables, { rho }),
      /must be \[1, heads/,
    );
    refused(() => layoutEnergy(flat, tables, { rho }), /must be \[1, heads/);
    refused(() => layoutEnergy(tokens, tables, { rho }), /hold 12 numbers/);
    refused(
      () => layoutEnergy(logA, tables, { rho: mask }),
      /hold 1 numbers/,
    );
    const { h, terms } = layoutEnergy(logA, tables, { rho });
    h.dispose();
    terms.dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});
