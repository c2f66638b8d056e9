import { strict as assert } from "node:assert";
import process from "node:process";
import { test } from "node:test";
import {
  checkLimits,
  describeAdapters,
  type DeviceChoice,
  openAdapter,
  requestDevice,
} from "../../kernels/adapter.ts";
import { NoDeviceError } from "../../kernels/errors.ts";

const WGSL = /* wgsl */ `
override WG: u32 = 64u;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&x)) { y[id.x] = 2.0 * x[id.x] + f32(id.x); }
}`;

const device = process.env.WINWINLAY_TEST_DEVICE as DeviceChoice | undefined;
const options = device ? { device } : {};

/** y[i] = 2 x[i] + i on the device. */
async function run(device: GPUDevice, x: Float32Array<ArrayBuffer>) {
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const size = x.byteLength;
  const input = device.createBuffer({ size, usage: STORAGE | COPY_DST });
  const output = device.createBuffer({ size, usage: STORAGE | COPY_SRC });
  const back = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(input, 0, x);
  const pipeline = await device.createComputePipelineAsync({
    layout: "auto",
    compute: {
      module: device.createShaderModule({ code: WGSL }),
      constants: { WG: 256 },
    },
  });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [
      { binding: 0, resource: { buffer: input } },
      { binding: 1, resource: { buffer: output } },
    ],
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(Math.ceil(x.length / 256));
  pass.end();
  encoder.copyBufferToBuffer(output, 0, back, 0, size);
  device.queue.submit([encoder.finish()]);
  await back.mapAsync(GPUMapMode.READ);
  const y = new Float32Array(back.getMappedRange().slice(0));
  for (const buffer of [input, output, back]) buffer.destroy();
  return y;
}

// Needs a GPU: tests/run.ts runs this file for every WebGPU configuration
if (process.env.WINWINLAY_TEST_BACKEND !== "cpu") {
  test("requestDevice() gives a device that computes, twice from one adapter", async () => {
    const opened = await openAdapter(options);
    assert.equal(opened.choice, device ?? opened.choice);
    assert.notEqual(opened.info.description, "");
    const x = Float32Array.from({ length: 1009 }, (_, i) => Math.fround(i / 7));
    for (let round = 0; round < 2; round++) {
      const gpu = await requestDevice(opened);
      try {
        // Doubling is exact in f32, the sum is one correctly rounded addition
        const y = await run(gpu, x);
        assert.deepEqual(y, x.map((value, i) => Math.fround(2 * value + i)));
      } finally {
        gpu.destroy();
      }
    }
  });

  test("requestDevice() asks for the adapter's limits and for features it has", async () => {
    const opened = await openAdapter(options);
    const features = ["timestamp-query", "no-such-feature"];
    const gpu = await requestDevice(opened, { features });
    try {
      const { limits } = opened;
      assert.equal(
        gpu.limits.maxStorageBufferBindingSize,
        limits.maxStorageBufferBindingSize,
      );
      assert.ok(gpu.limits.maxComputeInvocationsPerWorkgroup >= 256);
      assert.equal(
        gpu.features.has("timestamp-query"),
        opened.features.includes("timestamp-query"),
      );
      assert.equal(gpu.features.has("shader-f16"), false);
    } finally {
      gpu.destroy();
    }
  });

  test("openAdapter() stops when the signal is aborted", async () => {
    const signal = AbortSignal.abort(new Error("stop"));
    await assert.rejects(openAdapter({ ...options, signal }), /stop/);
  });

  test("describeAdapters() finds the configured device and gives a reason for a missing one", async () => {
    const reports = await describeAdapters();
    assert.deepEqual(reports.map((r) => r.choice), ["native", "dawn"]);
    const chosen = (await openAdapter(options)).choice;
    for (const report of reports) {
      if (report.found) assert.ok(report.limits.maxBufferSize);
      else assert.notEqual(report.reason, "");
      if (report.choice === chosen) assert.ok(report.found);
    }
  });

  test("checkLimits() names the limit that is too small, and passes the least allowed", () => {
    const least = {
      maxComputeInvocationsPerWorkgroup: 256,
      maxComputeWorkgroupSizeX: 256,
      maxComputeWorkgroupStorageSize: 16384,
      maxStorageBuffersPerShaderStage: 8,
    };
    checkLimits(least, "a device");
    for (const [name, limit] of Object.entries(least)) {
      assert.throws(
        () => checkLimits({ ...least, [name]: limit - 1 }, "a device"),
        (error) =>
          error instanceof NoDeviceError && error.message.includes(name),
      );
    }
  });
}
