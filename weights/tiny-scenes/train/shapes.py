"""The ten kinds of things, each drawn into the unit square with a colour."""
from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
OUTLINE = (44, 38, 48, 255)


def mix(a: Colour, b: Colour, t: float) -> Colour:
    return tuple(round(x + (y - x) * t) for x, y in zip(a, b))  # type: ignore[return-value]


class Pen:
    """Draws shapes given in the unit square onto an RGBA layer."""

    def __init__(self, width: int, height: int, line: int) -> None:
        self.layer = Image.new("RGBA", (width, height), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.layer)
        self.line, self.pad = line, line / 2
        self.w, self.h = width - 1 - line, height - 1 - line

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (self.pad + x * self.w, self.pad + y * self.h)

    def poly(self, points: list[tuple[float, float]], fill: Colour, line: bool = True) -> None:
        pts = [self.at(*p) for p in points]
        self.draw.polygon(pts, fill=fill)
        if line:
            self.draw.line(pts + pts[:2], fill=OUTLINE, width=self.line, joint="curve")

    def oval(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, line: bool = True) -> None:
        (a, b), (c, d) = self.at(x0, y0), self.at(x1, y1)
        p = self.pad if line else 0
        self.draw.ellipse((a - p, b - p, c + p, d + p), fill=fill,
                          outline=OUTLINE if line else None, width=self.line)

    def disc(self, x: float, y: float, r: float, fill: Colour, line: bool = True) -> None:
        """A round disc; r is in units of the layer's height."""
        rx = r * self.h / self.w
        self.oval(x - rx, y - r, x + rx, y + r, fill, line)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, line: bool = True) -> None:
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, line)

    def stroke(self, points: list[tuple[float, float]], fill: Colour, width: float = 1.0) -> None:
        self.draw.line([self.at(*p) for p in points], fill=fill, width=max(1, round(self.line * width)),
                       joint="curve")


WHITE, BLACK, BROWN, LEAF, GLASS = (250, 250, 250), (30, 28, 34), (134, 88, 52), (74, 142, 62), (196, 228, 242)


def draw_car(p: Pen, c: Colour, rng: random.Random) -> None:
    top = rng.uniform(0.0, 0.08)
    p.poly([(0.16, 0.46), (0.30, top), (0.70, top), (0.86, 0.46)], mix(c, WHITE, 0.12))
    p.poly([(0.24, 0.44), (0.34, top + 0.10), (0.49, top + 0.10), (0.49, 0.44)], GLASS)
    p.poly([(0.54, 0.44), (0.54, top + 0.10), (0.67, top + 0.10), (0.78, 0.44)], GLASS)
    p.poly([(0.0, 0.52), (0.05, 0.43), (0.90, 0.43), (1.0, 0.56), (1.0, 0.80), (0.0, 0.80)], c)
    p.oval(0.93, 0.52, 1.0, 0.64, (255, 240, 170))
    for x in (0.23, 0.77):
        p.disc(x, 0.80, 0.20, (52, 50, 58))
        p.disc(x, 0.80, 0.09, (206, 206, 210), False)


def draw_boat(p: Pen, c: Colour, rng: random.Random) -> None:
    m = rng.uniform(0.46, 0.54)
    p.rect(m - 0.015, 0.0, m + 0.025, 0.72, BROWN)
    p.poly([(m - 0.04, 0.05), (m - 0.04, 0.62), (0.04, 0.62)], mix(c, WHITE, 0.25))
    p.poly([(m + 0.06, 0.14), (m + 0.06, 0.62), (0.94, 0.62)], mix(c, WHITE, 0.6))
    p.poly([(0.0, 0.70), (1.0, 0.70), (0.82, 1.0), (0.18, 1.0)], c)
    p.stroke([(0.06, 0.79), (0.94, 0.79)], WHITE, 1.4)


def draw_fish(p: Pen, c: Colour, rng: random.Random) -> None:
    p.poly([(0.66, 0.5), (1.0, 0.10), (0.92, 0.5), (1.0, 0.90)], mix(c, BLACK, 0.18))
    p.poly([(0.28, 0.2), (0.46, 0.0), (0.62, 0.24)], mix(c, BLACK, 0.18))
    p.poly([(0.34, 0.84), (0.48, 1.0), (0.56, 0.82)], mix(c, BLACK, 0.18))
    p.oval(0.0, 0.12, 0.78, 0.90, c)
    for x in (0.40, 0.54)[: rng.randint(1, 2)]:
        p.oval(x - 0.035, 0.26, x + 0.035, 0.76, mix(c, WHITE, 0.55), False)
    p.disc(0.17, 0.42, 0.11, WHITE)
    p.disc(0.155, 0.43, 0.055, BLACK, False)


def draw_house(p: Pen, c: Colour, rng: random.Random) -> None:
    x = rng.choice((0.18, 0.70))
    p.rect(x, 0.06, x + 0.13, 0.36, mix(c, BLACK, 0.45))
    p.rect(0.10, 0.42, 0.90, 1.0, mix(c, WHITE, 0.12))
    p.poly([(0.0, 0.45), (0.5, 0.0), (1.0, 0.45)], mix(c, BLACK, 0.38))
    d = rng.choice((0.18, 0.58))
    p.rect(d, 0.62, d + 0.24, 1.0, BROWN)
    w = 0.76 - d
    p.rect(w - 0.01, 0.56, w + 0.25, 0.80, (255, 244, 190))
    p.stroke([(w + 0.12, 0.56), (w + 0.12, 0.80)], OUTLINE, 0.8)


def draw_cat(p: Pen, c: Colour, rng: random.Random) -> None:
    for s in (0.0, 1.0):
        f = (lambda x: x) if s == 0 else (lambda x: 1 - x)
        p.poly([(f(0.06), 0.48), (f(0.10), 0.0), (f(0.46), 0.22)], c)
        p.poly([(f(0.14), 0.32), (f(0.16), 0.13), (f(0.32), 0.24)], (244, 176, 184), False)
    p.oval(0.02, 0.16, 0.98, 1.0, c)
    p.oval(0.28, 0.60, 0.72, 0.94, mix(c, WHITE, 0.55), False)
    for x in (0.30, 0.70):
        p.oval(x - 0.11, 0.38, x + 0.11, 0.60, WHITE)
        p.oval(x - 0.045, 0.41, x + 0.045, 0.58, BLACK, False)
    p.poly([(0.44, 0.64), (0.56, 0.64), (0.5, 0.72)], (226, 110, 128))
    p.stroke([(0.5, 0.72), (0.42, 0.80)], OUTLINE, 0.9)
    p.stroke([(0.5, 0.72), (0.58, 0.80)], OUTLINE, 0.9)


def draw_star(p: Pen, c: Colour, rng: random.Random) -> None:
    pts = []
    for i in range(10):
        r = 1.0 if i % 2 == 0 else 0.45
        pts.append((r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)))
    xs, ys = [q[0] for q in pts], [q[1] for q in pts]
    pts = [((x - min(xs)) / (max(xs) - min(xs)), (y - min(ys)) / (max(ys) - min(ys))) for x, y in pts]
    p.poly(pts, c)
    inner = [(0.5 + (x - 0.5) * 0.5, 0.55 + (y - 0.55) * 0.5) for x, y in pts]
    p.poly(inner, mix(c, WHITE, 0.35), False)


def draw_apple(p: Pen, c: Colour, rng: random.Random) -> None:
    p.stroke([(0.5, 0.32), (0.47, 0.02)], BROWN, 2.4)
    p.poly([(0.52, 0.18), (0.62, 0.03), (0.86, 0.02), (0.74, 0.17)], LEAF)
    pts = []
    for i in range(48):
        t = 2 * math.pi * i / 48
        r = 1.0 - 0.16 * math.exp(-((t - math.pi) / 0.55) ** 2) - 0.06 * math.exp(-(min(t, 2 * math.pi - t) / 0.4) ** 2)
        pts.append((0.5 + 0.5 * r * math.sin(t), 0.595 + 0.405 * r * math.cos(t)))
    p.poly(pts, c)
    p.oval(0.16, 0.36, 0.34, 0.58, mix(c, WHITE, 0.55), False)


def draw_tree(p: Pen, c: Colour, rng: random.Random) -> None:
    p.rect(0.38, 0.72, 0.62, 1.0, BROWN)
    for y0, y1, w in ((0.42, 0.82, 0.5), (0.20, 0.58, 0.42), (0.0, 0.36, 0.32)):
        p.poly([(0.5 - w, y1), (0.5, y0), (0.5 + w, y1)], c)


def draw_flower(p: Pen, c: Colour, rng: random.Random) -> None:
    p.stroke([(0.5, 0.4), (0.5, 1.0)], OUTLINE, 3.2)
    p.stroke([(0.5, 0.4), (0.5, 1.0)], LEAF, 1.8)
    p.poly([(0.5, 0.92), (0.20, 0.84), (0.10, 0.66), (0.36, 0.74)], LEAF)
    p.poly([(0.5, 0.86), (0.78, 0.80), (0.90, 0.62), (0.64, 0.68)], LEAF)
    aspect = p.h / p.w
    cy, n, a0 = 0.5 / aspect, rng.choice((5, 6)), rng.uniform(0, math.pi)
    for i in range(n):
        a = a0 + 2 * math.pi * i / n
        x, y = 0.5 + 0.29 * math.cos(a), cy + 0.29 * math.sin(a) / aspect
        p.oval(x - 0.21, y - 0.21 / aspect, x + 0.21, y + 0.21 / aspect, c)
    p.oval(0.33, cy - 0.17 / aspect, 0.67, cy + 0.17 / aspect, (255, 248, 206))


def draw_mushroom(p: Pen, c: Colour, rng: random.Random) -> None:
    p.poly([(0.36, 0.5), (0.64, 0.5), (0.70, 1.0), (0.30, 1.0)], (246, 232, 208))
    pts = [(0.5 - 0.5 * math.cos(math.pi * i / 24), 0.58 - 0.58 * math.sin(math.pi * i / 24)) for i in range(25)]
    p.poly(pts, c)
    for x, y, r in ((0.28, 0.38, 0.07), (0.54, 0.18, 0.08), (0.76, 0.40, 0.065), (0.50, 0.45, 0.05)):
        p.disc(x, y, r, WHITE, False)


DRAW = {
    "car": draw_car, "boat": draw_boat, "fish": draw_fish, "house": draw_house, "cat": draw_cat,
    "star": draw_star, "apple": draw_apple, "tree": draw_tree, "flower": draw_flower, "mushroom": draw_mushroom,
}
