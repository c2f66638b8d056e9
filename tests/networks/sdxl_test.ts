/** SDXL in every part: text, what is added to the time embedding, gradients, and whole pictures. */
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import type { Backend, Floats, Tensor } from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import {
  type Conditioning,
  encodePrompt,
  freeConditioning,
  type MicroConditioning,
  stackConditioning,
} from "../../pipeline/conditioning.ts";
import { LayoutEnergy } from "../../pipeline/energy.ts";
import { decodeLatent } from "../../pipeline/decode.ts";
import { deviceEnergy } from "../../pipeline/guidance/device_energy.ts";
import { guidedSites } from "../../pipeline/guidance/sites.ts";
import { type Model, open } from "../../pipeline/model.ts";
import { seededNoise } from "../../pipeline/noise.ts";
import { ddim } from "../../pipeline/scheduler.ts";
import { unetForward } from "../../pipeline/unet.ts";
import { energyGradient } from "../../pipeline/unet_grad.ts";
import { BACKEND, testBackend } from "../backend.ts";
import { assertClose, rand } from "../compare.ts";
import { tinySdxl, type TinySdxlOptions } from "../tiny_sdxl.ts";
import { tempFolder } from "../weights/temp_folder.ts";

const FIXTURE = JSON.parse(
  await readFile(
    new URL("../fixtures/sdxl/text.json", import.meta.url),
    "utf8",
  ),
) as {
  prompts: {
    prompt: string;
    ids: number[][];
    states: number[][];
    pooled: number[];
  }[];
};

const SIZES: MicroConditioning = {
  originalSize: [640, 480],
  cropTopLeft: [7, 30],
  targetSize: [96, 64],
};

async function withModel<T>(
  backend: Backend,
  use: (model: Model) => Promise<T>,
  options: TinySdxlOptions = {},
): Promise<T> {
  await using folder = await tempFolder(await tinySdxl(options));
  await using model = await open(folder.path, { backend, weights: "f32" });
  return await use(model);
}

function conditioning(
  { networks }: Model,
  prompt: string,
  more: { zeros?: boolean; sizes?: MicroConditioning } = {},
): Promise<Conditioning> {
  const { text, unet: { config: { added } } } = networks;
  return encodePrompt(text, prompt, { added, sizes: SIZES, ...more });
}

/** Reads and frees. */
async function take(tensors: readonly Tensor[]): Promise<Floats[]> {
  const values = await tensors[0]!.backend.read(tensors);
  for (const t of tensors) t.dispose();
  return values;
}

test("encodePrompt() gives transformers' states and pooled text, ids and padding included", async () => {
  const backend = await testBackend();
  await withModel(backend, async (model) => {
    const before = backend.memory.liveBytes;
    for (const { prompt, ids, states, pooled } of FIXTURE.prompts) {
      model.networks.text.forEach(({ tokenizer }, i) =>
        assert.deepEqual([...tokenizer.encode(prompt).ids], ids[i])
      );
      const made = await conditioning(model, prompt);
      assert.deepEqual(made.states.shape, [1, 40, 77]);
      assert.deepEqual(made.added!.shape, [1, 80, 1]);
      const [s, a] = await take([made.states, made.added!]);
      const channels = states[0]!.length;
      const expected = Float64Array.from(
        { length: 77 * channels },
        (_, i) => states[i % 77]![Math.floor(i / 77)]!,
      );
      // float32_noise of golden case text-tiny-gelu-projection is 4e-7; times 10, as those allow.
      assertClose(s!, expected, { relL2: 4e-6 }, `states of "${prompt}"`);
      assertClose(
        a!.slice(0, 32),
        Float64Array.from(pooled),
        { relL2: 4e-6 },
        `pooled "${prompt}"`,
      );
    }
    assert.equal(backend.memory.liveBytes, before);
  });
});

test("encodePrompt() tells the six sizes in diffusers' order, also beside zeros", async () => {
  const backend = await testBackend();
  await withModel(backend, async (model) => {
    // Original height and width, crop top and left, target height and width: half cosines, half sines.
    const expected = [480, 640, 30, 7, 64, 96].flatMap((id) => {
      const angles = [0, 1, 2, 3].map((i) => id * 10000 ** (-i / 4));
      return [...angles.map(Math.cos), ...angles.map(Math.sin)];
    });
    for (const zeros of [false, true]) {
      const made = await conditioning(model, "", { zeros });
      const [states, added] = await take([made.states, made.added!]);
      assertClose(
        added!.slice(32),
        Float64Array.from(expected),
        { relL2: 1e-7 },
        "sizes",
      );
      for (const text of [states!, added!.slice(0, 32)]) {
        assert.equal(text.every((x) => x === 0), zeros);
      }
    }
  });
});

/** What SDXL adds, by plain loops: linear, SiLU, linear. */
function mlp(
  x: readonly number[],
  [w1, b1, w2, b2]: readonly Floats[],
): number[] {
  const layer = (v: readonly number[], w: Floats, b: Floats): number[] =>
    Array.from(
      b,
      (bias, o) => v.reduce((s, y, i) => s + w[o * v.length + i]! * y, bias),
    );
  const hidden = layer(x, w1!, b1!).map((y) => y / (1 + Math.exp(-y)));
  return layer(hidden, w2!, b2!);
}

test("unetForward() takes what is added, as an add_embedding by plain loops says", async () => {
  const backend = await testBackend();
  await withModel(backend, async ({ networks: { unet } }) => {
    const { added: layers, time1, time2 } = unet;
    const read = async (
      list: readonly { weight: Tensor; bias: Tensor | undefined }[],
    ) => await backend.read(list.flatMap((l) => [l.weight, l.bias!]));
    const more = await read(layers!);
    const [, , , bias] = await read([time1, time2]);
    const added = rand(5, 80);
    const shift = mlp([...added], more);
    using z = backend.upload(rand(1, 4 * 8 * 12), [1, 4, 8, 12]);
    using states = backend.upload(rand(2, 40 * 77), [1, 40, 77]);
    const run = async (
      values: Float32Array,
      time2Bias: Floats,
    ): Promise<Floats> => {
      using a = backend.upload(values, [1, 80, 1]);
      using b = backend.upload(Float32Array.from(time2Bias), time2.bias!.shape);
      return (await take([unetForward(
        { ...unet, time2: { ...time2, bias: b } },
        z,
        500,
        { states, added: a },
      )]))[0]!;
    };
    // The same network with the difference moved into the bias of the time embedding.
    const none = new Float32Array(80);
    const base = mlp([...none], more);
    const actual = await run(added, bias!);
    const moved = await run(
      none,
      Float64Array.from(bias!, (x, i) => x + shift[i]! - base[i]!),
    );
    assertClose(actual, moved, { relL2: 7e-6 }, "output");
    const without = await run(none, bias!);
    assert.ok(without.some((x, i) => Math.abs(x - actual[i]!) > 1e-3));
    assert.throws(
      () => unetForward(unet, z, 500, { states }),
      /pooled text and sizes must be given to SDXL/,
    );
  });
});

test("a batch of two conditionings is two single passes", async () => {
  const backend = await testBackend();
  await withModel(backend, async (model) => {
    const { unet } = model.networks;
    const one = await conditioning(model, "a red car");
    const two = await conditioning(model, "", {
      sizes: { ...SIZES, cropTopLeft: [0, 0] },
    });
    const both = stackConditioning(one, two);
    using z = backend.upload(rand(1, 4 * 8 * 12), [1, 4, 8, 12]);
    using zz = backend.upload(
      Float32Array.from([...rand(1, 384), ...rand(1, 384)]),
      [2, 4, 8, 12],
    );
    const [pair, a, b] = await take([
      unetForward(unet, zz, 621, both),
      unetForward(unet, z, 621, one),
      unetForward(unet, z, 621, two),
    ]);
    for (const c of [one, two, both]) freeConditioning(c);
    assertClose(pair!.slice(0, 384), a!, { relL2: 7e-6 }, "first");
    assertClose(pair!.slice(384), b!, { relL2: 7e-6 }, "second");
    assert.ok(a!.some((x, i) => Math.abs(x - b![i]!) > 1e-3));
  });
});

const GUIDED = [
  { sites: "first_up_only", count: 6, grid: [8, 12] },
  { sites: "middle_and_first_up", count: 12, grid: [8, 8] },
  { sites: ["down_blocks.2.attentions.1"], count: 3, grid: [9, 7] },
] as const;

/** Energy and gradient of a guided pass at a latent given by the host. */
async function guidedPass(
  model: Model,
  z: Floats,
  { sites, count, grid }: typeof GUIDED[number],
): Promise<{ energy: number; grad: Floats }> {
  const { backend, unet } = model.networks;
  const ids = guidedSites(unet.config, sites);
  assert.equal(ids.length, count);
  using latent = backend.upload(z, [1, 4, ...grid]);
  using energy = deviceEnergy(
    new LayoutEnergy(
      backend,
      [
        { name: "red", tokens: [2, 3], boxes: [[0.06, 0.19, 0.56, 0.81]] },
        { name: "car", tokens: [3], boxes: [[0.5, 0.4, 0.95, 0.95]] },
      ],
      ids,
      [4 * grid[1], 4 * grid[0]],
    ),
    { rho: () => 2 },
  );
  const made = await conditioning(model, "a red car");
  const pass = await energyGradient(unet, latent, 621, made, {
    energy,
    at: { step: 0, steps: 1, iteration: 0 },
  });
  freeConditioning(made);
  const [grad, , ...terms] = await take([
    pass.grad,
    pass.output,
    ...pass.terms,
  ]);
  return { grad: grad!, energy: pass.report(terms).energy };
}

for (const one of GUIDED) {
  const z = Float64Array.from(rand(1, 4 * one.grid[0] * one.grid[1], 1.7));
  if (BACKEND === "cpu") {
    test(`a guided pass matches central differences: ${one.sites}`, () =>
      withModel(new Cpu(), async (model) => {
        const { grad } = await guidedPass(model, z, one);
        const direction = rand(3, z.length);
        const h = 1e-5;
        const at = async (sign: number): Promise<number> =>
          (await guidedPass(
            model,
            z.map((v, i) => v + sign * h * direction[i]!),
            one,
          )).energy;
        const numeric = (await at(1) - await at(-1)) / (2 * h);
        const taped = direction.reduce((s, d, i) => s + d * grad[i]!, 0);
        assert.ok(Math.abs(numeric) > 1e-8, "the energy must move");
        // As in gradient_test.ts: h^2 of the third derivative, 1e-16 / h of rounding.
        assert.ok(
          Math.abs(numeric - taped) <= 1e-6 * Math.abs(numeric) + 1e-9,
          `differences ${numeric}, tape ${taped}`,
        );
      }));
  } else {
    test(`a guided pass matches the cpu backend: ${one.sites}`, async () => {
      const expected = await withModel(
        new Cpu(),
        (model) => guidedPass(model, z, one),
      );
      const actual = await withModel(
        await testBackend(),
        (model) => guidedPass(model, z, one),
      );
      // As in gradient_test.ts.
      assertClose(actual.grad, expected.grad, { relL2: 4e-5 }, "gradient");
      assert.ok(
        Math.abs(actual.energy - expected.energy) <=
          3e-6 * Math.abs(expected.energy),
      );
    });
  }
}

/** One DDIM step with classifier-free guidance, on the host from two single passes. */
async function byHand(
  model: Model,
  negative: Conditioning,
  positive: Conditioning,
  scale: number,
  [width, height]: readonly [number, number],
): Promise<Uint8Array> {
  const { backend, unet, vae, schedule } = model.networks;
  const scheduler = ddim(schedule, 1);
  const [timestep] = scheduler.timesteps;
  const shape = [1, 4, height / 4, width / 4];
  using z = seededNoise(backend, 3).initial(shape);
  const [x, u, c] = await take([
    z.retain(),
    unetForward(unet, z, timestep!, negative),
    unetForward(unet, z, timestep!, positive),
  ]);
  const { a, b } = scheduler.coefficients(0);
  using latent = backend.upload(
    Float64Array.from(
      x!,
      (v, i) => a * v + b * (u![i]! + scale * (c![i]! - u![i]!)),
    ),
    shape,
  );
  return (await decodeLatent(vae, latent)).rgb;
}

for (const zeros of [true, false]) {
  test(`generate() is one step by hand; empty negative prompt ${zeros ? "is zeros" : "is encoded"}`, async () => {
    const backend = await testBackend();
    await withModel(backend, async (model) => {
      const request = {
        prompt: "a red car",
        steps: 1,
        seed: 3,
        guidanceScale: 3,
        width: 96,
        height: 64,
        ...SIZES,
      };
      const pictures: Uint8Array[] = [];
      for (const negativePrompt of ["", "blue"]) {
        const { rgb, width, height } = await model.generate({
          ...request,
          negativePrompt,
        });
        assert.deepEqual([width, height], [96, 64]);
        const positive = await conditioning(model, "a red car");
        const negative = await conditioning(model, negativePrompt, {
          zeros: zeros && negativePrompt === "",
        });
        const expected = await byHand(model, negative, positive, 3, [96, 64]);
        freeConditioning(positive);
        freeConditioning(negative);
        // Rounding to 8 bits may fall either way.
        const most = rgb.reduce(
          (m, v, i) => Math.max(m, Math.abs(v - expected[i]!)),
          0,
        );
        assert.ok(most <= 1, `levels apart: ${most}`);
        pictures.push(rgb);
      }
      assert.notDeepEqual(pictures[0], pictures[1]);
      assert.ok(new Set(pictures[0]).size > 20, "a picture of one colour");
    }, { index: { force_zeros_for_empty_prompt: zeros } });
  });
}

test("generate() guides an SDXL model, and minds the sizes it is told", async () => {
  const backend = await testBackend();
  await withModel(backend, async (model) => {
    const request = {
      prompt: "a red car",
      regions: [{ phrase: "red car", boxes: [[0.1, 0.2, 0.6, 0.9]] }],
      steps: 2,
      width: 64,
      height: 48,
      guidance: { steps: 1, iterations: 2 },
    } as const;
    const before = backend.memory.liveBytes;
    const first = await model.generate(request);
    assert.equal(backend.memory.liveBytes, before);
    const { guidance, guidanceScale, targetSize } = first.request;
    assert.equal(guidanceScale, 5);
    assert.equal(
      guidance.method === "winwinlay" && guidance.sites,
      "first_up_only",
    );
    assert.deepEqual(targetSize, [64, 48]);
    assert.deepEqual(first.report.regions[0]!.positions, [2, 3]);
    assert.equal(first.report.steps[0]!.inner.length, 2);
    const { inner: [a, b] } = first.report.steps[0]!;
    assert.ok(a!.energy > 0 && a!.energy !== b!.energy);

    const again = await model.generate(first.request);
    assert.deepEqual(again.rgb, first.rgb);
    const plain = await model.generate({
      ...request,
      guidance: { method: "none" },
    });
    assert.notDeepEqual(plain.rgb, first.rgb);
    for (
      const sizes of [
        { originalSize: [512, 64] },
        { cropTopLeft: [9, 0] },
        { targetSize: [512, 48] },
      ] as const
    ) {
      const other = await model.generate({ ...request, ...sizes });
      assert.notDeepEqual(other.rgb, first.rgb, Object.keys(sizes)[0]);
    }
  });
});
