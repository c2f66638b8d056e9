"""Trains UNet and text encoder on latents, first on a small canvas, then at full size.

The small canvas shows fewer things of the same size in pixels, so what is learned there carries over at
a quarter of the cost. Besides the noise loss, the attention of each thing's words is asked to lie on that
thing's mask.
"""
from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scenes
from nets import CLIPTextModel, UNet2DConditionModel, load_model, save_model
from tokenizer import END, LENGTH, START, Tokenizer
from train_vae import to_tensor
from trainer import Trainer

UNET = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.21.0", "act_fn": "silu", "attention_head_dim": 2,
    "block_out_channels": [32, 96, 160], "center_input_sample": False, "cross_attention_dim": 96,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 1, "mid_block_scale_factor": 1,
    "norm_eps": 1e-05, "norm_num_groups": 8, "out_channels": 4, "sample_size": 32,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
TEXT = {
    "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "quick_gelu",
    "hidden_size": 96, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 384,
    "layer_norm_eps": 1e-05, "max_position_embeddings": LENGTH, "model_type": "clip_text_model",
    "num_attention_heads": 4, "num_hidden_layers": 2, "projection_dim": 96, "torch_dtype": "float32",
}
SCHEDULER = {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.21.0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "num_train_timesteps": 1000,
    "prediction_type": "epsilon", "set_alpha_to_one": False, "steps_offset": 1, "trained_betas": None,
}
INDEX = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.21.0", "feature_extractor": [None, None],
    "requires_safety_checker": False, "safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
}


class Data:
    """A dataset of scenes.py as scaled latents."""

    def __init__(self, folder: Path, vae: nn.Module) -> None:
        def load(name: str) -> np.ndarray:
            return np.concatenate([np.load(f) for f in sorted(folder.glob(f"*-{name}.npy"))])

        images, self.masks, self.labels = load("images"), load("masks"), load("labels")
        with torch.no_grad():
            means = [vae.encode(to_tensor(images[i : i + 50]))[0] for i in range(0, len(images), 50)]
        self.latents = torch.cat(means) * vae.config["scaling_factor"]

    def batch(self, n: int, ids: dict[str, int], rng: random.Random) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, token ids, things' masks, and each thing's word positions (0 where there is none)."""
        pick = [rng.randrange(len(self.latents)) for _ in range(n)]
        tokens = torch.full((n, LENGTH), ids[END])
        tokens[:, 0] = ids[START]
        words = torch.zeros((n, scenes.MAX_OBJECTS, 2), dtype=torch.long)
        for b, i in enumerate(pick):
            if rng.random() < 0.1:  # no text, for classifier-free guidance
                continue
            ground, *label = self.labels[i]
            things = [(scenes.KINDS[k], list(scenes.COLOURS)[c]) for k, c in zip(label[::2], label[1::2]) if k >= 0]
            text, where = scenes.caption(list(scenes.BACKGROUNDS)[ground], things, rng)
            row = [ids[w + "</w>"] for w in text.replace(",", " ,").split()]
            tokens[b, 1 : 1 + len(row)] = torch.tensor(row)
            for j, at in enumerate(where):
                words[b, j, : len(at)] = torch.tensor(at) + 1
        return self.latents[pick], tokens, torch.from_numpy(self.masks[pick]).float() / 255, words


def attention_loss(maps: Tensor, masks: Tensor, words: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the words' attention lies outside their masks, and how little of the mask it claims.

    maps [b, cells, tokens], masks [b, things, h, w], words [b, things, 2], weight [b].
    """
    b, n, _ = maps.shape
    m = F.adaptive_avg_pool2d(masks, round(n**0.5)).flatten(2)  # [b, things, cells]
    p = maps.gather(2, words.flatten(1)[:, None].expand(b, n, -1)).unflatten(2, (-1, 2))  # [b, cells, things, 2]
    there = (words > 0).float()
    inside = torch.einsum("bnoj,bon->boj", p, m) / p.sum(1).clamp(min=1e-6)
    token = ((1 - inside).square() * there * weight[:, None, None]).sum() / there.sum().clamp(min=1)
    own = (p * there[:, None]).sum(-1).transpose(1, 2)  # [b, things, cells]
    solid = (m > 0.6).float() * there[:, :, :1]
    pixel = (-torch.log(own.clamp(min=1e-3)) * solid * weight[:, None, None]).sum() / solid.sum().clamp(min=1)
    return token, pixel


def build(vocab: int) -> nn.ModuleDict:
    end = vocab - 1
    text = CLIPTextModel({**TEXT, "vocab_size": vocab, "bos_token_id": end - 1, "eos_token_id": end,
                          "pad_token_id": end})
    unet = UNet2DConditionModel(dict(UNET))
    for name, p in unet.named_parameters():  # residual branches start silent
        if any(part in name for part in ("proj_out.", "conv2.", "conv_out.")):
            nn.init.zeros_(p)
    for att in unet.guided():
        att.keep = True
    return nn.ModuleDict({"unet": unet, "text": text})


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--small", type=Path, required=True, help="small-canvas dataset")
    ap.add_argument("--data", type=Path, required=True, help="full-size dataset")
    ap.add_argument("--out", type=Path, required=True, help="model folder, which has vae/")
    ap.add_argument("--small-steps", type=int, default=3042)
    ap.add_argument("--steps", type=int, default=3040, help="at full size")
    ap.add_argument("--small-batch", type=int, default=40)
    ap.add_argument("--batch", type=int, default=20)
    ap.add_argument("--lr", type=float, default=5e-4)
    ap.add_argument("--token", type=float, default=0.05)
    ap.add_argument("--pixel", type=float, default=0.01)
    a = ap.parse_args()
    torch.manual_seed(0)
    rng = random.Random(0)
    words = [*scenes.KINDS, *scenes.COLOURS, "a", "an", "and", *" ".join(scenes.BACKGROUNDS.values()).split()]
    tokenizer = Tokenizer.learn(list(dict.fromkeys(words)))
    tokenizer.save(a.out / "tokenizer")
    (a.out / "scheduler").mkdir(exist_ok=True)
    (a.out / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")
    (a.out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")

    model = build(len(tokenizer.vocab))
    unet, text, guided = model["unet"], model["text"], model["unet"].guided()
    steps = a.small_steps + a.steps
    trainer = Trainer(model, steps, a.lr, lambda done: min(1, max(0.02, (1 - done) / 0.45)), warmup=200)
    betas = torch.linspace(SCHEDULER["beta_start"] ** 0.5, SCHEDULER["beta_end"] ** 0.5, 1000) ** 2
    bar = torch.cumprod(1 - betas, 0)
    vae = load_model(a.out, "vae")
    data, n = Data(a.small, vae), a.small_batch
    for step in range(steps):
        if step == a.small_steps:
            data, n = Data(a.data, vae), a.batch
        z, tokens, masks, words = data.batch(n, tokenizer.vocab, rng)
        t, noise = torch.randint(0, 1000, (n,)), torch.randn_like(z)
        ab = bar[t][:, None, None, None]
        predicted = unet(ab.sqrt() * z + (1 - ab).sqrt() * noise, t, text(tokens))
        snr = bar[t] / (1 - bar[t])
        error = (predicted - noise).square().mean((1, 2, 3))
        sure = snr / (snr + 0.02)  # at the noisiest steps nobody can know where things are
        token, pixel = (sum(v) / len(guided)
                        for v in zip(*(attention_loss(g.maps, masks, words, sure) for g in guided)))
        # min-SNR weighting, arXiv 2303.09556
        loss = (error * snr.clamp(max=5) / snr).mean() + a.token * token + a.pixel * pixel
        trainer.step(loss, f"noise {error.mean().item():.4f} token {token.item():.4f} pixel {pixel.item():.3f}")
    for part, name in (("unet", "unet"), ("text_encoder", "text")):
        save_model(a.out, part, trainer.average[name])


if __name__ == "__main__":
    main()
