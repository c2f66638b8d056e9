"""Held-out losses of packed models: by timestep, the noise's error and the attention's share on the things.

With --paint, also pictures without guidance, and what the detector finds in them (needs onnxruntime).
"""
from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import scenes
from nets import load_model
from pool import read
from tokenizer import LENGTH, Tokenizer
from train_unet import BAR, share
from train_vae import to_tensor

TIMES = (981, 961, 921, 881, 801, 701, 601, 501, 401, 301, 201, 101, 21)
HELD = 20261126  # no training has this seed


def load(root: Path, device: torch.device) -> nn.ModuleDict:
    model = nn.ModuleDict({part: load_model(root, part) for part in ("vae", "unet", "text_encoder")}).to(device)
    for att in model["unet"].guided():
        att.keep = True
    return model.requires_grad_(False)


def texts(labels: np.ndarray, ids: dict[str, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [n, 77] and word positions [n, things, 2]."""
    rng = random.Random(HELD)
    rows, words = (torch.from_numpy(np.stack(v)).long() for v in zip(*(read(label, ids, rng) for label in labels)))
    tokens = rows[:, -1:].repeat(1, LENGTH)  # the last is padding
    tokens[:, : rows.shape[1]] = rows
    return tokens.to(device), words.to(device)


def held_out(model: nn.ModuleDict, a: dict[str, np.ndarray], tokens: Tensor, words: Tensor) -> Tensor:
    """Noise's squared error and attention's share [times, 2]."""
    device, out = tokens.device, torch.zeros(len(TIMES), 2)
    n, generator = len(tokens), torch.Generator().manual_seed(HELD)
    for i in range(0, n, 64):
        s = slice(i, i + 64)
        z = model["vae"].encode(to_tensor(a["images"][s]).to(device))[0] * model["vae"].config["scaling_factor"]
        masks, text = torch.from_numpy(a["masks"][s]).to(device).float() / 255, model["text_encoder"](tokens[s])
        for row, t in enumerate(TIMES):
            noise = torch.randn(z.shape, generator=generator).to(device)
            x = BAR[t].sqrt() * z + (1 - BAR[t]).sqrt() * noise
            error = (model["unet"](x, torch.full((len(z),), t, device=device), text) - noise).square().mean()
            there = words[s] > 0
            on = torch.stack([share(g.maps, masks, words[s])[0][there].mean() for g in model["unet"].guided()]).mean()
            out[row] += torch.stack([error, on]).cpu() * len(z) / n
    return out


def paint(model: nn.ModuleDict, tokens: Tensor, empty: Tensor, scale: float = 7.5, steps: int = 50) -> np.ndarray:
    """DDIM without guidance by layout: pictures [n, 128, 128, 3]."""
    device, n = tokens.device, len(tokens)
    x = torch.randn((n, 4, 32, 32), generator=torch.Generator().manual_seed(HELD)).to(device)
    text = model["text_encoder"](torch.cat([empty.expand(n, -1), tokens]))
    for k in range(steps)[::-1]:
        t = k * 1000 // steps + 1
        without, with_ = model["unet"](x.repeat(2, 1, 1, 1), torch.full((2 * n,), t, device=device), text).chunk(2)
        noise, ab, next_ = without + scale * (with_ - without), BAR[t], BAR[max(0, t - 1000 // steps)]
        x = next_.sqrt() * (x - (1 - ab).sqrt() * noise) / ab.sqrt() + (1 - next_).sqrt() * noise
    y = model["vae"].decode(x / model["vae"].config["scaling_factor"])
    return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def found(images: np.ndarray, labels: np.ndarray, words: Tensor, detector: Path) -> tuple[float, float]:
    """Share of things that are there in kind and colour, and things found per thing asked for."""
    import onnxruntime

    session = onnxruntime.InferenceSession(detector, providers=["CPUExecutionProvider"])
    right = asked = seen = 0
    whole = (words[:, :, 1] > 0).sum(1).tolist()  # things whose colour the caption tells
    for image, label, told in zip(images, labels, whole):
        boxes, colours = session.run(None, {"images": image.transpose(2, 0, 1)[None].astype(np.float32) / 255})
        if told < (label[1::2] >= 0).sum():
            continue
        have = []
        for row, colour in sorted(zip(boxes[0].T.tolist(), colours[0].T), key=lambda p: -max(p[0][4:])):
            box = (row[0] - row[2] / 2, row[1] - row[3] / 2, row[0] + row[2] / 2, row[1] + row[3] / 2)
            if max(row[4:]) > 0.3 and all(scenes.overlap(box, b) < 0.6 for b, _ in have):
                have.append((box, (int(np.argmax(row[4:])), int(np.argmax(colour)))))
        left = [what for _, what in have]
        seen += len(left)
        for want in ((k, c) for k, c in zip(label[1::2], label[2::2]) if k >= 0):
            asked += 1
            if want in left:
                left.remove(want)
                right += 1
    return right / asked, seen / asked


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("models", type=Path, nargs="+", help="diffusers folders, of one tokenizer")
    ap.add_argument("--count", type=int, default=512, help="held-out scenes")
    ap.add_argument("--paint", type=int, default=0, help="pictures to paint")
    ap.add_argument("--detector", type=Path, default=Path(__file__).parent.parent / "detector.onnx")
    ap.add_argument("--sheet", type=Path, help="folder for what was painted: a sheet for each model")
    a = ap.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ids = Tokenizer.load(a.models[0] / "tokenizer").vocab
    data = scenes.arrays(a.count, scenes.SIZE, random.Random(HELD))
    tokens, words = texts(data["labels"], ids, device)
    with torch.no_grad():
        models = [load(root, device) for root in a.models]
        results = [held_out(m, data, tokens, words) for m in models]
        print("timestep " + "".join(f"{str(r)[-24:]:>24}" for r in a.models) + "   (noise's error, share of attention)")
        for row, t in enumerate(TIMES):
            print(f"{t:8} " + "".join(f"{r[row, 0]:16.5f}{r[row, 1]:8.3f}" for r in results))
        print(f"{'mean':>8} " + "".join(f"{r[:, 0].mean():16.5f}{r[:, 1].mean():8.3f}" for r in results), flush=True)
        labels = data["labels"][: a.paint]
        empty = tokens[:1, -1:].repeat(1, LENGTH)
        empty[:, 0] = tokens[0, 0]
        for i, (root, model) in enumerate(zip(a.models, models)):
            if not a.paint:
                break
            images = np.concatenate([paint(model, part, empty) for part in tokens[: a.paint].split(64)])
            there, seen = found(images, labels, words, a.detector)
            print(f"{root}: {there:.3f} of the things are there, {seen:.3f} found for each asked for", flush=True)
            if a.sheet:
                rows = images[: len(images) // 8 * 8].reshape(-1, 8, 128, 128, 3)
                sheet = rows.transpose(0, 2, 1, 3, 4).reshape(-1, 8 * 128, 3)
                a.sheet.mkdir(parents=True, exist_ok=True)
                Image.fromarray(sheet[: 8 * 128]).save(a.sheet / f"sheet-{i}-{root.resolve().name}.png")


if __name__ == "__main__":
    main()
