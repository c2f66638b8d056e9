import { strict as assert } from "node:assert";
import { test } from "node:test";
import { scheduleConfig } from "../../pipeline/schedule_config.ts";
import { SingleFile } from "../../weights/single_file.ts";
import type { TensorData } from "./encode_safetensors.ts";
import { MemorySource } from "./memory_source.ts";
import { fileOf, tinyLdm } from "./tiny_ldm.ts";
import type { Family, Tensors } from "./to_ldm.ts";

type Prediction = "epsilon" | "v_prediction";

const BASES: Readonly<Record<Family, Tensors>> = {
  sd1: (await tinyLdm("sd1")).ldm,
  sd2: (await tinyLdm("sd2")).ldm,
  sdxl: (await tinyLdm("sdxl")).ldm,
};
const STEP = (n: number): TensorData => ({
  dtype: "I64",
  shape: [],
  data: new BigInt64Array([BigInt(n)]),
});
const MARK: TensorData = { dtype: "F32", shape: [0], data: new Uint8Array(0) };
const SPEC = (prediction?: string, architecture?: string) => ({
  ...prediction === undefined
    ? {}
    : { "modelspec.prediction_type": prediction },
  ...architecture === undefined ? {} : {
    "modelspec.architecture": architecture,
  },
});

async function openWith(
  family: Family,
  tensors: Readonly<Record<string, TensorData>>,
  metadata: Readonly<Record<string, string>>,
  prediction?: Prediction,
): Promise<SingleFile> {
  const all = new Map([...BASES[family], ...Object.entries(tensors)]);
  const source = new MemorySource(fileOf(all, metadata));
  return await SingleFile.fromSource(source, "x.safetensors", { prediction });
}

type Row = readonly [
  family: Family,
  tensors: Readonly<Record<string, TensorData>>,
  metadata: Readonly<Record<string, string>>,
  asked: Prediction | undefined,
  prediction: Prediction,
  side: number,
];

const ROWS: readonly Row[] = [
  ["sd1", {}, {}, undefined, "epsilon", 64],
  ["sd1", {}, SPEC("v"), undefined, "v_prediction", 64],
  ["sd1", {}, {}, "v_prediction", "v_prediction", 64],
  ["sdxl", {}, {}, undefined, "epsilon", 128],
  ["sdxl", { v_pred: MARK }, {}, undefined, "v_prediction", 128],
  ["sdxl", { v_pred: MARK }, SPEC("v"), undefined, "v_prediction", 128],
  ["sdxl", { v_pred: MARK }, SPEC("epsilon"), "epsilon", "epsilon", 128],
  ["sdxl", {}, SPEC("Epsilon"), undefined, "epsilon", 128],
  ["sdxl", {}, SPEC("edm"), "epsilon", "epsilon", 128],
  ["sd2", {}, {}, undefined, "v_prediction", 96],
  ["sd2", { global_step: STEP(110_000) }, {}, undefined, "v_prediction", 96],
  ["sd2", { global_step: STEP(875_000) }, {}, undefined, "epsilon", 64],
  ["sd2", {}, {}, "epsilon", "epsilon", 64],
  ["sd2", {}, SPEC("epsilon"), undefined, "epsilon", 64],
  [
    "sd2",
    {},
    SPEC(undefined, "stable-diffusion-v2-512"),
    undefined,
    "epsilon",
    64,
  ],
  [
    "sd2",
    { global_step: STEP(875_000) },
    SPEC(undefined, "stable-diffusion-v2-768-v"),
    undefined,
    "v_prediction",
    96,
  ],
];

for (const [family, tensors, metadata, asked, prediction, side] of ROWS) {
  const facts = [
    ...Object.keys(tensors),
    ...Object.values(metadata),
    ...asked ? [`asked for ${asked}`] : [],
  ];
  test(`SingleFile of ${family} with ${facts.join(", ") || "nothing more"} predicts ${prediction}`, async () => {
    await using file = await openWith(family, tensors, metadata, asked);
    assert.equal(file.prediction, prediction);
    const json = await file.json("scheduler/scheduler_config.json");
    const schedule = scheduleConfig(json as Record<string, unknown>, "x");
    assert.equal(schedule.prediction, prediction);
    assert.equal(schedule.zeroTerminalSnr, false);
    assert.equal(schedule.spacing, "leading");
    const { config } = await file.component("unet");
    assert.equal(config["sample_size"], side);
  });
}

test("SingleFile with ztsnr has a schedule that ends without signal, and starts there", async () => {
  const marks = { v_pred: MARK, ztsnr: MARK };
  await using file = await openWith("sdxl", marks, {});
  const json = await file.json("scheduler/scheduler_config.json");
  const schedule = scheduleConfig(json as Record<string, unknown>, "x");
  assert.deepEqual(
    [schedule.prediction, schedule.zeroTerminalSnr, schedule.spacing],
    ["v_prediction", true, "trailing"],
  );
});

const CONTRADICTIONS: readonly (readonly [
  tensors: Readonly<Record<string, TensorData>>,
  metadata: Readonly<Record<string, string>>,
  asked: Prediction | undefined,
  message: RegExp,
])[] = [
  [
    { v_pred: MARK },
    SPEC("epsilon"),
    undefined,
    /metadata and its tensor v_pred must agree: .*"epsilon"; say which with --prediction/,
  ],
  [
    {},
    SPEC("rf"),
    undefined,
    /prediction_type must be epsilon or v: current value is "rf"/,
  ],
  [
    { ztsnr: MARK },
    {},
    undefined,
    /\(tensor ztsnr\) must go with v-prediction/,
  ],
  [{ v_pred: MARK, ztsnr: MARK }, {}, "epsilon", /must go with v-prediction/],
];

for (const [tensors, metadata, asked, message] of CONTRADICTIONS) {
  test(`SingleFile refuses ${[...Object.keys(tensors), ...Object.values(metadata), asked].filter(Boolean).join(", ")}`, async () => {
    await assert.rejects(openWith("sdxl", tensors, metadata, asked), message);
  });
}

test("SingleFile takes the VAE's scale from the file where it is there", async () => {
  const scale: TensorData = {
    dtype: "F32",
    shape: [],
    data: new Float32Array([0.25]),
  };
  const scaleOf = async (tensors: Record<string, TensorData>) => {
    await using file = await openWith("sd1", tensors, {});
    return (await file.component("vae")).config["scaling_factor"];
  };
  assert.equal(await scaleOf({ scale_factor: scale }), 0.25);
  assert.equal(await scaleOf({}), 0.18215);
});
