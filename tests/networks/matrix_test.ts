/** Passes whose products run on matrix units. Numbers need an adapter that has some. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { passInputs } from "../../bench/pass_inputs.ts";
import type { Backend } from "../../kernels/backend.ts";
import { Cpu } from "../../kernels/cpu.ts";
import { Plan } from "../../kernels/plan.ts";
import { loadUnet } from "../../pipeline/unet.ts";
import { loadVae, vaeDecode } from "../../pipeline/vae.ts";
import { openCheckpoint } from "../../weights/open_checkpoint.ts";
import { embeddedModel } from "../../weights/embedded.ts";
import { compare } from "../compare.ts";
import { BACKEND, KERNELS, testBackend } from "../backend.ts";

async function guidedPass(backend: Backend) {
  await using model = await openCheckpoint(embeddedModel("tiny-scenes")!);
  using unet = await loadUnet(backend, await model.component("unet"));
  using pass = passInputs(unet, 16);
  const { output, grad, terms } = await pass.gradient();
  const read = await backend.read([output, grad]);
  for (const x of [output, grad, ...terms]) x.dispose();
  return read.map((x) => Float64Array.from(x));
}

test("a UNet's forward pass takes matrix units, and nothing after it", async () => {
  await using model = await openCheckpoint(embeddedModel("tiny-scenes")!);
  const units = { M: 16, N: 16, K: 16, subgroup: 32, memory: 48 * 1024 };
  using plan = new Plan(Infinity, "gpu", units);
  using unet = await loadUnet(plan, await model.component("unet"));
  using vae = await loadVae(plan, await model.component("vae"));
  using pass = passInputs(unet, 32);
  vaeDecode(vae, pass.z).dispose();
  const matrix = () =>
    plan.kernels.filter(({ kernel }) => kernel.name.includes("matrix")).length;
  assert.equal(matrix(), 0);
  pass.plain();
  const used = matrix();
  assert.ok(used > 1, `${used}`);
  assert.equal(plan.halfProducts, false);
  vaeDecode(vae, pass.z).dispose();
  assert.equal(matrix(), used);
});

if (BACKEND === "webgpu" && KERNELS === "matrix") {
  test("noise and gradient by matrix units are those of float64, but for 16 bits", async () => {
    const [noise, grad] = await guidedPass(await testBackend());
    using cpu = new Cpu("gpu");
    const [wantedNoise, wantedGrad] = await guidedPass(cpu);
    // Some 60 products in a row, each off by 2e-4; sums of independent errors.
    const bound = Math.sqrt(60) * 2e-4;
    const off = compare(noise!, wantedNoise!).relL2;
    assert.ok(off < bound && off > bound / 1000, `noise: ${off}`);
    const offGrad = compare(grad!, wantedGrad!).relL2;
    assert.ok(offGrad < 4 * bound, `gradient: ${offGrad}`);
  });
}
