// ldm_kinds: which kind of file it is, from the names of its tensors.
import { quote, WeightsError } from "./errors.ts";
import { LORA_NAMES } from "./ldm_extras.ts";
import type { TensorInfo } from "./safetensors_header.ts";

/** The families that are read. */
export type LdmFamily = "sd1" | "sd2" | "sdxl";

/** Where each network's names start. */
export const PREFIXES = {
  unet: "model.diffusion_model.",
  vae: "first_stage_model.",
  sd1: "cond_stage_model.transformer.",
  sd2: "cond_stage_model.model.",
  xl1: "conditioner.embedders.0.transformer.text_model.",
  xl2: "conditioner.embedders.1.model.",
} as const;

/** Files that are something else: a name that only they have, and what they are. */
const OTHERS: readonly (readonly [names: RegExp, what: string])[] = [
  [/(^|\.)joint_blocks\.\d/, "a Stable Diffusion 3 checkpoint"],
  [/(^|\.)double_blocks\.\d/, "a Flux checkpoint or a relative of it"],
  [/\.time_stack\.|\.time_mixer\./, "a Stable Video Diffusion checkpoint"],
  [/(^|\.)motion_modules\./, "an AnimateDiff motion module"],
  [
    /^control_model\.|(^|\.)(input_hint_block|controlnet_cond_embedding|controlnet_down_blocks)\.|^lllite_/,
    "a ControlNet",
  ],
  [/^adapter\.(body|conv_in)\./, "a T2I-Adapter"],
  [/^(image_proj|ip_adapter)\./, "an IP-Adapter"],
  [
    /^(string_to_param\b.*|emb_params|clip_[lg])$/,
    "a textual-inversion embedding",
  ],
  [
    /^edm_(mean|std|vpred\b.*)$/,
    "a checkpoint with EDM's noise levels (Playground 2.5, CosXL)",
  ],
  [/^conditioner\.embedders\.0\.model\./, "an SDXL refiner"],
  [
    /^model\.diffusion_model\.label_emb\.weight$/,
    "a Stable Diffusion x4 upscaler",
  ],
  [/^noise_augmentor\.|^embedder\.model\./, "a Stable unCLIP checkpoint"],
];

/** Pieces of a checkpoint, where there is no whole one. */
const PIECES: readonly (readonly [names: RegExp, what: string])[] = [
  [
    /^(unet\.)?(down_blocks|up_blocks|mid_block)\.|^(vae\.)?(encoder|decoder)\.mid_block\./,
    "one network under diffusers' names; open the folder that it belongs to",
  ],
  [/^(encoder|decoder)\.(conv_in|mid)\./, "a VAE"],
  [/^(text_model\.|transformer\.resblocks\.)/, "a text encoder"],
];

/** What other input channels than 4 mean. */
const INPUTS: Readonly<Record<number, string>> = {
  5: "a depth-to-image checkpoint",
  7: "a Stable Diffusion x4 upscaler",
  8: "an InstructPix2Pix checkpoint",
  9: "an inpainting checkpoint",
};

/**
 * The family of a single file.
 *
 * @param file For messages.
 * @param tensors All of it.
 * @throws {WeightsError} If it is something else, or lacks a whole network; the message says what it is.
 */
export function ldmFamily(
  file: string,
  tensors: ReadonlyMap<string, TensorInfo>,
): LdmFamily {
  const names = [...tensors.keys()];
  const starts = (prefix: string): boolean =>
    names.some((name) => name.startsWith(prefix));
  const fail = (current: string): WeightsError =>
    new WeightsError(
      `Cannot use ${file}: it must be a whole Stable Diffusion 1.x, 2.x or SDXL checkpoint: current file is ${current}`,
    );
  const unet = starts(PREFIXES.unet);
  const vae = starts(PREFIXES.vae);
  if (!unet && names.some((name) => LORA_NAMES.test(name))) {
    throw fail(
      "a LoRA, not a checkpoint; merge it into the checkpoint that it was made for",
    );
  }
  for (const [pattern, what] of OTHERS) {
    if (names.some((name) => pattern.test(name))) throw fail(what);
  }
  const first = "input_blocks.0.0.weight";
  const channels = tensors.get(PREFIXES.unet + first)?.shape[1] ?? 4;
  if (channels !== 4) {
    throw fail(
      `${
        INPUTS[channels] ?? "of an unknown kind"
      }, whose UNet takes ${channels} channels`,
    );
  }
  if (!unet) {
    const renamed = names.find((name) => name.endsWith(first));
    if (renamed !== undefined) {
      throw fail(
        `one whose UNet is under ${
          quote(renamed.slice(0, -first.length))
        } instead of "${PREFIXES.unet}"; save it under that name, together with its VAE and text encoder`,
      );
    }
    for (const [pattern, what] of PIECES) {
      if (names.some((name) => pattern.test(name))) throw fail(what);
    }
    if (vae) throw fail("a VAE");
  }
  const family = starts(PREFIXES.xl2)
    ? "sdxl"
    : starts(PREFIXES.sd2)
    ? "sd2"
    : starts(PREFIXES.sd1)
    ? "sd1"
    : undefined;
  const lacking = [
    ...unet ? [] : [`a UNet (${PREFIXES.unet}*)`],
    ...vae ? [] : [`a VAE (${PREFIXES.vae}*)`],
    ...family ? [] : ["a text encoder (cond_stage_model.*, conditioner.*)"],
  ];
  if (family && lacking.length === 0) return family;
  const known = [
    PREFIXES.unet,
    PREFIXES.vae,
    "cond_stage_model.",
    "conditioner.",
  ];
  const others = names.filter((name) =>
    !known.some((prefix) => name.startsWith(prefix))
  );
  throw fail(
    `one without ${lacking.join(", ")}${
      others.length === 0
        ? ""
        : `, but with ${others.length} unknown tensors such as ${
          others.slice(0, 3).map(quote).join(", ")
        }`
    }`,
  );
}
