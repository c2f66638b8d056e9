import { strict as assert } from "node:assert";
import { test } from "node:test";
import { chooseFamily, type KernelChoice } from "../../kernels/family.ts";
import { WebGpu } from "../../kernels/webgpu.ts";
import { openBackend } from "../../pipeline/model.ts";
import { BACKEND, DEVICE, KERNELS, testBackend } from "../backend.ts";

test("chooseFamily() goes by the adapter unless a family is asked for", () => {
  const family = (isFallbackAdapter: boolean, choice?: KernelChoice) =>
    chooseFamily({ isFallbackAdapter }, choice).family;
  assert.equal(family(true), "software");
  assert.equal(family(false), "gpu");
  assert.equal(family(true, "auto"), "software");
  assert.equal(family(true, "gpu"), "gpu");
  assert.equal(family(false, "software"), "software");
  assert.equal(family(true, "matrix"), "gpu");
  assert.throws(() => family(true, "fast" as KernelChoice), {
    name: "RangeError",
    message: /must be one of auto, software, gpu, matrix: current "fast"/,
  });
});

test("the configured backend has the family that is asked for", async () => {
  const { family } = await testBackend();
  if (KERNELS === "matrix") assert.equal(family, "gpu");
  else if (KERNELS !== "auto") assert.equal(family, KERNELS);
  else if (BACKEND === "cpu") assert.equal(family, "software");
});

test("openBackend() passes the family on", async () => {
  for (const kernels of ["software", "gpu"] as const) {
    using cpu = await openBackend({ backend: "cpu", kernels });
    assert.equal(cpu.family, kernels);
    if (BACKEND === "webgpu") {
      using own = await openBackend({
        backend: "webgpu",
        device: DEVICE,
        kernels,
      });
      assert.equal(own.family, kernels);
    }
  }
});

test("openBackend() has no matrix units on the cpu", () =>
  assert.rejects(openBackend({ backend: "cpu", kernels: "matrix" }), {
    name: "NoDeviceError",
    message: /units on cpu: they belong to GPUs/,
  }));

test("openBackend() does not go on without matrix units on the cpu", async () => {
  try {
    using own = await openBackend({ kernels: "matrix" });
    assert.ok(own.matrix); // an adapter that has some
  } catch (error) {
    assert.equal((error as Error).name, "NoDeviceError");
  }
});

if (BACKEND === "webgpu" && DEVICE === "native") {
  test("openBackend() is not content with less than matrix units", () =>
    assert.rejects(openBackend({ device: DEVICE, kernels: "matrix" }), {
      name: "NoDeviceError",
      message: /lacks .*chromium-experimental-subgroup-matrix; leave --kernels/,
    }));
}

if (BACKEND === "webgpu") {
  test("WebGpu.open() takes the software family on a fallback adapter, gpu on others", async () => {
    using own = await WebGpu.open({ device: DEVICE });
    const { isFallbackAdapter } = own.adapter.info;
    assert.equal(own.family, isFallbackAdapter ? "software" : "gpu");
  });
}
