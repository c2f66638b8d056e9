"""Trains a small single-shot detector of the scenes' things and exports it as ONNX, for measuring only.

Input ``images`` [n, 3, 128, 128], RGB in 0..1. Output ``boxes`` [n, 4 + 10, 256]: centre x, centre y,
width, height in pixels, then one score per kind, for each of 16 x 16 cells (the layout of YOLOv8's
export); ``colours`` [n, 6, 256].
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scenes
from trainer import Trainer

KINDS, COLOURS = scenes.KINDS, list(scenes.COLOURS)
STRIDE, CELLS = 8, scenes.SIZE // 8


def unit(cin: int, cout: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, size, stride, size // 2, bias=False), nn.BatchNorm2d(cout), nn.SiLU())


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(unit(3, 24, 2, 5), unit(24, 40, 2), unit(40, 64, 2), unit(64, 64))
        self.deep = nn.Sequential(unit(64, 96, 2), unit(96, 96), unit(96, 64, 1, 1))
        self.head = nn.Sequential(unit(128, 64), unit(64, 64))
        self.out = nn.Conv2d(64, 4 + len(KINDS) + len(COLOURS), 1)
        y, x = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
        centres = (torch.stack([x, y]).float().reshape(1, 2, -1) + 0.5) * STRIDE
        self.register_buffer("centres", centres, persistent=False)

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (centre and size in pixels), kind logits and colour logits per cell."""
        x = self.stem(images)
        x = self.head(torch.cat([x, F.interpolate(self.deep(x), scale_factor=2.0, mode="nearest")], 1))
        y = self.out(x).flatten(2)
        box = torch.cat([self.centres + y[:, :2] * STRIDE, 32 * torch.exp(y[:, 2:4].clamp(-3, 2))], 1)
        return box, y[:, 4 : 4 + len(KINDS)], y[:, 4 + len(KINDS) :]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        box, kinds, colours = self.raw(images)
        return torch.cat([box, kinds.sigmoid()], 1), colours.softmax(1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of [n, 4] boxes given by centre and size."""
    a0, a1, b0, b1 = a[:, :2] - a[:, 2:] / 2, a[:, :2] + a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2
    inter = (torch.minimum(a1, b1) - torch.maximum(a0, b0)).clamp(min=0).prod(1)
    union = a[:, 2:].prod(1) + b[:, 2:].prod(1) - inter
    hull = (torch.maximum(a1, b1) - torch.minimum(a0, b0)).prod(1)
    return inter / union - (hull - union) / hull


def loss_of(model: Detector, images: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """boxes [n, things, 4] as corners in 0..1; labels [n, 1 + 2 * things], -1 where there is none."""
    box, kinds, colours = model.raw(images)
    target = torch.zeros_like(kinds)
    which, cells, want, colour = [], [], [], []
    for b, j in (labels[:, 1::2] >= 0).nonzero().tolist():
        x0, y0, x1, y1 = boxes[b, j] * scenes.SIZE
        c, s = torch.stack([(x0 + x1) / 2, (y0 + y1) / 2]), torch.stack([x1 - x0, y1 - y0])
        near = ((model.centres[0] - c[:, None]).abs() < (0.15 * s).clamp(min=STRIDE * 0.51)[:, None]).all(0)
        at = near.nonzero()[:, 0]
        target[b, int(labels[b, 1 + 2 * j]), at] = 1
        which.append(torch.full_like(at, b))
        cells.append(at)
        want.append(torch.cat([c, s]).expand(len(at), 4))
        colour.append(torch.full_like(at, int(labels[b, 2 + 2 * j])))
    i, at = torch.cat(which), torch.cat(cells)
    score = F.binary_cross_entropy_with_logits(kinds, target, reduction="sum") / len(i)
    place = (1 - giou(box[i, :, at], torch.cat(want))).mean()
    return score + 2 * place + F.cross_entropy(colours[i, :, at], torch.cat(colour))


def spoil(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, noise and contrast, so that imperfect pictures are read too."""
    if rng.random() < 0.5:
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="bilinear")
    x = (x - 0.5) * float(rng.uniform(0.8, 1.2)) + 0.5 + float(rng.uniform(-0.08, 0.08))
    return (x + float(rng.uniform(0, 0.06)) * torch.randn_like(x)).clamp(0, 1)


def export(model: Detector, out: Path) -> None:
    names = ["images", "boxes", "colours"]
    torch.onnx.export(model, (torch.zeros(1, 3, scenes.SIZE, scenes.SIZE),), str(out), opset_version=13,
                      input_names=names[:1], output_names=names[1:], dynamic_axes={n: {0: "n"} for n in names},
                      dynamo=False)
    about = {
        "input": {"name": "images", "shape": ["n", 3, 128, 128], "range": [0, 1], "order": "RGB"},
        "outputs": {
            "boxes": {"shape": ["n", 4 + len(KINDS), CELLS * CELLS],
                      "rows": ["cx", "cy", "w", "h"] + [f"score of {k}" for k in KINDS],
                      "units": "pixels of the 128 x 128 input; scores are sigmoids in 0..1"},
            "colours": {"shape": ["n", len(COLOURS), CELLS * CELLS], "rows": COLOURS, "units": "softmax over colours"}},
        "format": "yolov8", "kinds": KINDS, "colours": COLOURS, "score_threshold": 0.3, "nms_iou": 0.5,
    }
    out.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--data", type=Path, required=True, help="folder of scenes.py, best other scenes than the UNet's")
    ap.add_argument("--out", type=Path, required=True, help="the .onnx file")
    ap.add_argument("--steps", type=int, default=1200)
    ap.add_argument("--batch", type=int, default=48)
    ap.add_argument("--lr", type=float, default=2e-3)
    a = ap.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, boxes, labels = (np.concatenate([np.load(f) for f in sorted(a.data.glob(f"*-{n}.npy"))])
                             for n in ("images", "boxes", "labels"))
    model = Detector().train()
    trainer = Trainer(model, a.steps, a.lr, lambda done: 1 - done, clip=5.0)
    for _ in range(a.steps):
        pick = rng.integers(0, len(images), a.batch)
        x = torch.from_numpy(images[pick]).permute(0, 3, 1, 2).float() / 255
        trainer.step(loss_of(model, spoil(x, rng), torch.from_numpy(boxes[pick]), torch.from_numpy(labels[pick])))
    export(model.eval(), a.out)


if __name__ == "__main__":
    main()
