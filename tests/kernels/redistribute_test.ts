import { strict as assert } from "node:assert";
import { test } from "node:test";
import { attention } from "../../kernels/attention.ts";
import { redistribute } from "../../kernels/redistribute.ts";
import { Tape } from "../../kernels/tape.ts";
import { testBackend } from "../backend.ts";
import { assertClose, rand, sumBound } from "../compare.ts";
import { checkOp, type Input } from "./check_op.ts";

/** Probabilities `[z, keys, queries]`. */
function probabilities(z: number, keys: number, queries: number): Input {
  const data = Float32Array.from(
    rand(3, z * keys * queries, 2),
    (v) => Math.exp(v),
  );
  for (let h = 0; h < z; h++) {
    for (let u = 0; u < queries; u++) {
      let sum = 0;
      for (let j = 0; j < keys; j++) sum += data[(h * keys + j) * queries + u]!;
      for (let j = 0; j < keys; j++) data[(h * keys + j) * queries + u]! /= sum;
    }
  }
  return { data, shape: [z, keys, queries] };
}

/** What should come out, column by column. */
function formula(
  p: Input,
  tokens: readonly number[],
  mask: ArrayLike<number>,
  first: number,
): Float64Array {
  const [z = 1, keys = 1, columns = 1] = p.shape;
  const queries = mask.length / tokens.length;
  const out = new Float64Array(p.data.length);
  for (let h = 0; h < z; h++) {
    for (let u = 0; u < columns; u++) {
      const column = Array.from(
        { length: keys },
        (_, j) => p.data[(h * keys + j) * columns + u]!,
      );
      const pool = tokens.map((j) => column[j]!).reduce((a, b) => a + b);
      const moved = column.map((v, j) => {
        const t = tokens.indexOf(j);
        return t < 0 ? v : pool * mask[t * queries + first + u]!;
      });
      const [before, now] = [column, moved].map((list) =>
        list.reduce((a, b) => a + b)
      ) as [number, number];
      moved.forEach((v, j) =>
        out[(h * keys + j) * columns + u] = v * before / now
      );
    }
  }
  return out;
}

const CASES = [
  { z: 1, keys: 2, columns: 1, tokens: [1], first: 0, queries: 1 },
  { z: 2, keys: 77, columns: 63, tokens: [3, 9, 4], first: 5, queries: 70 },
  { z: 16, keys: 77, columns: 256, tokens: [2, 5], first: 0, queries: 256 },
  { z: 3, keys: 5, columns: 70_000, tokens: [0, 4], first: 0, queries: 70_000 },
];

for (const { z, keys, columns, tokens, first, queries } of CASES) {
  test(`redistribute() matches its definition: ${z} x ${keys} x ${columns}`, async () => {
    const p = probabilities(z, keys, columns);
    p.data.forEach((v, i) => p.data[i] = 3 * v); // the sum need not be 1
    const mask = rand(5, tokens.length * queries, 2).map((v) => Number(v > 0));
    await checkOp("redistribute", {
      inputs: [
        p,
        { data: Float32Array.from(tokens), shape: [tokens.length] },
        { data: mask, shape: [tokens.length, queries] },
      ],
      forward: (x, chosen, masks) => {
        redistribute(x!, first, chosen!, masks!);
        return [x!.retain()];
      },
    }, {
      values: sumBound(keys),
      formula: () => [formula(p, tokens, mask, first)],
    });
  });
}

test("attention() edits probabilities chunk by chunk, and not under a tape", async () => {
  const backend = await testBackend();
  const [heads, width, keys, cells] = [2, 4, 7, 30];
  using q = backend.upload(rand(1, heads * width * cells), [1, 8, 5, 6]);
  using k = backend.upload(rand(2, heads * width * keys), [1, 8, keys]);
  using v = backend.upload(rand(3, heads * width * keys), [1, 8, keys]);
  const tokens = [2, 5];
  const mask = rand(4, tokens.length * cells).map((x) => Number(x > 0));
  using chosen = backend.upload(tokens, [2]);
  using masks = backend.upload(mask, [2, cells]);
  const edit = (s: Parameters<typeof redistribute>[0], first: number) =>
    redistribute(s, first, chosen, masks);
  const probe = [...Array(keys).keys()];
  const { out, logProbs } = attention(q, k, v, { heads, probe });
  const whole = attention(q, k, v, { heads, edit });
  // Room for 8 queries of both heads.
  const parts = attention(q, k, v, {
    heads,
    edit,
    chunkBytes: 4 * heads * keys * 8,
  });
  const [plain, logs, edited, chunked, values] = await backend.read([
    out,
    logProbs!,
    whole.out,
    parts.out,
    v,
  ]);
  for (const x of [out, logProbs!, whole.out, parts.out]) x.dispose();
  const moved = formula(
    { data: logs!.map(Math.exp), shape: [heads, keys, cells] },
    tokens,
    mask,
    0,
  );
  const expected = new Float64Array(heads * width * cells);
  for (let c = 0; c < heads * width; c++) {
    for (let u = 0; u < cells; u++) {
      for (let j = 0; j < keys; j++) {
        expected[c * cells + u]! += values![c * keys + j]! *
          moved[(Math.floor(c / width) * keys + j) * cells + u]!;
      }
    }
  }
  // exp of a float32 logarithm near 2, and sums of 7 products
  assertClose(edited!, expected, { relL2: 2e-6 }, "edited attention");
  assertClose(chunked!, edited!, { relL2: 1e-6 }, "in chunks");
  assert.ok(plain!.some((x, i) => Math.abs(x - edited![i]!) > 0.01));
  using tape = new Tape(backend, [q]);
  assert.throws(
    () => tape.run(() => attention(q, k, v, { heads, edit })),
    /Cannot edit attention: no tape must record/,
  );
});
