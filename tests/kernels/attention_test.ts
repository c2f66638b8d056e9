import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  attention,
  type AttentionOptions,
  selfAttention,
} from "../../kernels/attention.ts";
import { type Floats, sizeOf } from "../../kernels/backend.ts";
import { testBackend } from "../backend.ts";
import { rand, U } from "../compare.ts";
import { checkOp, type Input, input, runOp } from "./check_op.ts";

interface Case extends AttentionOptions {
  readonly batch?: number;
  readonly width: number;
  readonly queries: readonly number[];
  readonly keys: readonly number[];
  /** Size of q; scores are about `scale / 3`. */
  readonly scale?: number;
  readonly numeric?: boolean;
  /** Which of out and logProbs get a gradient. */
  readonly seeded?: readonly number[];
  readonly wrt?: readonly number[];
  /** Queries, keys and values in one tensor, head by head. */
  readonly packed?: boolean;
}

/** Queries, keys and values `[batch, heads width, ...space]` as `selfAttention` takes them. */
function pack(
  { batch = 1, heads, width }: Case,
  parts: readonly [Input, Input, Input],
): Input {
  const { shape: [, , ...space] } = parts[0];
  const size = width * sizeOf(space); // of a head
  const data = new Float32Array(batch * heads * 3 * size);
  for (let z = 0; z < batch * heads; z++) {
    parts.forEach((part, i) =>
      data.set(
        part.data.subarray(z * size, (z + 1) * size),
        (3 * z + i) * size,
      )
    );
  }
  return { data, shape: [batch, 3 * heads * width, ...space] };
}

/** Attention in float64, as the formula says, head by head and query by query. */
function formula(
  { batch = 1, heads, width, causal = false, probe = [] }: Case,
  [q, k, v]: readonly [Input, Input, Input],
): Float64Array[] {
  const n = q.data.length / (batch * heads * width);
  const m = k.data.length / (batch * heads * width);
  const out = new Float64Array(q.data.length);
  const logs = new Float64Array(batch * heads * probe.length * n);
  for (let z = 0; z < batch * heads; z++) {
    for (let i = 0; i < n; i++) {
      const count = causal ? Math.min(m, i + 1) : m;
      const scores = Array.from({ length: count }, (_, j) => {
        let sum = 0;
        for (let d = 0; d < width; d++) {
          sum += q.data[(z * width + d) * n + i]! *
            k.data[(z * width + d) * m + j]!;
        }
        return sum / Math.sqrt(width);
      });
      const high = Math.max(...scores);
      const total = scores.reduce((sum, s) => sum + Math.exp(s - high), 0);
      for (let d = 0; d < width; d++) {
        let sum = 0;
        for (let j = 0; j < count; j++) {
          sum += Math.exp(scores[j]! - high) / total *
            v.data[(z * width + d) * m + j]!;
        }
        out[(z * width + d) * n + i] = sum;
      }
      probe.forEach((key, t) => {
        logs[(z * probe.length + t) * n + i] = scores[key]! - high -
          Math.log(total);
      });
    }
  }
  return probe.length ? [out, logs] : [out];
}

async function checkAttention(c: Case): Promise<void> {
  const { batch = 1, heads, width, queries, keys, scale = 3 } = c;
  const parts = [
    input(1, [batch, heads * width, ...queries], scale),
    input(2, [batch, heads * width, ...keys]),
    input(3, [batch, heads * width, ...keys]),
  ] as const;
  const count = sizeOf(keys);
  const cells = sizeOf(queries);
  // A score is a sum over the width; it is about scale / 3 and at most some 5 times that, and the
  // error of its exponential is (3 + 2 |s|) ULP beside that of the score itself.
  const spread = 5 * scale / 3;
  const score = scale / 3 * (2 + Math.sqrt(width)) * U;
  const share = score + (3 + 2 * spread) * 2 * U;
  const values = share + (4 + Math.sqrt(count)) * U;
  const { packed = false } = c;
  await checkOp(`attention ${JSON.stringify(c)}`, {
    inputs: packed ? [pack(c, parts)] : parts,
    wrt: c.wrt ?? (packed ? [0] : [0, 1, 2]),
    ...c.seeded ? { seeded: c.seeded } : {},
    forward: (q, k, v) => {
      const { out, logProbs } = packed
        ? selfAttention(q!, c)
        : attention(q!, k!, v!, c);
      assert.deepEqual(out.shape, parts[0].shape);
      assert.deepEqual(
        logProbs?.shape,
        c.probe && [batch, heads, c.probe.length, ...queries],
      );
      return logProbs ? [out, logProbs] : [out];
    },
  }, {
    // The logarithm's error: of the score, of the sum, 3 ULP of its own, relative to one or more.
    values: [values, score + share + 8 * U],
    // dP - delta cancels to about 1 / sqrt(keys) of the gradient on the probabilities at worst, where
    // all values are alike; seeds and values are independent here, so that it stays at a factor of 2.
    // Then one more sum, over keys or queries.
    grads: 2 * values + (4 + Math.sqrt(Math.max(count, cells))) * U,
    numeric: c.numeric ?? true,
    formula: () => formula(c, parts),
  });
}

test("attention() matches its definition: self-attention", async () => {
  await checkAttention({ heads: 1, width: 1, queries: [1], keys: [1] });
  await checkAttention({
    batch: 2,
    heads: 3,
    width: 4,
    queries: [7],
    keys: [7],
  });
  await checkAttention({ heads: 2, width: 5, queries: [3, 4], keys: [3, 4] });
  for (const n of [63, 64, 65]) {
    const c = { heads: 1, width: 8, queries: [n], keys: [n], numeric: false };
    await checkAttention(c);
  }
});

test("attention() matches its definition: text keys and probes", async () => {
  const base = { width: 8, keys: [77] };
  await checkAttention({ ...base, heads: 2, queries: [5, 3], probe: [5] });
  await checkAttention({
    ...base,
    batch: 2,
    heads: 2,
    queries: [2, 3],
    probe: [76, 0, 13],
  });
});

test("attention() matches its definition: causal", async () => {
  const base = { causal: true, heads: 2, width: 4 };
  await checkAttention({ ...base, queries: [1], keys: [1] });
  await checkAttention({ ...base, batch: 2, queries: [9], keys: [9] });
  await checkAttention({ ...base, queries: [3], keys: [7] });
  // Text encoder of SD 1.5: 12 heads of 64.
  await checkAttention({
    ...base,
    heads: 12,
    width: 64,
    queries: [77],
    keys: [77],
    numeric: false,
  });
});

test("attention() matches its definition around the tiles of the gpu family", async () => {
  // 32 queries by 64 keys, the other way round on the way back, 16 dimensions at a time.
  const base = { heads: 2, width: 4, numeric: false };
  for (const n of [31, 32, 33]) {
    await checkAttention({ ...base, queries: [n], keys: [n + 32] });
  }
  await checkAttention({ ...base, queries: [130], keys: [67], probe: [66] });
  const causal = { ...base, causal: true };
  await checkAttention({ ...causal, queries: [130], keys: [130] });
  await checkAttention({ ...causal, queries: [65], keys: [190] });
  // 160 is a head of SD 1.5; wider ones do without the flash kernels.
  for (const width of [17, 160, 161]) {
    const c = { heads: 1, width, queries: [33], keys: [65], numeric: false };
    await checkAttention(c);
  }
});

test("attention() matches its definition around the fours of the software family", async () => {
  // 4 queries of a thread, 32 of a workgroup; 4 keys at a time.
  for (const n of [4, 28, 32, 36]) {
    for (const keys of [1, 2, 3, 4, 5, 77]) {
      const c = { heads: 2, width: 3, queries: [n], keys: [keys] };
      await checkAttention({ ...c, wrt: [0], numeric: n === 4 });
    }
  }
  const base = { batch: 2, heads: 2, width: 6, queries: [2, 4] };
  for (const seeded of [[0], [1], [0, 1]]) {
    for (const wrt of [[0], [0, 1, 2]]) {
      const c = { ...base, keys: [9], probe: [8, 2, 2], seeded, wrt };
      await checkAttention(c);
    }
  }
  for (const keys of [[8], [9]]) await checkAttention({ ...base, keys });
  // Wide heads, for which there must be much to do, and one that is too wide.
  for (const width of [64, 65]) {
    const c = { heads: 1, width, queries: [2052], keys: [1023], wrt: [0] };
    await checkAttention({ ...c, numeric: false });
  }
  // Gradients on queries by products, with keys that come in no fours, in chunks of queries.
  const wide = { batch: 2, heads: 2, width: 20, queries: [4, 6], keys: [9] };
  const few = { ...wide, probe: [8, 2, 2], wrt: [0], chunkBytes: 1200 };
  for (const seeded of [[0], [1], [0, 1]]) {
    await checkAttention({ ...few, seeded });
  }
  // Two heads at a time, and one on the way back.
  const pieces = { heads: 3, width: 16, queries: [65_532], keys: [5] };
  await checkAttention({ ...pieces, wrt: [0], numeric: false });
});

test("attention() matches its definition past 65,535 queries", async () => {
  const base = { heads: 1, width: 2, numeric: false };
  await checkAttention({ ...base, queries: [65_601], keys: [3] });
});

test("attention() matches its definition at sizes of the networks", async () => {
  const base = { heads: 8, width: 40, numeric: false };
  await checkAttention({ ...base, queries: [16, 16], keys: [16, 16] });
  await checkAttention({
    ...base,
    queries: [16, 16],
    keys: [77],
    probe: [2, 5],
  });
});

test("attention() gives the same in chunks of queries", async () => {
  // 4 queries a chunk: 4 bytes x heads x keys x 4
  const small = { heads: 2, width: 4, chunkBytes: 1 };
  await checkAttention({ ...small, queries: [11], keys: [11] });
  await checkAttention({ ...small, queries: [13], keys: [13], causal: true });
  await checkAttention({ ...small, queries: [12], keys: [9], probe: [3, 8] });
  const q = input(1, [2, 8, 5, 6]);
  const k = input(2, [2, 8, 10]);
  const v = input(3, [2, 8, 10]);
  const backend = await testBackend();
  const run = (chunkBytes?: number) =>
    runOp(backend, {
      inputs: [q, k, v],
      wrt: [0, 1, 2],
      forward: (q, k, v) => {
        const options = {
          heads: 2,
          probe: [4],
          ...chunkBytes ? { chunkBytes } : {},
        };
        const { out, logProbs } = attention(q, k, v, options);
        return [out, logProbs!];
      },
    });
  const whole = await run();
  const parts = await run(4 * 4 * 10 * 8); // 8 queries a chunk, then 6
  // The same numbers in the same order, one query at a time.
  assert.deepEqual(parts.values, whole.values);
  assert.deepEqual(parts.grads[0], whole.grads[0]);
});

test("attention() goes back from the result, the probes, and both", async () => {
  const base = { batch: 2, heads: 2, width: 3, queries: [5], keys: [6] };
  for (const chunkBytes of [1, 2 ** 20]) {
    const c = { ...base, probe: [4, 1], chunkBytes };
    for (const seeded of [[0], [1], [0, 1]]) {
      await checkAttention({ ...c, seeded });
      for (const wrt of [[0], [1], [2], [0, 2]]) {
        await checkAttention({ ...c, seeded, wrt });
      }
    }
  }
});

test("attention() counts a key that is probed twice twice", async () => {
  await checkAttention({
    heads: 1,
    width: 3,
    queries: [4],
    keys: [5],
    probe: [2, 2],
    seeded: [1],
  });
});

test("attention() adds the gradients of one tensor used as query, key and value", async () => {
  await checkOp("attention of x with itself", {
    inputs: [input(1, [1, 4, 6], 2)],
    wrt: [0],
    forward: (x) => [attention(x, x, x, { heads: 2 }).out],
  }, { values: 20 * U, grads: 40 * U });
});

test("attention() keeps log-probabilities where the probability underflows", async () => {
  const c = {
    heads: 1,
    width: 4,
    queries: [9],
    keys: [8],
    probe: [0, 3, 7],
    scale: 600,
  };
  await checkAttention({ ...c, numeric: false });
  const { values } = await runOp(await testBackend(), {
    inputs: [
      input(1, [1, 4, 9], 600),
      input(2, [1, 4, 8]),
      input(3, [1, 4, 8]),
    ],
    forward: (q, k, v) => {
      const { out, logProbs } = attention(q, k, v, c);
      return [out, logProbs!];
    },
  });
  const least = Math.min(...values[1]!);
  assert.ok(least < -200, `the case must be extreme: ${least}`);
});

test("attention() does not mind what fills up its keys where all scores are low", async () => {
  // Heads that keep no scores on the way back, and wider ones, with scores of about sqrt(width) * 20 * -10.
  // Errors of dS meet the keys' mean, a hundred times what they differ by.
  for (const [width, amplified] of [[4, 40], [20, 200]] as const) {
    const near = (seed: number, cells: number, mean: number): Input =>
      input(seed, [1, width, cells], 0.1, mean);
    const score = 200 * Math.sqrt(width); // its exponential's inverse is past float32
    await checkOp(`attention with scores of -${score}`, {
      inputs: [near(1, 4, 20), near(2, 5, -10), input(3, [1, width, 5])],
      wrt: [0],
      forward: (q, k, v) => [attention(q!, k!, v!, { heads: 1 }).out],
    }, { values: score * 20 * U, grads: score * amplified * U });
  }
});

test("selfAttention() matches the definition for queries, keys and values in one tensor", async () => {
  const packed = (c: Omit<Case, "keys" | "packed">) =>
    checkAttention({ ...c, keys: c.queries, packed: true });
  await packed({ heads: 1, width: 1, queries: [1] });
  await packed({ batch: 2, heads: 3, width: 4, queries: [7] });
  await packed({ heads: 2, width: 5, queries: [3, 4] });
  await packed({ batch: 2, heads: 2, width: 3, queries: [9], causal: true });
  for (const chunkBytes of [1, 2 ** 20]) {
    const base = { batch: 2, heads: 2, width: 3, queries: [13], chunkBytes };
    for (const seeded of [[0], [1], [0, 1]]) {
      await packed({ ...base, seeded, probe: [4, 1] });
    }
  }
  const numeric = false;
  // Queries in fours: 4 of a thread, 32 of a workgroup.
  for (const n of [4, 32, 36]) {
    await packed({ batch: 2, heads: 2, width: 3, queries: [n], numeric });
  }
  // The widest whose gradients go that way, if there is much to do, and one more.
  for (const width of [48, 49]) {
    await packed({ heads: 3, width, queries: [968], numeric });
  }
  // Sums over queries in either way, in one chunk and in several.
  for (const width of [8, 16]) {
    const base = { batch: 2, heads: 2, width, numeric };
    await packed({ ...base, queries: [8, 8] });
    await packed({ ...base, queries: [8, 8], chunkBytes: 2 ** 14 });
    await packed({ ...base, queries: [65], probe: [64] });
  }
  // Products large enough for gemm_texel, and heads too wide for the flash kernels.
  await packed({ heads: 8, width: 40, queries: [16, 16], numeric });
  await packed({ heads: 2, width: 161, queries: [33], numeric });
});

test("selfAttention() gives the numbers of attention()", async () => {
  const c = { batch: 2, heads: 2, width: 16, queries: [8, 8], keys: [8, 8] };
  const parts = [1, 2, 3].map((seed) => input(seed, [2, 32, 8, 8], 3)) as [
    Input,
    Input,
    Input,
  ];
  const backend = await testBackend();
  const options = { heads: 2, probe: [5, 60] };
  const one = await runOp(backend, {
    inputs: [pack(c, parts)],
    wrt: [0],
    forward: (qkv) => {
      const { out, logProbs } = selfAttention(qkv!, options);
      return [out, logProbs!];
    },
  });
  const three = await runOp(backend, {
    inputs: parts,
    wrt: [0, 1, 2],
    forward: (q, k, v) => {
      const { out, logProbs } = attention(q!, k!, v!, options);
      return [out, logProbs!];
    },
  });
  assert.deepEqual(one.values, three.values);
  const grads = three.grads.map((data, i) => ({ ...parts[i]!, data }));
  const { data } = pack(c, grads as [Input, Input, Input]);
  assert.deepEqual(
    Float32Array.from(one.grads[0]!),
    Float32Array.from(data),
  );
});

test("attention() refuses what does not fit", async () => {
  const backend = await testBackend();
  const before = backend.memory.liveBytes;
  {
    using q = backend.alloc([1, 4, 5]);
    using k = backend.upload(new Float32Array(12), [1, 4, 3]);
    using other = backend.alloc([1, 8, 3]);
    using longer = backend.alloc([1, 4, 6]);
    const refused = (run: () => unknown, message: RegExp) =>
      assert.throws(run, { name: "RangeError", message });
    refused(() => attention(q, k, k, { heads: 3 }), /3 heads must divide/);
    refused(() => selfAttention(q, { heads: 2 }), /6 heads must divide/);
    refused(
      () => selfAttention(other, { heads: 1, probe: [3] }),
      /3 heads must divide/,
    );
    using three = backend.alloc([1, 6, 3]);
    refused(
      () => selfAttention(three, { heads: 2, probe: [3] }),
      /key must be below 3/,
    );
    refused(() => attention(q, other, other, { heads: 2 }), /attention keys/);
    refused(() => attention(q, k, longer, { heads: 2 }), /attention values/);
    for (const key of [3, -1, 0.5, NaN]) {
      refused(
        () => attention(q, k, k, { heads: 2, probe: [key] }),
        /key must be below 3/,
      );
    }
    attention(k, k, k, { heads: 2 }).out.dispose();
  }
  assert.equal(backend.memory.liveBytes, before);
});

test("attention() gives an element of a batch what it gives it alone, whatever the chunks", async () => {
  const backend = await testBackend();
  // Two heads of so many keys: one prompt's chunk would be more than a product takes in one piece.
  const [heads, width, queries, keys] = [2, 4, 1024, 4096];
  const data = [queries, keys, keys].map((cells, i) =>
    rand(40 + i, 2 * heads * width * cells)
  );
  const run = async (batch: number): Promise<Floats> => {
    const [q, k, v] = data.map((x) => {
      const cells = x.length / (2 * heads * width);
      return backend.upload(
        x.subarray(0, batch * heads * width * cells),
        [batch, heads * width, cells],
      );
    });
    const { out } = attention(q!, k!, v!, { heads });
    const [values] = await backend.read([out]);
    for (const x of [q!, k!, v!, out]) x.dispose();
    return values!.slice(0, heads * width * queries);
  };
  assert.deepEqual(await run(1), await run(2));
});
