"""Trains UNet and text encoder on latents of scenes that are drawn meanwhile.

From nothing, the first half is on a small canvas: it shows fewer things of the same size in pixels, so what is
learned there carries over at a quarter of the cost. With --from, it continues at full size from a packed model.
Besides the noise loss, the attention of each thing's words is asked to lie on that thing's mask.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scenes
from nets import CLIPTextModel, UNet2DConditionModel, load_model, save_model
from pool import Painters, Pool
from tokenizer import LENGTH, Tokenizer
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


BETAS = torch.linspace(SCHEDULER["beta_start"] ** 0.5, SCHEDULER["beta_end"] ** 0.5, 1000) ** 2
BAR = torch.cumprod(1 - BETAS, 0)  # what is left of the picture's variance at each timestep


def share(maps: Tensor, masks: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which part of the words' attention lies on their things [b, things, 2]; also masks and attention by cell.

    maps [b, cells, tokens], masks [b, things, h, w], words [b, things, 2].
    """
    b, n, _ = maps.shape
    m = F.adaptive_avg_pool2d(masks, round(n**0.5)).flatten(2)  # [b, things, cells]
    p = maps.gather(2, words.flatten(1)[:, None].expand(b, n, -1)).unflatten(2, (-1, 2))  # [b, cells, things, 2]
    return torch.einsum("bnoj,bon->boj", p, m) / p.sum(1).clamp(min=1e-6), m, p


def attention_loss(maps: Tensor, masks: Tensor, words: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """How much of the words' attention lies outside their masks, and how little of the mask it claims; weight [b]."""
    inside, m, p = share(maps, masks, words)
    there = (words > 0).float()
    token = ((1 - inside).square() * there * weight[:, None, None]).sum() / there.sum().clamp(min=1)
    own = (p * there[:, None]).sum(-1).transpose(1, 2)  # [b, things, cells]
    solid = (m > 0.6).float() * there[:, :, :1]
    pixel = (-torch.log(own.clamp(min=1e-3)) * solid * weight[:, None, None]).sum() / solid.sum().clamp(min=1)
    return token, pixel


def losses(model: nn.ModuleDict, z: Tensor, noise: Tensor, t: Tensor, ab: Tensor, tokens: Tensor, masks: Tensor,
           words: Tensor, doubt: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The noise's weighted error and plain error, the words' loss and the masks' loss; ab [b] is BAR at t."""
    x = ab.sqrt()[:, None, None, None] * z + (1 - ab).sqrt()[:, None, None, None] * noise
    with torch.autocast(z.device.type, torch.bfloat16, enabled=z.is_cuda):
        predicted = model["unet"](x, t, model["text"](tokens))
    guided = model["unet"].guided()
    snr = ab / (1 - ab)
    error = (predicted.float() - noise).square().mean((1, 2, 3))
    sure = snr / (snr + doubt)  # at the noisiest steps nobody can know where things are
    token, pixel = (sum(v) / len(guided)
                    for v in zip(*(attention_loss(g.maps.float(), masks, words, sure) for g in guided)))
    return (error * snr.clamp(max=5) / snr).mean(), error.mean(), token, pixel  # min-SNR weighting, arXiv 2303.09556


def build(vocab: int) -> nn.ModuleDict:
    end = vocab - 1
    text = CLIPTextModel({**TEXT, "vocab_size": vocab, "bos_token_id": end - 1, "eos_token_id": end,
                          "pad_token_id": end})
    unet = UNet2DConditionModel(dict(UNET))
    for name, p in unet.named_parameters():  # residual branches start silent
        if any(part in name for part in ("proj_out.", "conv2.", "conv_out.")):
            nn.init.zeros_(p)
    return nn.ModuleDict({"unet": unet, "text": text})


def start(out: Path) -> nn.ModuleDict:
    """A new model; what a diffusers folder has beside the networks is written."""
    words = [*scenes.KINDS, *scenes.COLOURS, "a", "an", "and", *" ".join(scenes.BACKGROUNDS.values()).split()]
    tokenizer = Tokenizer.learn(list(dict.fromkeys(words)))
    tokenizer.save(out / "tokenizer")
    (out / "scheduler").mkdir(exist_ok=True)
    (out / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    return build(len(tokenizer.vocab))


def resume(root: Path, out: Path) -> nn.ModuleDict:
    """A packed model again; what it has beside UNet and text encoder is copied."""
    out.mkdir(parents=True, exist_ok=True)
    for part in ("vae", "tokenizer", "scheduler"):
        shutil.copytree(root / part, out / part, dirs_exist_ok=True)
    shutil.copy(root / "model_index.json", out)
    return nn.ModuleDict({"unet": load_model(root, "unet"), "text": load_model(root, "text_encoder")})


def save(out: Path, model: nn.ModuleDict) -> None:
    for part, name in (("unet", "unet"), ("text_encoder", "text")):
        save_model(out, part, model[name])


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--out", type=Path, required=True, help="model folder; without --from it must have vae/")
    ap.add_argument("--from", type=Path, dest="root", help="packed model to continue from")
    ap.add_argument("--minutes", type=float, help="instead of --steps; all is over and saved after that time")
    ap.add_argument("--steps", type=int, default=6082)
    ap.add_argument("--small", type=float, help="share on the small canvas (0.5, with --from 0)")
    ap.add_argument("--batch", type=int, default=20, help="twice that on the small canvas")
    ap.add_argument("--lr", type=float, default=5e-4)
    ap.add_argument("--warmup", type=int, default=200)
    ap.add_argument("--ema", type=float, default=0.999)
    ap.add_argument("--token", type=float, default=0.05)
    ap.add_argument("--pixel", type=float, default=0.01)
    ap.add_argument("--doubt", type=float, default=0.02, help="signal to noise at which attention's losses count half")
    ap.add_argument("--scenes", type=int, default=1 << 20, help="most scenes to keep; newer ones replace the oldest")
    ap.add_argument("--least", type=int, default=4096, help="scenes to wait for")
    ap.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that draw")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--compile", action="store_true", help="with torch.compile: a minute's wait, then faster steps")
    a = ap.parse_args()
    began = time.monotonic()
    torch.manual_seed(a.seed)
    model = resume(a.root, a.out) if a.root else start(a.out)
    small = (0 if a.root else 0.5) if a.small is None else a.small
    ids = Tokenizer.load(a.out / "tokenizer").vocab
    painters = [Painters(a.workers, size, ids, a.seed)
                for size, wanted in ((scenes.SMALL, small > 0), (scenes.SIZE, small < 1)) if wanted]

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    model.train().to(device)
    for att in model["unet"].guided():
        att.keep = True
    vae, bar = load_model(a.out, "vae").to(device), BAR.to(device)
    # Saving and the last step fit into the five seconds.
    seconds, steps = (60 * a.minutes - 5, math.inf) if a.minutes else (math.inf, a.steps)
    trainer = Trainer(model, steps, a.lr, lambda done: min(1, max(0.01, (1 - done) / 0.45)), a.warmup, a.ema,
                      seconds=seconds, began=began)
    compute = losses
    if a.compile:
        torch._dynamo.config.suppress_errors = True
        compute = torch.compile(losses, dynamic=False)
    pool, saved, shown = None, began, 0
    try:
        while trainer.done() < 1:
            if pool is None or len(painters) > 1 and trainer.done() >= small:
                if pool:
                    painters.pop(0).stop()
                pool = Pool(painters[0], vae, device, a.scenes)
                pool.fill(a.least)
            pool.fill()
            n = a.batch * (2 if pool.painters.size < scenes.SIZE else 1)
            z, *given = pool.batch(n)
            t = ((torch.arange(n, device=device) + torch.rand(n, device=device)) * (1000 / n)).long().clamp(max=999)
            weighted, error, token, pixel = compute(model, z, torch.randn_like(z), t, bar[t], *given, a.doubt)
            shown += n
            trainer.step(weighted + a.token * token + a.pixel * pixel, lambda: (
                f"noise {error.item():.4f} token {token.item():.4f} pixel {pixel.item():.3f} "
                f"shown {shown} of {pool.seen}"))
            if time.monotonic() > saved + 120:
                save(a.out, trainer.average)
                saved = time.monotonic()
    finally:
        for p in painters:
            p.stop()
    save(a.out, trainer.average)
    print(f"{time.monotonic() - began:.0f} s, {trainer.count} steps, {shown} shown of {pool.seen} scenes", flush=True)


if __name__ == "__main__":
    main()
