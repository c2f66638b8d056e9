"""Trains the autoencoder on rendered scenes, whitens its latent, and writes it with its scaling factor."""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nets import AutoencoderKL, save_model
from trainer import Trainer

CONFIG = {
    "_class_name": "AutoencoderKL", "_diffusers_version": "0.21.0", "act_fn": "silu",
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
    "force_upcast": False, "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 1,
    "norm_num_groups": 16, "sample_size": 128, "scaling_factor": 1.0,
}


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def to_tensor(images: np.ndarray | Tensor) -> Tensor:
    """uint8 [n, h, w, 3] -> [n, 3, h, w] in -1..1."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def crops(images: np.ndarray, n: int, size: int, rng: np.random.Generator) -> Tensor:
    out = np.empty((n, size, size, 3), np.uint8)
    for i in range(n):
        y, x = rng.integers(0, images.shape[1] - size + 1, 2)
        out[i] = images[rng.integers(len(images)), y : y + size, x : x + size]
    return to_tensor(out)


@torch.no_grad()
def whiten(model: AutoencoderKL, x: Tensor) -> None:
    """Centres the latent and makes its channels uncorrelated with one deviation; what is decoded stays the same.

    The map is folded into quant_conv and post_quant_conv (for the log variance: its diagonal only).
    """
    flat = model.encode(x)[0].permute(1, 0, 2, 3).flatten(1).double()
    centre, common = flat.mean(1), flat.std()
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    forward = (common * vectors @ torch.diag(values.rsqrt()) @ vectors.T).float()
    q, p, n = model.quant_conv, model.post_quant_conv, len(centre)
    p.bias += p.weight[:, :, 0, 0] @ centre.float()
    p.weight.copy_((p.weight[:, :, 0, 0] @ torch.linalg.inv(forward))[:, :, None, None])
    q.bias[:n] = forward @ (q.bias[:n] - centre.float())
    q.weight[:n] = (forward @ q.weight[:n, :, 0, 0])[:, :, None, None]
    q.bias[n:] += 2 * forward.diagonal().log()
    model.config["scaling_factor"] = round(1 / common.item(), 5)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--data", type=Path, required=True, help="folder of scenes.py; its last part is held out")
    ap.add_argument("--out", type=Path, required=True, help="model folder")
    ap.add_argument("--steps", type=int, default=2855)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--kl", type=float, default=1e-4)
    a = ap.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    *files, last = sorted(a.data.glob("*-images.npy"))
    held = np.load(last)[:48]
    images = np.concatenate([np.load(f) for f in files or [last]])
    model = AutoencoderKL(dict(CONFIG))
    trainer = Trainer(model, a.steps, a.lr, lambda done: (1 - done) ** 0.7, ema=0.995, beta2=0.98)
    for step in range(a.steps):
        # Crops cost a quarter; whole pictures at the end, so that the attention in the middle fits them.
        x = crops(images, 12, 64, rng) if step < 0.85 * a.steps else crops(images, 4, 128, rng)
        mean, logvar = model.encode(x)
        y = model.decode(mean + torch.exp(0.5 * logvar) * torch.randn_like(mean))
        edge = sum((p - q).abs().mean() for p, q in zip(edges(x), edges(y)))
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        trainer.step((x - y).abs().mean() + 2 * (x - y).square().mean() + 0.5 * edge + a.kl * kl)
    model, x = trainer.average.eval(), to_tensor(held)
    model.config = dict(CONFIG)
    whiten(model, x)
    with torch.no_grad():
        error = (x - model.decode(model.encode(x)[0]).clamp(-1, 1)).square().mean()
    print(f"held-out PSNR {10 * torch.log10(4 / error):.2f} dB")
    save_model(a.out, "vae", model)


if __name__ == "__main__":
    main()
