/** Names, shapes and configs of published single files at full size, from headers without any data. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { FULL_CONFIGS } from "../../bench/full_configs.ts";
import type { ComponentName } from "../../weights/component.ts";
import { SingleFile } from "../../weights/single_file.ts";
import { headerOnly } from "./header_only.ts";
import { networkShapes } from "./network_shapes.ts";
import { type Family, type Tensors, toLdm } from "./to_ldm.ts";

type Config = Readonly<Record<string, unknown>>;
type Shapes = ReadonlyMap<string, readonly number[]>;

const { sd15, sdxl } = FULL_CONFIGS;

/** stabilityai/stable-diffusion-2-1, as far as it differs from SD1.5. */
const SD21: Readonly<Record<string, Config>> = {
  unet: {
    ...sd15.parts["unet"],
    attention_head_dim: [5, 10, 20, 20],
    cross_attention_dim: 1024,
    sample_size: 96,
    use_linear_projection: true,
  },
  vae: { ...sd15.parts["vae"], sample_size: 768 },
  text_encoder: {
    hidden_act: "gelu",
    hidden_size: 1024,
    intermediate_size: 4096,
    max_position_embeddings: 77,
    num_attention_heads: 16,
    num_hidden_layers: 23,
    vocab_size: 49408,
  },
};

/** Tensors and numbers of the published components; undefined where not known for certain. */
const MODELS: readonly {
  readonly family: Family;
  /** SD2: the file holds the text encoder's last layer, which is not used. */
  readonly lastLayer?: boolean;
  readonly parts: Readonly<Record<string, Config>>;
  readonly counts: Readonly<
    Record<string, readonly [tensors: number, values: number | undefined]>
  >;
}[] = [
  {
    family: "sd1",
    parts: sd15.parts,
    counts: {
      unet: [686, 859_520_964],
      vae: [248, 83_653_863],
      text_encoder: [196, 123_060_480],
    },
  },
  {
    family: "sd2",
    lastLayer: true,
    parts: SD21,
    counts: {
      unet: [686, 865_910_724],
      vae: [248, 83_653_863],
      text_encoder: [372, undefined],
    },
  },
  {
    family: "sd2",
    parts: SD21,
    counts: {
      unet: [686, 865_910_724],
      vae: [248, 83_653_863],
      text_encoder: [372, undefined],
    },
  },
  {
    family: "sdxl",
    parts: sdxl.parts,
    counts: {
      unet: [1680, 2_567_463_684],
      vae: [248, 83_653_863],
      text_encoder: [196, 123_060_480],
      text_encoder_2: [517, undefined],
    },
  },
];

for (const { family, lastLayer = false, parts, counts } of MODELS) {
  const name = family + (lastLayer ? " with its last layer" : "");
  test(`SingleFile knows every tensor of ${name} at full size`, async () => {
    const wanted: Record<string, Shapes> = {};
    for (const [part, config] of Object.entries(parts)) {
      wanted[part] = await networkShapes(part, config);
    }
    await using file = await SingleFile.fromSource(
      headerOnly(singleFile(family, lastLayer, wanted, parts)),
      "full.safetensors",
    );
    assert.equal(file.family, family);
    for (const [part, config] of Object.entries(parts)) {
      const component = await file.component(part as ComponentName);
      const shapes = new Map(
        [...component.tensors].map(([name, { shape }]) => [name, shape]),
      );
      assert.deepEqual(sorted(shapes), sorted(wanted[part]!));
      const values = [...shapes.values()].reduce(
        (sum, shape) => sum + shape.reduce((a, b) => a * b, 1),
        0,
      );
      const [tensors, published] = counts[part]!;
      assert.equal(shapes.size, tensors);
      if (published !== undefined) assert.equal(values, published);
      for (const [key, value] of Object.entries(config)) {
        assert.deepEqual(component.config[key], value, `${part} ${key}`);
      }
    }
    if (family === "sd2") return; // told apart by its prediction, see ldm_prediction_test.ts
    const full = family === "sd1" ? sd15 : sdxl;
    const scheduler = await file.json("scheduler/scheduler_config.json");
    for (const [key, value] of Object.entries(full.scheduler)) {
      // The sampler is chosen elsewhere: all start from the same betas.
      if (key === "_class_name" || key === "skip_prk_steps") continue;
      assert.deepEqual((scheduler as Config)[key], value, key);
    }
    for (const [key, value] of Object.entries(full.index)) {
      if (key !== "scheduler") assert.deepEqual(file.index[key], value);
    }
  });
}

function sorted(shapes: Shapes): [string, readonly number[]][] {
  return [...shapes].toSorted(([a], [b]) => a < b ? -1 : 1);
}

/** Names and shapes of the single file. */
function singleFile(
  family: Family,
  lastLayer: boolean,
  wanted: Readonly<Record<string, Shapes>>,
  parts: Readonly<Record<string, Config>>,
): [string, readonly number[]][] {
  const empty = Object.fromEntries(
    Object.entries(wanted).map(([part, shapes]) => [
      part,
      // toLdm() moves data about, and here there is none: shapes are all that counts.
      new Map([...shapes].map(([name, shape]) => [
        name,
        { dtype: "F16", shape, data: new Uint8Array(0) },
      ])) as Tensors,
    ]),
  );
  const tensors = toLdm(family, empty, parts);
  for (const [name, tensor] of lastLayer ? [...tensors] : []) {
    tensors.set(name.replace(".resblocks.22.", ".resblocks.23."), tensor);
  }
  return [...tensors].map(([name, { shape }]) => [name, shape]);
}
