// to_ldm: tensors under diffusers' names -> a single file's, the other way round than weights/ does it.
// Written after diffusers' scripts/convert_diffusers_to_original_{stable_diffusion,sdxl}.py, by
// replacing texts in names, so that a mistake in weights/ldm_names.ts is not repeated here.
import type { TensorData } from "./encode_safetensors.ts";

export type Tensors = Map<string, TensorData>;
export type Family = "sd1" | "sd2" | "sdxl";
type Config = Readonly<Record<string, unknown>>;

/** All networks of a pipeline, tensors by component. */
export function toLdm(
  family: Family,
  parts: Readonly<Record<string, Tensors>>,
  configs: Readonly<Record<string, Config>>,
): Tensors {
  const out: Tensors = new Map();
  for (const [name, tensor] of parts["unet"]!) {
    out.set(
      `model.diffusion_model.${unetName(name, configs["unet"]!)}`,
      tensor,
    );
  }
  const levels = (configs["vae"]!["block_out_channels"] as number[]).length;
  for (const [name, tensor] of parts["vae"]!) {
    const ldm = vaeName(name, levels);
    const kernel = /attn_1\.(q|k|v|proj_out)\.weight$/.test(ldm);
    const shape = [...tensor.shape, ...kernel ? [1, 1] : []];
    out.set(`first_stage_model.${ldm}`, { ...tensor, shape });
  }
  const clip = (part: string, prefix: string): void => {
    for (const [name, tensor] of parts[part]!) out.set(prefix + name, tensor);
  };
  const openClip = (part: string, prefix: string): void => {
    for (const [name, tensor] of openClipTensors(parts[part]!)) {
      out.set(prefix + name, tensor);
    }
  };
  if (family === "sd1") clip("text_encoder", "cond_stage_model.transformer.");
  else if (family === "sd2") {
    openClip("text_encoder", "cond_stage_model.model.");
  } else {
    clip("text_encoder", "conditioner.embedders.0.transformer.");
    openClip("text_encoder_2", "conditioner.embedders.1.model.");
  }
  return out;
}

const RESNET = [
  ["norm1", "in_layers.0"],
  ["conv1", "in_layers.2"],
  ["norm2", "out_layers.0"],
  ["conv2", "out_layers.3"],
  ["time_emb_proj", "emb_layers.1"],
  ["conv_shortcut", "skip_connection"],
] as const;

function unetName(name: string, config: Config): string {
  const per = Number(config["layers_per_block"]) + 1;
  const up = config["up_block_types"] as string[];
  if (name.includes("resnets")) {
    for (const [from, to] of RESNET) name = name.replace(from, to);
  }
  return name
    .replace(/^time_embedding\.linear_1/, "time_embed.0")
    .replace(/^time_embedding\.linear_2/, "time_embed.2")
    .replace(/^add_embedding\.linear_1/, "label_emb.0.0")
    .replace(/^add_embedding\.linear_2/, "label_emb.0.2")
    .replace(/^conv_in/, "input_blocks.0.0")
    .replace(/^conv_norm_out/, "out.0")
    .replace(/^conv_out/, "out.2")
    .replace(
      /^down_blocks\.(\d)\.(resnets|attentions)\.(\d)/,
      (_, i, kind, j) =>
        `input_blocks.${per * +i + +j + 1}.${kind === "resnets" ? 0 : 1}`,
    )
    .replace(
      /^down_blocks\.(\d)\.downsamplers\.0\.conv/,
      (_, i) => `input_blocks.${per * (+i + 1)}.0.op`,
    )
    .replace(/^mid_block\.attentions\.0/, "middle_block.1")
    .replace(/^mid_block\.resnets\.(\d)/, (_, j) => `middle_block.${2 * +j}`)
    .replace(
      /^up_blocks\.(\d)\.(resnets|attentions)\.(\d)/,
      (_, i, kind, j) =>
        `output_blocks.${per * +i + +j}.${kind === "resnets" ? 0 : 1}`,
    )
    .replace(
      /^up_blocks\.(\d)\.upsamplers\.0/,
      (_, i) =>
        `output_blocks.${per * +i + per - 1}.${up[+i] === "UpBlock2D" ? 1 : 2}`,
    );
}

function vaeName(name: string, levels: number): string {
  if (name.includes("attentions")) {
    name = name.replace("group_norm.", "norm.").replace("to_q.", "q.")
      .replace("to_k.", "k.").replace("to_v.", "v.")
      .replace("to_out.0.", "proj_out.");
  }
  return name
    .replace("conv_shortcut", "nin_shortcut")
    .replace("conv_norm_out", "norm_out")
    .replace("mid_block.attentions.0.", "mid.attn_1.")
    .replace(/mid_block\.resnets\.(\d)/, (_, i) => `mid.block_${+i + 1}`)
    .replace(/down_blocks\.(\d)\.resnets\.(\d)/, "down.$1.block.$2")
    .replace(/down_blocks\.(\d)\.downsamplers\.0/, "down.$1.downsample")
    .replace(
      /up_blocks\.(\d)\.resnets\.(\d)/,
      (_, i, j) => `up.${levels - 1 - +i}.block.${j}`,
    )
    .replace(
      /up_blocks\.(\d)\.upsamplers\.0/,
      (_, i) => `up.${levels - 1 - +i}.upsample`,
    );
}

function openClipTensors(tensors: Tensors): Tensors {
  const out: Tensors = new Map();
  for (const [name, tensor] of tensors) {
    const fused = /^(.*self_attn\.)q_proj\.(weight|bias)$/.exec(name);
    if (fused) {
      const parts = ["q", "k", "v"].map((x) =>
        tensors.get(`${fused[1]}${x}_proj.${fused[2]}`)!
      );
      out.set(openClipName(`${fused[1]}in_proj_${fused[2]}`), stack(parts));
    } else if (name === "text_projection.weight") {
      out.set("text_projection", transposed(tensor));
    } else if (!/self_attn\.[kv]_proj\./.test(name)) {
      out.set(openClipName(name), tensor);
    }
  }
  return out;
}

function openClipName(name: string): string {
  return name
    .replace("text_model.encoder.layers.", "transformer.resblocks.")
    .replace(
      "text_model.embeddings.token_embedding.weight",
      "token_embedding.weight",
    )
    .replace(
      "text_model.embeddings.position_embedding.weight",
      "positional_embedding",
    )
    .replace("text_model.final_layer_norm.", "ln_final.")
    .replace("layer_norm1", "ln_1").replace("layer_norm2", "ln_2")
    .replace(".fc1.", ".c_fc.").replace(".fc2.", ".c_proj.")
    .replace(".self_attn", ".attn");
}

function stack(parts: readonly TensorData[]): TensorData {
  const { dtype, shape: [rows, ...rest] } = parts[0]!;
  const sizes = parts.map(({ data }) => data.byteLength);
  const data = new Uint8Array(sizes.reduce((a, b) => a + b));
  let at = 0;
  for (const { data: part } of parts) {
    data.set(
      new Uint8Array(part.buffer, part.byteOffset, part.byteLength),
      at,
    );
    at += part.byteLength;
  }
  return { dtype, shape: [3 * rows!, ...rest], data };
}

/** Of two-byte and four-byte elements alike. */
function transposed({ dtype, shape, data }: TensorData): TensorData {
  const [rows, columns] = shape as [number, number];
  if (data.byteLength === 0) return { dtype, shape: [columns, rows], data };
  const View = dtype === "F32" ? Uint32Array : Uint16Array;
  const values = new View(
    data.buffer as ArrayBuffer,
    data.byteOffset,
    rows * columns,
  );
  const out = values.map((_, i) =>
    values[(i % rows) * columns + Math.floor(i / rows)]!
  );
  return { dtype, shape: [columns, rows], data: out };
}
