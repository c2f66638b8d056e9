/** Eigenvalues and Frechet distance against numpy and against what they must be. */
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import {
  FrechetReference,
  momentsOf,
} from "../../../pipeline/evaluate/frechet.ts";
import {
  choleskyFactor,
  symmetricEigenvalues,
} from "../../../pipeline/evaluate/symmetric.ts";
import { rand } from "../../compare.ts";

interface Case {
  readonly a: readonly number[][];
  readonly b: readonly number[][];
  readonly distance: number;
}

const cases: Case[] = JSON.parse(
  await readFile(
    new URL("../../fixtures/evaluate/frechet.json", import.meta.url),
    "utf8",
  ),
);
const rowsOf = (list: readonly number[][]): Float64Array[] =>
  list.map((row) => Float64Array.from(row));

test("FrechetReference.distance() is numpy's, with and without full rank", () => {
  for (const [i, { a, b, distance }] of cases.entries()) {
    const n = a[0]!.length;
    const reference = momentsOf(rowsOf(a), n);
    const ours = new FrechetReference(reference).distance(rowsOf(b));
    let size = 0; // what the square roots of rounding errors are to be compared with
    for (let d = 0; d < n; d++) size += reference.covariance[d * n + d]!;
    // An eigenvalue that should be 0 is off by some U * size^2, its square root by 1e-8 * size; both programs have n.
    assert.ok(
      Math.abs(ours - distance) < 2 * n * 1e-8 * size,
      `case ${i}: ${ours}, numpy ${distance}`,
    );
  }
});

test("FrechetReference.distances() counts rows as often as their weights say", () => {
  const { a, b } = cases[3]!;
  const n = a[0]!.length;
  const reference = new FrechetReference(momentsOf(rowsOf(a), n));
  const rows = rowsOf(b);
  const weights = rows.map((_, i) => i % 4);
  const repeated = rows.flatMap((row, i) =>
    Array<Float64Array>(weights[i]!).fill(row)
  );
  const [weighted, real] = [
    reference.distances(rows)(weights),
    reference.distance(repeated),
  ];
  assert.ok(Math.abs(weighted - real) < 1e-9 * real, `${weighted}, ${real}`);
  assert.notEqual(real, reference.distance(rows));
  assert.ok(Number.isNaN(reference.distance(rows.slice(0, 1))));
});

test("symmetricEigenvalues() finds those of a matrix made from them", () => {
  for (const n of [1, 2, 3, 17, 64]) {
    const wanted = Float64Array.from(rand(n, n), (x, i) => i % 5 ? x * 10 : 0);
    // Q diag(wanted) Q' with Q a product of reflections.
    const matrix = new Float64Array(n * n);
    wanted.forEach((x, i) => matrix[i * n + i] = x);
    for (let k = 0; k < 3; k++) reflect(matrix, n, rand(100 * n + k, n));
    const found = symmetricEigenvalues(matrix, n).sort();
    wanted.sort().forEach((x, i) =>
      assert.ok(Math.abs(found[i]! - x) < 1e-12 * n, `${n}: ${found[i]}, ${x}`)
    );
  }
});

test("symmetricEigenvalues() stands matrices of noise and of one direction", () => {
  const n = 64;
  const noise = Float64Array.from(rand(8, n * n, 1e-33));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < i; j++) noise[j * n + i] = noise[i * n + j]!;
  }
  for (const value of symmetricEigenvalues(noise, n)) {
    assert.ok(Math.abs(value) < 1e-30, `${value}`);
  }
  const v = rand(9, n);
  const one = Float64Array.from(
    { length: n * n },
    (_, i) => v[i % n]! * v[Math.floor(i / n)]!,
  );
  const found = symmetricEigenvalues(one, n).sort();
  const square = v.reduce((sum, x) => sum + x * x, 0);
  assert.ok(Math.abs(found[n - 1]! - square) < 1e-12 * square);
  assert.ok(found.subarray(0, n - 1).every((x) => Math.abs(x) < 1e-12));
  assert.deepEqual(
    symmetricEigenvalues(new Float64Array(9), 3),
    new Float64Array(3),
  );
});

test("choleskyFactor() gives the matrix back, also without full rank", () => {
  for (const [n, rank] of [[1, 1], [5, 5], [16, 16], [16, 4]] as const) {
    const rows = Array.from(
      { length: rank },
      (_, r) => Float64Array.from(rand(r, n)),
    );
    const matrix = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        for (const row of rows) matrix[i * n + j]! += row[i]! * row[j]!;
      }
    }
    const l = choleskyFactor(matrix, n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let k = 0; k < n; k++) sum += l[i * n + k]! * l[j * n + k]!;
        assert.ok(Math.abs(sum - matrix[i * n + j]!) < 1e-6, `${n}, ${rank}`);
        if (j > i) assert.equal(l[i * n + j], 0);
      }
    }
  }
});

/** `matrix <- H matrix H`, `H = I - 2 v v' / v'v`. */
function reflect(matrix: Float64Array, n: number, v: Float32Array): void {
  let square = 0;
  for (const x of v) square += x * x;
  const h = (i: number, j: number): number =>
    Number(i === j) - 2 * v[i]! * v[j]! / square;
  const times = (a: (i: number, j: number) => number) => {
    const out = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        for (let k = 0; k < n; k++) out[i * n + j]! += a(i, k) * h(k, j);
      }
    }
    return out;
  };
  const right = times((i, k) => matrix[i * n + k]!);
  const left = times((i, k) => right[k * n + i]!); // transposed, symmetric again
  matrix.set(left);
}
