/** Attention by matrix units: when it is used, and what it gives. Numbers need an adapter that has some. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import process from "node:process";
import { attention, selfAttention } from "../../kernels/attention.ts";
import type { Backend, Floats, Tensor } from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { flashAttention } from "../../kernels/flash_attention.ts";
import { wholeHeads } from "../../kernels/heads.ts";
import { rounded } from "../../kernels/halve_ref.ts";
import type { MatrixUnits } from "../../kernels/matrix_units.ts";
import { Plan } from "../../kernels/plan.ts";
import { Tape } from "../../kernels/tape.ts";
import { BACKEND, KERNELS, testBackend } from "../backend.ts";
import { assertClose, compare, rand, U } from "../compare.ts";
import { attentionKernels } from "./attention_kernels.ts";

const NVIDIA: MatrixUnits = {
  M: 16,
  N: 16,
  K: 16,
  subgroup: 32,
  memory: 48 * 1024,
};

interface Sizes {
  readonly heads?: number;
  readonly width: number;
  readonly queries: number;
  readonly keys: number;
}

interface Case extends Sizes {
  /** Queries, keys and values in one tensor. */
  readonly packed?: boolean;
  /** Size of q; scores are about `scale / 3`. */
  readonly scale?: number;
  /** Size of the gradient on the result; none is wanted without. */
  readonly seed?: number;
  /** Numbers of 16 bits, so that scores are exact. */
  readonly exact?: boolean;
  /** Inputs whose gradients are wanted. */
  readonly wrt?: readonly number[];
}

/** Which flash kernels run, there and back, in turn. */
function kernels(
  { heads = 8, width, queries, keys }: Sizes,
  options: {
    readonly causal?: boolean;
    readonly probe?: readonly number[];
    readonly halfProducts?: boolean;
    readonly units?: MatrixUnits;
    readonly packed?: boolean;
  } = {},
): string[] {
  const { causal = false, probe, halfProducts = true, packed = false } =
    options;
  using plan = new Plan(Infinity, "gpu", options.units ?? NVIDIA);
  plan.halfProducts = halfProducts;
  const sizes = { heads, width, queries, keys, packed };
  const { there, back } = attentionKernels(plan, sizes, { causal, probe });
  return [...there, ...back].filter((name) =>
    name.startsWith("flash") && !/halves$|rows$/.test(name)
  );
}

test("attention takes matrix units where a network bears it, and enough queries", () => {
  const units = "16x16x16_32";
  const plain = [
    "flash_attention",
    ...Array(3).fill("flash_attention_grad"),
  ];
  const sizes = { width: 40, queries: 64, keys: 77 };
  assert.deepEqual(kernels(sizes), [
    `flash_matrix_48_64x32x1_${units}`,
    `flash_matrix_grad_query_slopes_48_64x32x1_${units}`,
    `flash_matrix_grad_key_slopes_48_64x32x1_${units}`,
    `flash_matrix_grad_key_values_48_64x32x1_${units}`,
  ]);
  assert.deepEqual(kernels(sizes, { halfProducts: false }), plain);
  assert.deepEqual(kernels(sizes, { causal: true }), plain);
  assert.deepEqual(kernels({ ...sizes, queries: 63 }), plain);
  assert.deepEqual(
    kernels({ ...sizes, width: 5, heads: 1, queries: 65 }),
    plain, // no fours
  );
  // Tiles of half the size, where workgroups share less.
  assert.deepEqual(
    kernels({ width: 160, queries: 64, keys: 64 }, {
      units: { ...NVIDIA, memory: 32 * 1024 },
    }).slice(0, 1),
    [`flash_matrix_160_64x16x1_${units}`],
  );
  // Subgroups of half a fragment.
  const odd = { ...NVIDIA, subgroup: 8 };
  assert.deepEqual(kernels(sizes, { units: odd }), plain);
  // Energies are made in 32 bits.
  assert.deepEqual(kernels(sizes, { probe: [3] }), plain);
});

test("attention by matrix units makes gradients on keys and values together where one tensor has both", () => {
  const units = "16x16x16_32";
  const packed = (width: number, queries: number) =>
    kernels({ width, queries, keys: queries }, { packed: true });
  assert.deepEqual(packed(40, 4096), [
    `flash_matrix_48_128x32x1_${units}`,
    `flash_matrix_grad_query_slopes_48_128x32x1_${units}`,
    `flash_matrix_grad_key_slopes_values_48_128x32x1_${units}`,
  ]);
  assert.deepEqual(packed(80, 1024), [
    `flash_matrix_80_64x32x1_${units}`,
    `flash_matrix_grad_query_slopes_80_64x32x1_${units}`,
    `flash_matrix_grad_key_slopes_values_80_64x32x1_${units}`,
  ]);
  // Too many sums for registers.
  assert.deepEqual(packed(160, 256), [
    `flash_matrix_160_64x32x1_${units}`,
    `flash_matrix_grad_query_slopes_160_64x32x1_${units}`,
    `flash_matrix_grad_key_slopes_160_64x32x1_${units}`,
    `flash_matrix_grad_key_values_160_64x32x1_${units}`,
  ]);
});

/** Result and gradients of a case. */
async function run(
  backend: Backend,
  c: Case,
  halfProducts: boolean,
): Promise<Floats[]> {
  const { heads = 1, width, queries, keys, packed, scale = 3, seed } = c;
  const cells = packed ? [queries] : [queries, keys, keys];
  const inputs = cells.map((n, i) => {
    const channels = (packed ? 3 : 1) * heads * width;
    const size = packed ? Math.sqrt(scale) : i ? 1 : scale;
    const data = rand(i + 1, channels * n, size);
    return backend.upload(c.exact ? data.map(rounded) : data, [1, channels, n]);
  });
  using tape = new Tape(
    backend,
    (c.wrt ?? inputs.keys().toArray()).map((i) => inputs[i]!),
  );
  backend.halfProducts = halfProducts;
  const [out] = tape.run(() => {
    const [q, k, v] = inputs as [Tensor, Tensor, Tensor];
    const { out } = packed
      ? selfAttention(q, { heads })
      : attention(q, k, v, { heads });
    return [out];
  });
  backend.halfProducts = false;
  const seeds = seed === undefined
    ? []
    : [[out!, backend.upload(rand(9, out!.size, seed), out!.shape)] as const];
  const grads = seeds.length ? tape.backward(seeds) : [];
  const found = await backend.read([out!, ...grads]);
  for (const x of [...inputs, out!, ...grads, ...seeds.map(([, x]) => x)]) {
    x.dispose();
  }
  return found;
}

/**
 * Rounding to 11 bits changes numbers by at most 2^-11 of them: by 0.72 of that on average where their sizes are not
 * known, and by that over sqrt(3) as root mean square. Sums of such products are as far off.
 */
const ROUNDED = 0.72 / Math.sqrt(3) * 2 ** -11;

/** A case on two backends, one of which rounds. */
async function check(
  c: Case,
  rounding: Backend,
): Promise<void> {
  using exact = new Cpu("gpu");
  const wanted = await run(exact, c, false);
  const found = await run(rounding, c, true);
  const { scale = 3, packed = false } = c;
  // Scores are off by the roundings of q and k times their size, by so much are probabilities.
  const scores = c.exact ? 0 : 2 * (scale / 3) ** 2;
  wanted.forEach((values, i) => {
    // Then those of P and v, or of go; of go, v, dS and k, or q. Packed gradients are mostly those on values.
    const onValues = i === 0 || i === (c.wrt ?? [0, 1, 2]).indexOf(2) + 1;
    const others = onValues && !packed ? 2 : 4;
    const expected = ROUNDED * Math.sqrt(scores + others);
    const { relL2 } = compare(Float64Array.from(found[i]!), values);
    const what = `${JSON.stringify(c)} ${i}: ${relL2 / expected}`;
    if (process.env.WINWINLAY_TEST_ERRORS) console.log(what);
    assert.ok(relL2 < 1.5 * expected, what);
    // Were it not by 16 bits, it would not be this far off.
    assert.ok(relL2 > expected / 100, what);
  });
}

test("attention by matrix units has references that round what it rounds", async () => {
  using cpu = new Cpu("gpu", NVIDIA);
  await check({ width: 5, heads: 4, queries: 65, keys: 9, seed: 1e-7 }, cpu);
  const packed = { heads: 2, queries: 66, keys: 66, packed: true, seed: 1 };
  await check({ ...packed, width: 10 }, cpu);
  await check({ ...packed, width: 90 }, cpu);
});

if (BACKEND === "webgpu" && KERNELS === "matrix") {
  test("attention by matrix units gives what float64 gives, but for 16 bits", async () => {
    const backend = await testBackend();
    for (
      const [heads, width, queries, keys] of [
        [1, 24, 64, 64],
        [3, 24, 100, 77],
        [1, 40, 72, 200],
        [2, 80, 64, 77],
        [4, 5, 65, 3],
      ] as const
    ) await check({ heads, width, queries, keys }, backend);
    // Tiles of many queries.
    await check({ width: 24, queries: 2050, keys: 40, heads: 2 }, backend);
  });

  test("attention by matrix units bears scores that grow on and on", async () => {
    const backend = await testBackend();
    const sizes = { width: 24, queries: 64, keys: 200, exact: true };
    await check({ ...sizes, scale: 30 }, backend);
    await check({ ...sizes, scale: 300 }, backend);
    await check({ ...sizes, scale: 30, seed: 1 }, backend);
  });

  test("attention by matrix units hands on the largest score and one over the sum", async () => {
    const [heads, width, queries, keys] = [2, 24, 64, 200];
    const stats = async (backend: Backend): Promise<Floats> => {
      const [q, k] = [queries, keys].map((n, i) =>
        backend.upload(
          rand(i, heads * width * n, i ? 1 : 30).map(rounded),
          [heads, width, n],
        )
      ) as [Tensor, Tensor];
      using stats = backend.alloc([heads, 2, queries]);
      using out = backend.alloc([heads, width, queries]);
      backend.halfProducts = true;
      flashAttention(
        [wholeHeads(q, width), wholeHeads(k, width), wholeHeads(k, width)],
        { heads, width, queries, keys, causal: false, exact: false },
        { stats, out },
      );
      backend.halfProducts = false;
      const [found] = await backend.read([stats]);
      q.dispose();
      k.dispose();
      return found!;
    };
    using cpu = new Cpu("gpu");
    // What is rounded to 16 bits does not show: sums in 32 bits, exponentials of up to about 100.
    assertClose(
      await stats(await testBackend()),
      await stats(cpu),
      { relL2: 200 * U, maxAbs: 1e-3 },
      "stats",
    );
  });

  test("gradients of attention by matrix units are as exact, whatever their size", async () => {
    const backend = await testBackend();
    for (const seed of [1, 1e-7, 1e7]) {
      const c = { heads: 2, width: 24, seed };
      await check({ ...c, queries: 100, keys: 77 }, backend);
      await check({ ...c, queries: 136, keys: 136, packed: true }, backend);
    }
    const c = { heads: 4, width: 5, seed: 1, queries: 65, keys: 3 };
    for (const wrt of [[0], [1], [2]]) await check({ ...c, wrt }, backend);
  });

  test("attention by matrix units does so at widths of the networks", async () => {
    const backend = await testBackend();
    // A processor compiles these for minutes.
    if (backend.matrix!.subgroup < 32) return;
    for (const width of [40, 80, 160]) {
      const c = { heads: 8, width, seed: 1 };
      await check({ ...c, queries: 136, keys: 77 }, backend);
      await check({ ...c, queries: 256, keys: 256, packed: true }, backend);
    }
    const long = { heads: 2, width: 40, packed: true, seed: 1 };
    await check({ ...long, queries: 2056, keys: 2056 }, backend);
  });
}
