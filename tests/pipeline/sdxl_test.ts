/** What an SDXL checkpoint's small files must say, what its requests may say, and SD2.x configs. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { checkForModel } from "../../pipeline/model_request.ts";
import { describeModel, type ModelFacts } from "../../pipeline/model_facts.ts";
import { endOfText } from "../../pipeline/text_encoder.ts";
import { attentionSites, unetConfig } from "../../pipeline/unet_config.ts";
import { tinySdxl, type TinySdxlOptions } from "../tiny_sdxl.ts";
import { tempFolder } from "../weights/temp_folder.ts";

async function describe(options: TinySdxlOptions = {}): Promise<ModelFacts> {
  await using folder = await tempFolder(await tinySdxl(options));
  return await describeModel(folder.path);
}

test("describeModel() knows an SDXL folder: sizes, presets, both tokenizers", async () => {
  const facts = await describe();
  const { limits, tokenizers, zeroNegative, unet } = facts;
  assert.deepEqual(limits.size, [64, 64]);
  assert.equal(limits.multiple, 4);
  assert.equal(limits.takesSizes, true);
  assert.equal(limits.presets.model.guidanceScale, 5);
  assert.equal(limits.presets.paper.guidanceScale, 7.5);
  assert.deepEqual(tokenizers.map((t) => t.pad === 0), [false, true]);
  assert.equal(zeroNegative, true);
  assert.deepEqual(unet.added, { pooled: 32, timeChannels: 8 });
  assert.equal(
    (await describe({ index: { force_zeros_for_empty_prompt: false } }))
      .zeroNegative,
    false,
  );
});

test("a phrase that the two tokenizers have at other positions is an error", async () => {
  const facts = await describe();
  const check = (prompt: string) =>
    checkForModel({
      prompt,
      regions: [{ phrase: "red car", boxes: [[0, 0, 0.5, 0.5]] }],
    }, facts).matches[0]!.positions;
  assert.deepEqual(check("a red car!!"), [2, 3]);
  // "!!" is one piece, but for the tokenizer that pads with "!", which it never merges.
  assert.throws(() => check("wow!! red car"), {
    name: "RangeError",
    message:
      /^Cannot place "red car": both tokenizers .* same positions: current \[5,6\] and \[6,7\]/,
  });
});

for (
  const [what, options, message] of [
    [
      "text states",
      { configs: { unet: { cross_attention_dim: 48 } } },
      /cross_attention_dim must be .* 16 \+ 24: current 48/,
    ],
    [
      "pooled text",
      { configs: { text_encoder_2: { projection_dim: 24 } } },
      /_input_dim must be .* 24 \+ 6 \* 8: current 80/,
    ],
    ["added channels", {
      configs: { unet: { projection_class_embeddings_input_dim: 48 } },
    }, /current 48 and 8/],
    [
      "pipeline",
      { index: { _class_name: "StableDiffusionPipeline" } },
      /must both be SDXL's or neither/,
    ],
    [
      "refiner",
      { index: { _class_name: "StableDiffusionXLImg2ImgPipeline" } },
      /_class_name must be/,
    ],
  ] as const
) {
  test(`describeModel() refuses networks that do not fit: ${what}`, async () => {
    // Changed after the weights are made: our own networks refuse some of these configs.
    const files = await tinySdxl();
    const changed: TinySdxlOptions = options;
    for (const [part, keys] of Object.entries(changed.configs ?? {})) {
      const path = `${part}/config.json`;
      files[path] = JSON.stringify({
        ...JSON.parse(files[path] as string),
        ...keys,
      });
    }
    files["model_index.json"] = JSON.stringify({
      ...JSON.parse(files["model_index.json"] as string),
      ...changed.index,
    });
    await using folder = await tempFolder(files);
    await assert.rejects(describeModel(folder.path), {
      name: "WeightsError",
      message,
    });
  });
}

test("endOfText() is transformers' rule", () => {
  const ids = Int32Array.of(520, 3, 521, 0, 521);
  assert.equal(endOfText(ids, 2), 2); // the largest, at its first
  assert.equal(endOfText(ids, 521), 2);
  assert.equal(endOfText(ids, 0), 3);
  assert.equal(endOfText(ids, 7), 0); // absent
});

test("unetConfig() reads the published config of Stable Diffusion 2.1", () => {
  const config = unetConfig({
    _class_name: "UNet2DConditionModel",
    act_fn: "silu",
    attention_head_dim: [5, 10, 20, 20],
    block_out_channels: [320, 640, 1280, 1280],
    center_input_sample: false,
    cross_attention_dim: 1024,
    down_block_types: [
      "CrossAttnDownBlock2D",
      "CrossAttnDownBlock2D",
      "CrossAttnDownBlock2D",
      "DownBlock2D",
    ],
    downsample_padding: 1,
    dual_cross_attention: false,
    flip_sin_to_cos: true,
    freq_shift: 0,
    in_channels: 4,
    layers_per_block: 2,
    mid_block_scale_factor: 1,
    norm_eps: 1e-5,
    norm_num_groups: 32,
    num_attention_heads: null,
    num_class_embeds: null,
    only_cross_attention: false,
    out_channels: 4,
    sample_size: 96,
    up_block_types: [
      "UpBlock2D",
      "CrossAttnUpBlock2D",
      "CrossAttnUpBlock2D",
      "CrossAttnUpBlock2D",
    ],
    upcast_attention: true,
    use_linear_projection: true,
  }, "sd21/unet");
  assert.deepEqual(config.heads, [5, 10, 20, 20]);
  assert.equal(config.text, 1024);
  assert.equal(config.added, undefined);
  assert.equal(
    attentionSites(config).filter((s) => s.kind === "cross").length,
    16,
  );
});
