// ldm_extras: tensors of single files that no picture depends on, each with the reason.
// What is neither part of a network nor listed here is an error.

/** A kind of tensor that is left unread. */
export interface Extra {
  /** Of its whole name. */
  readonly names: RegExp;
  /** Why it is left out. */
  readonly reason: string;
}

/** Every kind that is left unread. */
export const EXTRAS: readonly Extra[] = [
  {
    names: /^(first_stage_model\.)?model_ema\./,
    reason:
      "a running average of the weights, stored beside them; diffusers too reads the weights themselves",
  },
  {
    names:
      /^(betas|alphas_cumprod(_prev)?|sqrt_\w+|log_one_minus_\w+|posterior_\w+|logvar|lvlb_weights|ddim_\w+)$/,
    reason: "the noise schedule, which follows from its first and last beta",
  },
  {
    names: /^denoiser\.(sigmas|log_sigmas)$/,
    reason: "SDXL's noise levels, which follow from the same betas",
  },
  {
    names: /^(optimizer|optimizer_states|lr_schedulers|callbacks|loops)\./,
    reason: "the state of training",
  },
  {
    names: /^embedding_manager\./,
    reason:
      "words that were trained for prompts, which no prompt here can name",
  },
  {
    names: /^(global_step|epoch|v_pred|ztsnr|scale_factor)$/,
    reason: "a number or mark that is read apart from the networks",
  },
  {
    names: /^first_stage_model\.(loss|discriminator)\./,
    reason: "the loss that the VAE was trained with",
  },
  {
    names: /\.position_ids$/,
    reason: "the list 0 to 76, whatever rounding has made of it",
  },
  {
    names: /\.attn_mask$/,
    reason: "the causal mask, which is the same in every text encoder",
  },
  {
    names:
      /^(cond_stage_model|conditioner\.embedders\.\d)\.(.+\.)?logit_scale$/,
    reason: "the temperature of CLIP's contrastive loss",
  },
  {
    names:
      /^(cond_stage_model|conditioner\.embedders\.\d)\.(.+\.)?(visual|vision_model|visual_projection)\./,
    reason: "CLIP's side for pictures",
  },
  {
    names:
      /^(cond_stage_model|conditioner\.embedders\.0)\.(model\.|transformer\.)?text_projection(\.weight)?$/,
    reason:
      "the projection of a pooled text, which only SDXL's second encoder is asked for",
  },
];

/** SD2's text encoder may hold one layer more than is used. */
export function unusedLayer(prefix: string, used: number): Extra {
  return {
    names: new RegExp(
      `^${prefix.replaceAll(".", "\\.")}transformer\\.resblocks\\.${used}\\.`,
    ),
    reason: "SD2 takes the states before the last layer of its text encoder",
  };
}

/** Names that LoRA and its relatives have in their own files, and now and then leave in merges. */
export const LORA_NAMES =
  /^(lora|lycoris)_|[._](lora_(up|down|mid|A|B)|hada_(w1|w2|t1|t2)|lokr_(w1|w2|t2)|dora_scale|oft_blocks)([._]|$)/;
