"""Scenes: things of a kind and a colour on a ground, with their phrases, tight boxes and visible masks.

python scenes.py --sheet sheet.png          a contact sheet
python scenes.py --out data --count 36000   a dataset: images, masks, boxes and labels as .npy
"""
from __future__ import annotations

import argparse
import colorsys
import math
import multiprocessing
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from shapes import DRAW, Colour, Pen, mix

SIZE = 128
SUPER = 3  # supersampling factor
CELL = 8  # pixels per cell of the stored object masks
MAX_OBJECTS = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (219, 48, 48),
    "orange": (242, 142, 38),
    "yellow": (246, 214, 52),
    "green": (62, 166, 74),
    "blue": (52, 104, 214),
    "purple": (142, 68, 188),
}
BACKGROUNDS: dict[str, str] = {  # name -> phrase
    "plain": "",
    "grass": "on grass",
    "sea": "at sea",
    "snow": "in the snow",
    "desert": "in the desert",
    "night": "at night",
    "room": "in a room",
}
ASPECT: dict[str, float] = {  # natural width / height
    "car": 1.85, "boat": 1.05, "fish": 1.6, "house": 1.0, "cat": 1.1,
    "star": 1.05, "apple": 0.92, "tree": 0.62, "flower": 0.6, "mushroom": 0.98,
}
KINDS = list(ASPECT)
SIDES = {1: (0.40, 0.68), 2: (0.32, 0.56), 3: (0.27, 0.46), 4: (0.25, 0.40)}
# The small canvas holds fewer objects of about the same size in pixels.
SMALL = 64
SMALL_SIDES = {1: (0.50, 0.88), 2: (0.40, 0.58)}

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in 0..1


@dataclass
class Thing:
    """One object: what it is and where it is."""

    kind: str
    colour: str
    box: Box
    mask: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8), repr=False)

    @property
    def phrase(self) -> str:
        return f"{article(self.colour)} {self.colour} {self.kind}"


@dataclass
class Scene:
    """A rendered scene."""

    background: str
    things: list[Thing]
    image: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8), repr=False)


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def draw_background(name: str, rng: random.Random, size: int = SIZE) -> Image.Image:
    """The background at the supersampled size."""
    n = size * SUPER
    area = (size / SIZE) ** 2

    def shade(c: Colour, spread: int = 8) -> Colour:
        d = rng.randint(-spread, spread)
        return tuple(min(255, max(0, v + d)) for v in c)  # type: ignore[return-value]

    def gradient(top: Colour, bottom: Colour, rows: int) -> np.ndarray:
        t = np.linspace(0, 1, rows)[:, None, None]
        return np.array(top) * (1 - t) + np.array(bottom) * t  # [rows, 1, 3]

    horizon = round(n * rng.uniform(0.42, 0.66))
    sky, ground = {
        "grass": (((150, 206, 246), (226, 242, 252)), ((172, 222, 140), (142, 204, 116))),
        "sea": (((190, 222, 246), (240, 246, 250)), ((92, 172, 210), (64, 140, 190))),
        "snow": (((170, 188, 210), (214, 224, 236)), ((252, 253, 255), (228, 236, 246))),
        "desert": (((250, 214, 166), (254, 240, 214)), ((236, 204, 142), (220, 180, 116))),
        "night": (((18, 22, 58), (40, 44, 92)), ((38, 50, 62), (28, 38, 48))),
        "room": (((240, 228, 206), (232, 216, 192)), ((190, 150, 112), (170, 130, 94))),
    }.get(name, ((None, None), (None, None)))
    if name == "plain":
        hue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.14), rng.uniform(0.88, 1.0))
        c = tuple(round(v * 255) for v in hue)
        arr = gradient(c, shade(mix(c, (200, 200, 210), 0.2)), n)
    else:
        arr = np.concatenate([gradient(shade(sky[0]), shade(sky[1]), horizon),
                              gradient(shade(ground[0]), shade(ground[1]), n - horizon)])
    img = Image.fromarray(arr.clip(0, 255).astype(np.uint8)).resize((n, n), Image.NEAREST)
    d = ImageDraw.Draw(img)
    if name == "grass":
        for _ in range(round(14 * area)):
            x, y = rng.randint(0, n), rng.randint(horizon + 8, n)
            d.line([(x - 7, y - 12), (x, y), (x + 7, y - 12)], fill=(112, 178, 92), width=4)
    elif name == "sea":
        for _ in range(round(12 * area)):
            x, y = rng.randint(-20, n), rng.randint(horizon + 8, n)
            d.arc((x, y, x + 40, y + 18), 200, 340, fill=(190, 226, 240), width=4)
    elif name == "snow":
        for _ in range(round(26 * area)):
            x, y = rng.randint(0, n), rng.randint(0, n)
            d.ellipse((x, y, x + 8, y + 8), fill=(255, 255, 255))
    elif name == "desert":
        for _ in range(round(5 * area)):
            x, y = rng.randint(-40, n), rng.randint(horizon + 10, n)
            d.arc((x, y, x + 120, y + 30), 190, 350, fill=(206, 166, 104), width=4)
    elif name == "night":
        for _ in range(round(22 * area)):
            x, y = rng.randint(0, n), rng.randint(0, horizon)
            d.ellipse((x, y, x + 6, y + 6), fill=(244, 240, 200))
    elif name == "room":
        d.line([(0, horizon), (n, horizon)], fill=(148, 108, 76), width=6)
        for i in range(1, 6):
            x = n * i / 6
            d.line([(x, horizon), (n / 2 + (x - n / 2) * 1.7, n)], fill=(156, 118, 84), width=3)
    return img


def place(count: int, kinds: list[str], rng: random.Random, size: int = SIZE) -> list[Box]:
    """Boxes of natural proportions with little overlap."""
    lo, hi = (SIDES if size > SMALL else SMALL_SIDES)[count]
    for _ in range(200):
        boxes: list[Box] = []
        for kind in kinds:
            for _ in range(20):
                side, aspect = rng.uniform(lo, hi), ASPECT[kind] * math.exp(rng.gauss(0, 0.10))
                w, h = side * math.sqrt(aspect), side / math.sqrt(aspect)
                w, h = min(w, 0.92), min(h, 0.92)
                x, y = rng.uniform(0.01, 0.99 - w), rng.uniform(0.01, 0.99 - h)
                box = (x, y, x + w, y + h)
                if all(overlap(box, b) < 0.08 for b in boxes):
                    boxes.append(box)
                    break
            else:
                break
        if len(boxes) == count:
            return boxes
    return place(count - 1, kinds[:-1], rng, size)


def overlap(a: Box, b: Box) -> float:
    """Intersection over the smaller of the two areas."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def render(background: str, things: list[Thing], rng: random.Random, size: int = SIZE) -> Scene:
    """Draws the things in order; fills each one's tight box and visible mask."""
    n = size * SUPER
    img = draw_background(background, rng, size)
    masks: list[Image.Image] = []
    for t in things:
        x0, y0, x1, y1 = (round(v * n) for v in t.box)
        pen = Pen(max(8, x1 - x0), max(8, y1 - y0), line=round(1.3 * SUPER))
        base = COLOURS[t.colour]
        colour = tuple(min(255, max(0, v + rng.randint(-12, 12))) for v in base)
        DRAW[t.kind](pen, colour, rng)
        layer = pen.layer
        if t.kind in ("car", "fish", "boat") and rng.random() < 0.5:
            layer = layer.transpose(Image.FLIP_LEFT_RIGHT)
        img.paste(layer, (x0, y0), layer)
        alpha = Image.new("L", (n, n), 0)
        alpha.paste(layer.getchannel("A"), (x0, y0))
        for m in masks:
            m.paste(0, (x0, y0), layer.getchannel("A"))
        masks.append(alpha)
    for t, m in zip(things, masks):
        t.mask = np.asarray(m.reduce(SUPER))
        b = m.getbbox() or (0, 0, 1, 1)
        t.box = (b[0] / n, b[1] / n, b[2] / n, b[3] / n)
    image = np.asarray(img.resize((size, size), Image.BOX))
    return Scene(background, things, image)


def random_scene(rng: random.Random, size: int = SIZE) -> Scene:
    count = rng.choices((1, 2, 3, 4), (0.25, 0.35, 0.26, 0.14) if size > SMALL else (0.5, 0.5, 0, 0))[0]
    kinds = rng.sample(KINDS, count)
    if count > 1 and rng.random() < 0.08:
        kinds[1] = kinds[0]
    boxes = place(count, kinds, rng, size)
    names = list(COLOURS)
    things = [Thing(k, rng.choice(names), b) for k, b in zip(kinds, boxes)]
    return render(rng.choice(list(BACKGROUNDS)), things, rng, size)


def caption(background: str, things: list[tuple[str, str]], rng: random.Random) -> tuple[str, list[list[int]]]:
    """A caption naming (kind, colour) things in random order.

    Returns the text and, per thing, the word positions [noun, colour] (colour
    left out when the phrase does not say it); punctuation counts as a word.
    """
    order = list(range(len(things)))
    rng.shuffle(order)
    words: list[str] = []
    where: list[list[int]] = [[] for _ in things]
    for n, i in enumerate(order):
        if n:
            words += ["and"] if n == len(order) - 1 else [","]
        kind, colour = things[i]
        named = rng.random() > 0.08
        words += [article(colour), colour, kind] if named else [article(kind), kind]
        where[i] = [len(words) - 1, len(words) - 2] if named else [len(words) - 1]
    if rng.random() > 0.12:
        words += BACKGROUNDS[background].split()
    return " ".join(words).replace(" ,", ","), where


def arrays(count: int, size: int, rng: random.Random) -> dict[str, np.ndarray]:
    """Random scenes: images [n, size, size, 3], masks [n, things, cells, cells], boxes [n, things, 4], labels."""
    cells = size // CELL
    images = np.empty((count, size, size, 3), np.uint8)
    masks = np.zeros((count, MAX_OBJECTS, cells, cells), np.uint8)
    boxes = np.zeros((count, MAX_OBJECTS, 4), np.float32)
    labels = np.full((count, 1 + 2 * MAX_OBJECTS), -1, np.int8)  # background, then kind and colour per thing
    for i in range(count):
        s = random_scene(rng, size)
        images[i] = s.image
        labels[i, 0] = list(BACKGROUNDS).index(s.background)
        for j, t in enumerate(s.things):
            labels[i, 1 + 2 * j : 3 + 2 * j] = KINDS.index(t.kind), list(COLOURS).index(t.colour)
            boxes[i, j] = t.box
            masks[i, j] = t.mask.reshape(cells, CELL, cells, CELL).mean((1, 3))
    return {"images": images, "masks": masks, "boxes": boxes, "labels": labels}


def make_part(job: tuple[int, int, int, str]) -> None:
    seed, count, size, out = job
    for name, a in arrays(count, size, random.Random(seed)).items():
        np.save(f"{out}-{name}.npy", a)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--sheet")
    ap.add_argument("--out")
    ap.add_argument("--count", type=int, default=60000)
    ap.add_argument("--part", type=int, default=2000)
    ap.add_argument("--size", type=int, default=SIZE)
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    if a.sheet:
        rng = random.Random(a.seed)
        sheet = Image.new("RGB", (a.size * 8, a.size * 6))
        for i in range(48):
            s = random_scene(rng, a.size)
            sheet.paste(Image.fromarray(s.image), (i % 8 * a.size, i // 8 * a.size))
        sheet.save(a.sheet)
    if a.out:
        Path(a.out).mkdir(parents=True, exist_ok=True)
        jobs = [(a.seed * 100003 + i, a.part, a.size, f"{a.out}/{i:03d}") for i in range(a.count // a.part)]
        with multiprocessing.Pool(2) as pool:
            for n, _ in enumerate(pool.imap_unordered(make_part, jobs)):
                print(f"part {n + 1}/{len(jobs)}", flush=True)


if __name__ == "__main__":
    main()
