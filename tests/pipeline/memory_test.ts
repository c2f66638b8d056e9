import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  chooseMemory,
  estimateMemory,
  type MemoryEstimate,
  storageTypes,
} from "../../pipeline/memory.ts";
import {
  checkForModel,
  memoryLimits,
  planMemory,
} from "../../pipeline/model_request.ts";
import { open } from "../../pipeline/model.ts";
import { describeModel } from "../../pipeline/model_facts.ts";
import type { FullRequest } from "../../pipeline/request.ts";
import { Cpu } from "../../kernels/cpu.ts";

const facts = await describeModel("tiny-scenes");
const limits = { maxTensorBytes: Infinity };

function request(size: number, more: object = {}): FullRequest {
  return checkForModel({
    prompt: "a red car",
    regions: [{ phrase: "red car", boxes: [[0, 0, 0.5, 0.5]] }],
    width: size,
    height: size,
    ...more,
  }, facts).request;
}

test("chooseMemory() takes the fastest way where nothing is scarce", async () => {
  const { choice } = await chooseMemory(facts, request(128), limits, ["f32"]);
  assert.deepEqual(choice, {
    weights: "f32",
    freeText: false,
    together: true,
    recompute: false,
    tile: undefined,
  });
});

test("chooseMemory() gives up speed step by step, and refuses with numbers", async () => {
  const wanted = request(256);
  let bytes = 1e12;
  const seen: MemoryEstimate[] = [];
  for (;;) {
    try {
      const found = await chooseMemory(
        facts,
        wanted,
        { ...limits, bytes },
        ["f32", "f16"],
      );
      assert.ok(found.peakBytes <= bytes);
      // What was chosen takes what it says.
      const again = await estimateMemory(facts, wanted, found.choice);
      assert.equal(again.peakBytes, found.peakBytes);
      seen.push(found);
      bytes = found.peakBytes - 1;
    } catch (error) {
      const least = Math.min(...seen.map((s) => s.peakBytes));
      assert.equal((error as Error).name, "DeviceMemoryError");
      assert.match(
        (error as Error).message,
        /^Cannot paint 256x256 with tiny-scenes: it must fit [\d.]+ GB of device memory: current least is ([\d.]+) GB \(weights/,
      );
      assert.ok(
        (error as Error).message.includes(`${(least / 1e9).toFixed(2)} GB`),
      );
      break;
    }
  }
  assert.ok(seen.length >= 4, `${seen.length} ways`);
  assert.equal(seen[0]!.choice.weights, "f32");
  const last = seen.at(-1)!.choice;
  assert.equal(last.weights, "f16");
  assert.ok(last.tile !== undefined && last.tile < 64);
});

test("chooseMemory() cuts the decoder where a tensor could not be bound", async () => {
  const wanted = request(512); // 128 latent cells
  const whole = await estimateMemory(facts, wanted, { weights: "f32" });
  const maxTensorBytes = whole.largestTensorBytes - 1;
  const found = await chooseMemory(facts, wanted, { maxTensorBytes }, ["f32"]);
  assert.equal(found.choice.tile, 64);
  assert.ok(found.largestTensorBytes <= maxTensorBytes);
  await assert.rejects(
    () => chooseMemory(facts, wanted, { maxTensorBytes: 1e5 }, ["f32"]),
    { name: "DeviceMemoryError", message: /binding limit of 100000 bytes/ },
  );
});

test("storageTypes() keeps small models in f32 and large ones in what their files have", () => {
  assert.deepEqual(storageTypes("f16", 1, 32), ["f16"]);
  assert.deepEqual(storageTypes("auto", 1e8, 16), ["f32", "f16"]);
  assert.deepEqual(storageTypes("auto", 4e9, 16), ["f16"]);
  assert.deepEqual(storageTypes("auto", 4e9, 32), ["f32", "f16"]);
});

test("planMemory() takes the guided picture of the model's own size if none is given", async () => {
  const own = await planMemory(facts, limits);
  const same = await planMemory(facts, limits, { request: request(128) });
  assert.ok(Math.abs(own.peakBytes / same.peakBytes - 1) < 0.01);
  assert.ok(own.weights > 2e7 && own.sampling > own.weights);
});

test("a model refuses a picture that cannot fit before it computes anything", async () => {
  const backend = new Cpu();
  const limited = await memoryLimits(backend, { memoryBytes: 1e6 });
  await assert.rejects(() => planMemory(facts, limited), {
    name: "DeviceMemoryError",
  });
  await using model = await open("tiny-scenes", {
    backend,
    weights: "f16",
    memoryBytes: 3e7,
  });
  let passes = 0;
  await assert.rejects(
    () =>
      model.generate({ prompt: "a red car", width: 512, height: 512 }, {
        onPass: () => passes++,
      }),
    { name: "DeviceMemoryError", message: /Cannot paint 512x512/ },
  );
  assert.equal(passes, 0);
});

test("a plan compiles the tiles that the device has", async () => {
  using backend = new Cpu("gpu");
  for (const halfTiles of [false, true]) {
    backend.halfTiles = halfTiles;
    const found = await memoryLimits(backend, { memoryBytes: 1e12 });
    const { kernels } = await planMemory(facts, found, { weights: "f16" });
    const names = kernels.map(({ kernel: { name } }) => name);
    assert.equal(names.some((name) => name.endsWith("_half")), halfTiles);
  }
});
