/**
 * The gradient of the whole network: on the cpu backend against central differences in float64, on
 * WebGPU against the cpu backend. The weights are those of a tiny random UNet of the SD1.5 pattern.
 */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import type { Backend, Floats, Tensor } from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { Tape } from "../../kernels/tape.ts";
import {
  ENERGY_DEFAULTS,
  type EnergyOptions,
  LayoutEnergy,
  type Subject,
} from "../../pipeline/energy.ts";
import { deviceEnergy } from "../../pipeline/guidance/device_energy.ts";
import { loadUnet, type Unet, unetForward } from "../../pipeline/unet.ts";
import { attentionSites } from "../../pipeline/unet_config.ts";
import { energyGradient } from "../../pipeline/unet_grad.ts";
import { BACKEND, testBackend } from "../backend.ts";
import { assertClose, rand } from "../compare.ts";
import { tinyUnet } from "./tiny_unet.ts";

const TEXT = 40; // channels of its text states

const SUBJECTS: readonly Subject[] = [
  { name: "a", tokens: [2], boxes: [[0.06, 0.19, 0.56, 0.81]] },
  {
    name: "b",
    tokens: [5, 6],
    boxes: [[0.5, 0.4, 0.95, 0.95], [0.1, 0.1, 0.4, 0.35]],
    weight: 2,
  },
];

/** Sites and options: the way back must be right for any set of probes, on any grid. */
const CASES: readonly {
  readonly name: string;
  readonly sites: (unet: Unet) => string[];
  readonly options: Partial<EnergyOptions>;
  readonly rho: number;
  readonly grid: readonly [number, number];
}[] = [
  {
    name: "middle and first up block, 8x8",
    sites: (u) => cross(u).filter((id) => /^(mid_block|up_blocks\.1)/.test(id)),
    options: {},
    rho: 5,
    grid: [8, 8],
  },
  {
    name: "first site alone, 8x12",
    sites: (u) => cross(u).slice(0, 1),
    options: {},
    rho: 0,
    grid: [8, 12],
  },
  {
    name: "last site alone, odd grid 9x7",
    sites: (u) => cross(u).slice(-1),
    options: {},
    rho: 1,
    grid: [9, 7],
  },
  {
    name: "every cross-attention site, mean maps, reverse, mixture",
    sites: cross,
    options: {
      heads: "mean_map",
      tokens: "mean_map",
      divergence: "reverse",
      priors: "union_mixture",
      reduction: "sum",
    },
    rho: 2,
    grid: [8, 8],
  },
  {
    name: "self-attention probes, coverage masks",
    sites: (u) =>
      attentionSites(u.config).filter((s) => s.kind === "self").slice(0, 4).map(
        (s) => s.id,
      ),
    options: { raster: "coverage", tokens: "last", units: "cells", lambda: 1 },
    rho: 3,
    grid: [8, 8],
  },
];

function cross(unet: Unet): string[] {
  return attentionSites(unet.config).filter((s) => s.kind === "cross").map((
    s,
  ) => s.id);
}

/** Energy and gradient at a latent given by the host. */
async function evaluate(
  unet: Unet,
  z: Floats,
  text: Floats,
  { sites, options, rho, grid }: typeof CASES[number],
): Promise<{ energy: number; grad: Floats; output: Floats }> {
  const { backend } = unet;
  const ids = sites(unet);
  using latent = backend.upload(z, [1, 4, ...grid]);
  using states = backend.upload(text, [1, TEXT, 11]);
  const layout = new LayoutEnergy(backend, SUBJECTS, ids, [64, 64], {
    ...ENERGY_DEFAULTS,
    ...options,
  });
  using energy = deviceEnergy(layout, { rho: () => rho });
  const pass = await energyGradient(unet, latent, 621, { states }, {
    energy,
    at: { step: 0, steps: 1, iteration: 0 },
  });
  const [grad, output, ...terms] = await backend.read([
    pass.grad,
    pass.output,
    ...pass.terms,
  ]);
  for (const x of [pass.grad, pass.output, ...pass.terms]) x.dispose();
  return {
    energy: pass.report(terms).energy,
    grad: grad!,
    output: output!,
  };
}

async function withUnet<T>(
  backend: Backend,
  use: (unet: Unet) => Promise<T>,
): Promise<T> {
  const source = await tinyUnet();
  try {
    using unet = await loadUnet(backend, source);
    return await use(unet);
  } finally {
    await source.close();
  }
}

for (const one of CASES) {
  const [height, width] = one.grid;
  const z = Float64Array.from(rand(1, 4 * height * width, 1.7));
  const text = Float64Array.from(rand(2, TEXT * 11, 1.7));
  if (BACKEND === "cpu") {
    test(`energyGradient() matches central differences: ${one.name}`, () =>
      withUnet(new Cpu(), async (unet) => {
        const { grad } = await evaluate(unet, z, text, one);
        for (const seed of [3, 4]) {
          const direction = rand(seed, z.length);
          const h = 1e-5;
          const shifted = (sign: number) =>
            z.map((v, i) => v + sign * h * direction[i]!);
          const up = await evaluate(unet, shifted(1), text, one);
          const down = await evaluate(unet, shifted(-1), text, one);
          const numeric = (up.energy - down.energy) / (2 * h);
          let taped = 0;
          for (let i = 0; i < grad.length; i++) {
            taped += grad[i]! * direction[i]!;
          }
          // h^2 of the third derivative, and 1e-16 / h of rounding in energies of about 1
          assert.ok(
            Math.abs(numeric - taped) <= 1e-6 * Math.abs(numeric) + 1e-9,
            `differences ${numeric}, tape ${taped}`,
          );
          assert.ok(
            Math.abs(numeric) > 1e-8,
            "the energy must depend on the latent",
          );
        }
      }));
  } else {
    test(`energyGradient() matches the cpu backend: ${one.name}`, async () => {
      const expected = await withUnet(
        new Cpu(),
        (unet) => evaluate(unet, z, text, one),
      );
      const actual = await withUnet(
        await testBackend(),
        (unet) => evaluate(unet, z, text, one),
      );
      // PyTorch in float32 is 4e-6 from float64 on gradients of such a network, 7e-7 on its output
      // (float32_noise of golden case unet-tiny-sd15-32); times 10, as the golden cases allow.
      assertClose(actual.grad, expected.grad, { relL2: 4e-5 }, "gradient");
      assertClose(actual.output, expected.output, { relL2: 7e-6 }, "output");
      assert.ok(
        Math.abs(actual.energy - expected.energy) <=
          3e-6 * Math.abs(expected.energy),
      );
    });
  }
}

test("energyGradient() gates satisfied subjects and leaves nothing behind", async () => {
  const backend = await testBackend();
  await withUnet(backend, async (unet) => {
    const z = rand(1, 4 * 64, 1.7);
    const text = rand(2, TEXT * 11, 1.7);
    const ids = cross(unet).slice(6, 8);
    using latent = backend.upload(z, [1, 4, 8, 8]);
    using states = backend.upload(text, [1, TEXT, 11]);
    const before = backend.memory.liveBytes;
    const run = async (floor: number | undefined): Promise<number> => {
      using energy = deviceEnergy(
        new LayoutEnergy(backend, SUBJECTS, ids, [64, 64]),
        { rho: () => 0, floor },
      );
      const pass = await energyGradient(unet, latent, 621, { states }, {
        energy,
        at: { step: 0, steps: 1, iteration: 0 },
      });
      const [grad] = await backend.read([pass.grad]);
      for (const x of [pass.grad, pass.output, ...pass.terms]) x.dispose();
      return Math.hypot(...grad!);
    };
    const [free, none, all] = [
      await run(undefined),
      await run(0),
      await run(2),
    ];
    assert.ok(free > 0);
    assert.equal(none, free, "nothing is below 0");
    assert.equal(all, 0, "everything is below 2");
    assert.equal(backend.memory.liveBytes, before);
  });
});

test("unetForward() has a gradient from its output, and a batch is two single passes", async () => {
  const backend = await testBackend();
  await withUnet(backend, async (unet) => {
    const z = [rand(1, 256, 1.7), rand(5, 256, 1.7)];
    const text = [rand(2, TEXT * 11, 1.7), rand(6, TEXT * 11, 1.7)];
    const seed = rand(7, 512);
    const both = (list: readonly Float32Array[]): Float32Array =>
      Float32Array.from(list.flatMap((x) => [...x]));
    const run = async (
      latents: Float32Array,
      states: Float32Array,
      seeds: Float32Array,
    ): Promise<Floats[]> => {
      const batch = latents.length / 256;
      using x = backend.upload(latents, [batch, 4, 8, 8]);
      using t = backend.upload(states, [batch, TEXT, 11]);
      using g = backend.upload(seeds, [batch, 4, 8, 8]);
      using tape = new Tape(backend, [x]);
      using y = tape.run(() => unetForward(unet, x, 300, { states: t }));
      const [dx] = tape.backward([[y, g]]) as [Tensor];
      using grad = dx;
      return await backend.read([y, grad]);
    };
    const [y, dx] = await run(both(z), both(text), seed);
    for (const i of [0, 1]) {
      const [y1, dx1] = await run(
        z[i]!,
        text[i]!,
        seed.slice(256 * i, 256 * (i + 1)),
      );
      assertClose(
        y!.slice(256 * i, 256 * (i + 1)),
        y1!,
        { relL2: 7e-6 },
        `output ${i}`,
      );
      assertClose(
        dx!.slice(256 * i, 256 * (i + 1)),
        dx1!,
        { relL2: 4e-5 },
        `gradient ${i}`,
      );
    }
  });
});

test("energyGradient() without an output ends at the last map: same gradient, less work, nothing left", async () => {
  const backend = await testBackend();
  await withUnet(backend, async (unet) => {
    using latent = backend.upload(rand(1, 4 * 64, 1.7), [1, 4, 8, 8]);
    using states = backend.upload(rand(2, TEXT * 11, 1.7), [1, TEXT, 11]);
    const sites = cross(unet);
    // The middle block, and in turn a block on the way down and one on the way up.
    for (const id of [sites[0]!, sites[6]!, sites[8]!]) {
      const before = backend.memory.liveBytes;
      const run = async (output: boolean) => {
        using energy = deviceEnergy(
          new LayoutEnergy(backend, SUBJECTS, [id], [64, 64]),
          { rho: () => 1 },
        );
        const pass = await energyGradient(unet, latent, 621, { states }, {
          energy,
          at: { step: 0, steps: 1, iteration: 0 },
          output,
        });
        const [grad] = await backend.read([pass.grad]);
        for (const x of [pass.grad, pass.output, ...pass.terms]) x.dispose();
        return { grad: grad!, size: pass.output.size };
      };
      const [whole, short] = [await run(true), await run(false)];
      // The middle block has a single cell, whose share nothing changes.
      assert.equal(whole.grad.some((g) => g !== 0), !id.startsWith("mid"), id);
      assert.deepEqual(short.grad, whole.grad, id);
      assert.deepEqual([whole.size, short.size], [latent.size, 0]);
      assert.equal(backend.memory.liveBytes, before, id);
    }
  });
});

test("energyGradient() refuses probes that are not in the order of execution", async () => {
  const backend = await testBackend();
  await withUnet(backend, async (unet) => {
    using latent = backend.upload(rand(1, 4 * 64, 1.7), [1, 4, 8, 8]);
    using states = backend.upload(rand(2, TEXT * 11, 1.7), [1, TEXT, 11]);
    const [first, second] = cross(unet) as [string, string];
    using energy = deviceEnergy(
      new LayoutEnergy(backend, SUBJECTS, [second, first], [64, 64]),
      { rho: () => 0 },
    );
    await assert.rejects(
      () =>
        energyGradient(unet, latent, 621, { states }, {
          energy,
          at: { step: 0, steps: 1, iteration: 0 },
        }),
      /probes must be in the order of execution: current .* comes after/,
    );
  });
});
