/** Single files as they are found: what may lie in them, and what makes them unusable. */
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { Cpu } from "../../kernels/cpu.ts";
import { loadVae } from "../../pipeline/vae.ts";
import { WeightsError } from "../../weights/errors.ts";
import { openCheckpoint } from "../../weights/open_checkpoint.ts";
import { SingleFile } from "../../weights/single_file.ts";
import type { TensorData } from "./encode_safetensors.ts";
import { headerOnly } from "./header_only.ts";
import { MemorySource } from "./memory_source.ts";
import { tempFolder } from "./temp_folder.ts";
import { fileOf, tinyLdm } from "./tiny_ldm.ts";
import type { Family, Tensors } from "./to_ldm.ts";

if ("Deno" in globalThis) Deno.test.sanitizer({ ops: true, resources: true });

const BASES: Readonly<Record<Family, Tensors>> = {
  sd1: (await tinyLdm("sd1")).ldm,
  sd2: (await tinyLdm("sd2")).ldm,
  sdxl: (await tinyLdm("sdxl")).ldm,
};

/** A tensor of zeros. */
function zeros(...shape: number[]): TensorData {
  const size = shape.reduce((a, b) => a * b, 1);
  return { dtype: "F16", shape, data: new Uint16Array(size) };
}

async function openChanged(
  family: Family,
  change: (tensors: Tensors) => void,
): Promise<SingleFile> {
  const tensors = new Map(BASES[family]);
  change(tensors);
  const source = new MemorySource(fileOf(tensors));
  try {
    return await SingleFile.fromSource(source, "x.safetensors");
  } catch (error) {
    assert.ok(source.closed, "a file that is refused must be closed");
    throw error;
  }
}

const HARMLESS: readonly (readonly [Family, ...names: string[]])[] = [
  ["sd1", "model_ema.diffusion_modelinput_blocks00weight", "model_ema.decay"],
  ["sd1", "model_ema.num_updates", "first_stage_model.model_ema.decay"],
  ["sd1", "betas", "alphas_cumprod", "alphas_cumprod_prev", "logvar"],
  ["sd1", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"],
  ["sd1", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod"],
  ["sd1", "posterior_variance", "posterior_mean_coef1", "lvlb_weights"],
  ["sd1", "optimizer_states.0.state.1.exp_avg", "optimizer.param_groups"],
  ["sd1", "first_stage_model.loss.discriminator.main.0.weight"],
  ["sd1", "cond_stage_model.transformer.text_model.embeddings.position_ids"],
  ["sd1", "cond_stage_model.logit_scale", "cond_stage_model.text_projection"],
  ["sd1", "cond_stage_model.transformer.vision_model.post_layernorm.bias"],
  ["sd1", "embedding_manager.string_to_param_dict.*"],
  ["sd2", "cond_stage_model.model.logit_scale"],
  ["sd2", "cond_stage_model.model.visual.conv1.weight"],
  ["sd2", "cond_stage_model.model.attn_mask"],
  ["sdxl", "denoiser.sigmas", "conditioner.embedders.1.model.logit_scale"],
  [
    "sdxl",
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
  ],
];

for (const [family, ...names] of HARMLESS) {
  test(`SingleFile leaves out ${names.join(", ")} of ${family}`, async () => {
    await using file = await openChanged(family, (tensors) => {
      for (const name of names) tensors.set(name, zeros(2));
    });
    await using plain = await openChanged(family, () => {});
    for (const part of ["unet", "vae", "text_encoder"] as const) {
      const { tensors, config } = await file.component(part);
      const bare = await plain.component(part);
      assert.deepEqual([...tensors.keys()], [...bare.tensors.keys()]);
      assert.deepEqual(config, bare.config);
    }
  });
}

const UNET = "model.diffusion_model.";
const DEEP = `${UNET}middle_block.0.in_layers.2.weight`;

/** Renames whatever a pattern finds. */
const rename = (from: RegExp, to: string) => (tensors: Tensors): void => {
  for (const [name, tensor] of [...tensors]) {
    if (!from.test(name)) continue;
    tensors.delete(name);
    tensors.set(name.replace(from, to), tensor);
  }
};
const remove = (names: RegExp) => (tensors: Tensors): void => {
  for (const name of [...tensors.keys()]) {
    if (names.test(name)) tensors.delete(name);
  }
};
const only = (...entries: [string, TensorData][]) => (tensors: Tensors) => {
  tensors.clear();
  for (const [name, tensor] of entries) tensors.set(name, tensor);
};
const add = (name: string, tensor = zeros(2)) => (tensors: Tensors): void =>
  void tensors.set(name, tensor);

const REFUSED: readonly (readonly [
  what: string,
  change: (tensors: Tensors) => void,
  message: RegExp,
  family?: Family,
])[] = [
  [
    "a missing tensor",
    remove(/^model\.diffusion_model\.middle_block\.0\.in_layers\.2\.weight$/),
    /must hold tensor model\.diffusion_model\.middle_block\.0\.in_layers\.2\.weight \(diffusers: mid_block\.resnets\.0\.conv1\.weight, \[64,64,3,3\]\): current file lacks it$/,
  ],
  [
    "several missing tensors",
    remove(/^first_stage_model\.decoder\.mid\.block_1\./),
    /decoder\.mid_block\.resnets\.0\.norm1\.weight.*lacks it and 7 others of its network$/,
  ],
  [
    "a tensor of another shape",
    add(DEEP, zeros(64, 64, 1, 1)),
    /tensor model\.diffusion_model\.middle_block\.0\.in_layers\.2\.weight \(diffusers: mid_block\.resnets\.0\.conv1\.weight\) must be \[64,64,3,3\]: current shape is \[64,64,1,1\]$/,
  ],
  [
    "fused projections of another shape",
    add(
      "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias",
      zeros(64),
    ),
    /in_proj_bias \(diffusers: text_model\.encoder\.layers\.1\.self_attn\.q_proj\.bias\) must be \[192\]: current shape is \[64\]$/,
    "sd2",
  ],
  [
    "a text projection that is not transposed",
    add("conditioner.embedders.1.model.text_projection", zeros(96, 64)),
    /model\.text_projection \(diffusers: text_projection\.weight\) must be \[64,64\]: current shape is \[96,64\]$/,
    "sdxl",
  ],
  [
    "an unknown tensor",
    add("model.diffusion_model.hypernetwork.weight"),
    /every tensor must belong to its UNet, VAE or text encoder: current file has 1 others: "model\.diffusion_model\.hypernetwork\.weight"$/,
  ],
  [
    "an attention block too many",
    (tensors) => {
      for (const [name, tensor] of [...tensors]) {
        const more = name.replace(
          "middle_block.1.transformer_blocks.0.attn",
          "middle_block.1.transformer_blocks.1.attn",
        );
        if (more !== name) tensors.set(more, tensor);
      }
    },
    /current file has 10 others: "model\.diffusion_model\.middle_block\.1\.transformer_blocks\.1\.attn1/,
  ],
  [
    "a text encoder's last layer in SD1",
    add(
      "cond_stage_model.transformer.text_model.encoder.layers.2.mlp.fc1.bias",
    ),
    /has 1 others: "cond_stage_model/,
  ],
  [
    "LoRA leftovers in a merge",
    (tensors) => {
      add("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight")(tensors);
      add("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha")(tensors);
    },
    /a LoRA must be merged into the checkpoint, not lie beside it: current file has 2 of its tensors, such as "lora_unet_.*save the file again without them$/,
  ],
  [
    "a LoRA",
    only(["lora_unet_mid_block_attentions_0_proj_in.lora_up.weight", zeros(2)]),
    /current file is a LoRA, not a checkpoint; merge it/,
  ],
  [
    "a LoRA with diffusers' names",
    only(["unet.mid_block.attentions.0.proj_in.lora_A.weight", zeros(2)]),
    /current file is a LoRA, not a checkpoint/,
  ],
  [
    "inpainting",
    add(`${UNET}input_blocks.0.0.weight`, zeros(32, 9, 3, 3)),
    /an inpainting checkpoint, whose UNet takes 9 channels$/,
  ],
  [
    "InstructPix2Pix",
    add(`${UNET}input_blocks.0.0.weight`, zeros(32, 8, 3, 3)),
    /an InstructPix2Pix checkpoint, whose UNet takes 8 channels$/,
  ],
  [
    "depth to image",
    add(`${UNET}input_blocks.0.0.weight`, zeros(64, 5, 3, 3)),
    /a depth-to-image checkpoint/,
    "sd2",
  ],
  [
    "another number of channels",
    add(`${UNET}input_blocks.0.0.weight`, zeros(32, 12, 3, 3)),
    /of an unknown kind, whose UNet takes 12 channels$/,
  ],
  [
    "a refiner",
    rename(
      /^conditioner\.embedders\.1\.model\./,
      "conditioner.embedders.0.model.",
    ),
    /current file is an SDXL refiner$/,
    "sdxl",
  ],
  [
    "SD3",
    only([
      "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
      zeros(2),
    ]),
    /current file is a Stable Diffusion 3 checkpoint$/,
  ],
  [
    "Flux",
    only(["double_blocks.0.img_attn.qkv.weight", zeros(2)]),
    /current file is a Flux checkpoint or a relative of it$/,
  ],
  [
    "a ControlNet",
    only(["control_model.input_hint_block.0.weight", zeros(2)]),
    /current file is a ControlNet$/,
  ],
  [
    "a ControlNet inside",
    add("control_model.zero_convs.0.0.weight"),
    /a ControlNet$/,
  ],
  ["a motion module", add("motion_modules.0.weight"), /an AnimateDiff motion/],
  ["EDM", add("edm_mean", zeros(4)), /EDM's noise levels/, "sdxl"],
  ["CosXL", add("edm_vpred.sigma_max", zeros()), /EDM's noise levels/, "sdxl"],
  [
    "an embedding",
    only(["emb_params", zeros(2, 64)]),
    /a textual-inversion embedding$/,
  ],
  [
    "an IP-Adapter",
    only(["ip_adapter.1.to_k_ip.weight", zeros(2)]),
    /an IP-Adapter$/,
  ],
  [
    "a VAE alone",
    remove(/^(model|cond_stage_model)\./),
    /current file is a VAE$/,
  ],
  [
    "a VAE alone, without prefix",
    only(["encoder.conv_in.weight", zeros(2)], [
      "decoder.conv_in.weight",
      zeros(2),
    ]),
    /current file is a VAE$/,
  ],
  [
    "a text encoder alone",
    only(["text_model.final_layer_norm.weight", zeros(2)]),
    /current file is a text encoder$/,
  ],
  [
    "a UNet of a diffusers folder",
    only(["down_blocks.0.resnets.0.norm1.weight", zeros(2)]),
    /one network under diffusers' names; open the folder that it belongs to$/,
  ],
  [
    "a UNet alone",
    remove(/^(first_stage_model|cond_stage_model)\./),
    /one without a VAE \(first_stage_model\.\*\), a text encoder \(cond_stage_model\.\*, conditioner\.\*\)$/,
  ],
  [
    "a UNet without prefix",
    rename(/^model\.diffusion_model\./, "diffusion_model."),
    /whose UNet is under "diffusion_model\." instead of "model\.diffusion_model\."; save it under that name/,
  ],
  [
    "a prefix before everything",
    rename(/^/, "model."),
    /whose UNet is under "model\.model\.diffusion_model\."/,
  ],
  [
    "a text encoder under another name",
    rename(/^cond_stage_model\.transformer\./, "te."),
    /one without a text encoder \(.*\), but with 36 unknown tensors such as "te\.text_model/,
  ],
  [
    "a text encoder of another width",
    (tensors) => {
      remove(/^cond_stage_model\./)(tensors);
      for (const [name, tensor] of BASES.sd2) {
        if (name.startsWith("cond_stage_model.")) tensors.set(name, tensor);
      }
      for (const [name, { shape }] of [...tensors]) {
        if (/attn2\.to_[kv]\.weight/.test(name)) {
          tensors.set(name, zeros(shape[0]!, 48));
        }
      }
    },
    /its UNet must attend to the channels of its text encoders: current 48 of 64$/,
  ],
  [
    "a vocabulary that is not CLIP's",
    add(
      "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
      zeros(100, 64),
    ),
    /must have the 49408 rows of CLIP's vocabulary: current 100$/,
  ],
  [
    "input blocks that are no levels",
    remove(/\.input_blocks\.3\./),
    /must have levels of as many resnets each: current 3 input blocks with 1 downsamplers, the first after 1 resnets$/,
  ],
  [
    "a step that is no number",
    add("global_step", zeros(2)),
    /global_step must be one number: current shape is \[2\]$/,
  ],
];

for (const [what, change, message, family = "sd1"] of REFUSED) {
  test(`SingleFile refuses ${what}`, async () => {
    await assert.rejects(openChanged(family, change), (error: unknown) => {
      assert.ok(error instanceof WeightsError, String(error));
      assert.match(error.message, /^Cannot use memory\.safetensors: /);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("openCheckpoint() refuses pickle files and options that are for single files", async () => {
  await using temp = await tempFolder({ "v1.ckpt": "PK", "x.pt": "" });
  for (const name of ["v1.ckpt", "x.pt"]) {
    await assert.rejects(
      openCheckpoint(`${temp.path}/${name}`),
      /must be a \.safetensors file or a diffusers folder: current one is a pickle file.*convert it to safetensors$/,
    );
  }
  await assert.rejects(
    openCheckpoint(temp.path, { prediction: "epsilon" }),
    /must be for a single file: current one is a folder/,
  );
});

test("loadVae() reports a NaN of a single file under its name", async () => {
  const name = "first_stage_model.decoder.mid.attn_1.q.weight";
  const broken = BASES.sd1.get(name)!;
  const data = new Uint16Array(broken.data as Uint16Array);
  data[70] = 0x7e00;
  await using file = await openChanged("sd1", add(name, { ...broken, data }));
  const cpu = new Cpu();
  const vae = await file.component("vae");
  await assert.rejects(
    loadVae(cpu, vae),
    /^WeightsError: Cannot load .*\/vae: tensor decoder\.mid_block\.attentions\.0\.to_q\.weight must be finite: current value 70 is NaN$/,
  );
  await using whole = await openChanged("sd1", () => {});
  using _loaded = await loadVae(cpu, await whole.component("vae"));
});

test("SingleFile opens a damaged header or refuses it with a WeightsError, nothing else", async () => {
  let state = 20251125;
  const below = (n: number): number => { // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % n;
  };
  let refused = 0;
  for (let round = 0; round < 300; round++) {
    const base = BASES[(["sd1", "sd2", "sdxl"] as const)[round % 3]!];
    const shapes = new Map([...base].map(([name, { shape }]) => [name, shape]));
    const names = [...shapes.keys()];
    const pick = (): string => names[below(names.length)]!;
    for (let n = below(3); n >= 0; n--) {
      const name = pick();
      const shape = shapes.get(name) ?? [1];
      const changes = [
        () => shapes.delete(name),
        () => shapes.set(name, shapes.get(pick()) ?? []),
        () => shapes.set(name, shape.map((x) => below(2) ? x : below(9))),
        () => shapes.set(name, shape.slice(1)),
        () => shapes.set(name.replace(/\d/, `${below(10)}`), shape),
        () => shapes.set(name.slice(below(name.length)) || "x", shape),
      ];
      changes[below(changes.length)]!();
    }
    const source = headerOnly(shapes);
    try {
      await using _file = await SingleFile.fromSource(source, "x.safetensors");
    } catch (error) {
      assert.ok(error instanceof WeightsError, `${round}: ${error}`);
      refused++;
    }
    assert.ok(source.closed);
  }
  assert.ok(refused > 200 && refused < 300, `refused ${refused}`);
});
