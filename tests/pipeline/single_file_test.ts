/** A picture from a single file is the picture from the diffusers folder with the same weights. */
import { strict as assert } from "node:assert";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { open, type OpenOptions } from "../../pipeline/model.ts";
import type { GenerateRequest } from "../../pipeline/request.ts";
import type { ComponentName } from "../../weights/component.ts";
import { openFolder } from "../../weights/folder.ts";
import { encodeSafetensors } from "../weights/encode_safetensors.ts";
import { tempFolder } from "../weights/temp_folder.ts";
import { fileOf, TINY, tinyLdm } from "../weights/tiny_ldm.ts";
import { type Family, type Tensors, toLdm } from "../weights/to_ldm.ts";

const GOLDEN = fileURLToPath(
  new URL("../fixtures/golden/tiny-random-pipeline", import.meta.url),
);

/** One guided step and one plain one, on the references; or `again`, once the text encoder was freed. */
async function paint(
  location: string,
  side: number,
  options: OpenOptions = {},
  again = false,
): Promise<{ rgb: Uint8Array; name: string }> {
  await using model = await open(location, { backend: "cpu", ...options });
  const request: GenerateRequest = {
    prompt: "a red car",
    negativePrompt: "blurry",
    regions: [{ phrase: "red car", boxes: [[0, 0, 0.5, 1]] }],
    width: side,
    height: side,
    steps: 2,
    seed: 3,
    guidance: { steps: 1, iterations: 1 },
  };
  if (again) await model.generate(request, { memory: { freeText: true } });
  const { rgb } = await model.generate(request);
  return { rgb, name: model.name };
}

test("open() paints the same from a single file as from the golden folder", async () => {
  const parts: Record<string, Tensors> = {};
  const configs: Record<string, Record<string, unknown>> = {};
  await using folder = await openFolder(GOLDEN);
  for (const part of ["unet", "vae", "text_encoder"] as ComponentName[]) {
    const component = await folder.component(part);
    const tensors: Tensors = parts[part] = new Map();
    for (const { name, dtype, shape } of component.tensors.values()) {
      tensors.set(name, {
        dtype,
        shape,
        data: await component.readBytes(name),
      });
    }
    configs[part] = component.config;
  }
  await using temp = await tempFolder({
    "tiny.safetensors": fileOf(toLdm("sd1", parts, configs)),
  });
  const single = join(temp.path, "tiny.safetensors");
  // Its heads and groups are none of SD1's.
  const configOverrides = {
    unet: { attention_head_dim: 2, norm_num_groups: 8, sample_size: 16 },
    vae: { norm_num_groups: 4 },
    text_encoder: { num_attention_heads: 3 },
  };
  const expected = await paint(GOLDEN, 32);
  const { rgb, name } = await paint(single, 32, { configOverrides }, true);
  assert.equal(name, "tiny");
  assert.deepEqual(rgb, expected.rgb);
  const other = await paint(single, 32, {
    configOverrides,
    prediction: "v_prediction",
  });
  assert.notDeepEqual(other.rgb, expected.rgb);
});

/** What the published folders of each family say beside the networks' own configs. */
const FOLDERS: Readonly<
  Record<Family, {
    readonly index: Readonly<Record<string, unknown>>;
    readonly prediction: string;
    readonly scale: number;
    readonly padding: readonly string[];
  }>
> = {
  sd1: {
    index: { _class_name: "StableDiffusionPipeline" },
    prediction: "epsilon",
    scale: 0.18215,
    padding: ["<|endoftext|>"],
  },
  sd2: {
    index: { _class_name: "StableDiffusionPipeline" },
    prediction: "v_prediction",
    scale: 0.18215,
    padding: ["!"],
  },
  sdxl: {
    index: {
      _class_name: "StableDiffusionXLPipeline",
      force_zeros_for_empty_prompt: true,
      text_encoder_2: ["transformers", "CLIPTextModelWithProjection"],
    },
    prediction: "epsilon",
    scale: 0.13025,
    padding: ["<|endoftext|>", "!"],
  },
};

/** Writes a diffusers folder of a tiny checkpoint. */
async function writeFolder(
  family: Family,
  parts: Readonly<Record<string, Tensors>>,
  path: string,
): Promise<void> {
  const { index, prediction, scale, padding } = FOLDERS[family];
  const tokenizer = JSON.parse(
    await readFile(join(GOLDEN, "tokenizer/tokenizer_config.json"), "utf8"),
  );
  for (const [i, pad_token] of padding.entries()) {
    const to = join(path, i === 0 ? "tokenizer" : "tokenizer_2");
    await cp(join(GOLDEN, "tokenizer"), to, { recursive: true });
    const text = JSON.stringify({ ...tokenizer, pad_token });
    await writeFile(join(to, "tokenizer_config.json"), text);
  }
  const files: Record<string, string | Uint8Array> = {
    "model_index.json": JSON.stringify({
      unet: ["diffusers", "UNet2DConditionModel"],
      vae: ["diffusers", "AutoencoderKL"],
      text_encoder: ["transformers", "CLIPTextModel"],
      ...index,
    }),
    "scheduler/scheduler_config.json": JSON.stringify({
      beta_start: 0.00085,
      beta_end: 0.012,
      beta_schedule: "scaled_linear",
      clip_sample: false,
      prediction_type: prediction,
      set_alpha_to_one: false,
      steps_offset: 1,
    }),
  };
  for (const [part, tensors] of Object.entries(parts)) {
    const config = {
      ...TINY[family][part],
      ...part === "vae" ? { scaling_factor: scale } : {},
    };
    files[`${part}/config.json`] = JSON.stringify(config);
    const base = part.startsWith("text") ? "model" : "diffusion_pytorch_model";
    files[`${part}/${base}.safetensors`] = encodeSafetensors(tensors);
  }
  await using written = await tempFolder(files);
  await cp(written.path, path, { recursive: true });
}

for (const family of ["sd1", "sd2", "sdxl"] as const) {
  test(`open() paints the same from a single file of ${family} as from its folder`, async () => {
    const { parts, ldm } = await tinyLdm(family);
    await using temp = await tempFolder({ "one.safetensors": fileOf(ldm) });
    const folder = join(temp.path, "folder");
    await writeFolder(family, parts, folder);
    const { rgb } = await paint(join(temp.path, "one.safetensors"), 16);
    assert.ok(new Set(rgb).size > 16, "a picture must have something in it");
    assert.deepEqual(rgb, (await paint(folder, 16)).rgb);
  });
}
