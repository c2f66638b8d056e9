"""Scenes that other processes draw while a training runs, kept as latents with captions on the training's device."""
from __future__ import annotations

import multiprocessing
import os
import queue
import random

import numpy as np
import torch
from torch import Tensor, nn

import scenes
from tokenizer import END, LENGTH, START
from train_vae import to_tensor

CHUNK = 64  # scenes that travel together
VERSIONS = 4  # captions of each scene
WORDS = 24  # tokens that a caption has at most, its start included


def read(label: np.ndarray, ids: dict[str, int], rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """One caption's tokens [WORDS] and each thing's word positions [things, 2], 0 where there is none."""
    tokens = np.full(WORDS, ids[END], np.int16)
    words = np.zeros((scenes.MAX_OBJECTS, 2), np.int8)
    ground, *label = label.tolist()
    things = [(scenes.KINDS[k], list(scenes.COLOURS)[c]) for k, c in zip(label[::2], label[1::2]) if k >= 0]
    text, where = scenes.caption(list(scenes.BACKGROUNDS)[ground], things, rng)
    row = [ids[START], *(ids[w + "</w>"] for w in text.replace(",", " ,").split())]
    tokens[: len(row)] = row
    for j, at in enumerate(where):
        words[j, : len(at)] = np.array(at) + 1
    return tokens, words


def draw(seed: str, size: int, ids: dict[str, int], out: multiprocessing.Queue, parent: int) -> None:
    """Puts chunk after chunk, until it is ended or its parent is gone."""
    os.nice(5)
    rng = random.Random(seed)
    while True:
        a = scenes.arrays(CHUNK, size, rng)
        texts = [read(label, ids, rng) for label in a["labels"] for _ in range(VERSIONS)]
        tokens, words = (np.stack(v).reshape(CHUNK, VERSIONS, *v[0].shape) for v in zip(*texts))
        while True:
            if os.getppid() != parent:
                os._exit(0)
            try:
                out.put((a["images"], a["masks"], tokens, words), timeout=5)
                break
            except queue.Full:
                pass


class Painters:
    """The processes. Start them before anything runs on a GPU: they are forks."""

    def __init__(self, count: int, size: int, ids: dict[str, int], seed: int = 0) -> None:
        context = multiprocessing.get_context("fork")
        self.size, self.ids, self.chunks = size, ids, context.Queue(2 * count)
        self.all = [context.Process(target=draw, args=(f"{seed}/{size}/{i}", size, ids, self.chunks, os.getpid()),
                                    daemon=True) for i in range(count)]
        for p in self.all:
            p.start()

    def stop(self) -> None:
        for p in self.all:
            p.kill()


class Pool:
    """The last ``capacity`` scenes; ``size`` of them are there."""

    def __init__(self, painters: Painters, vae: nn.Module, device: torch.device, capacity: int) -> None:
        self.painters, self.vae, self.device, self.seen = painters, vae, device, 0
        self.capacity = n = max(1, capacity // CHUNK) * CHUNK
        cells, side, things = painters.size // scenes.CELL, painters.size // 4, scenes.MAX_OBJECTS
        self.latents = torch.empty((n, 4, side, side), dtype=torch.half, device=device)
        self.masks = torch.empty((n, things, cells, cells), dtype=torch.uint8, device=device)
        self.tokens = torch.empty((n, VERSIONS, WORDS), dtype=torch.short, device=device)
        self.words = torch.empty((n, VERSIONS, things, 2), dtype=torch.int8, device=device)
        self.silence = torch.full((LENGTH,), painters.ids[END], device=device)
        self.silence[0] = painters.ids[START]

    @property
    def size(self) -> int:
        return min(self.seen, self.capacity)

    @torch.no_grad()
    def fill(self, least: int = 0) -> None:
        """Takes a chunk where one waits, or waits until ``least`` scenes are there."""
        while self.seen < least or not self.painters.chunks.empty():
            try:
                chunk = [torch.from_numpy(a) for a in self.painters.chunks.get(timeout=60)]
            except queue.Empty:
                raise RuntimeError("no scene was drawn in a minute") from None
            if self.device.type == "cuda":
                chunk = [t.pin_memory().to(self.device, non_blocking=True) for t in chunk]
            images, masks, tokens, words = chunk
            at = slice(self.seen % self.capacity, self.seen % self.capacity + CHUNK)
            self.latents[at] = self.vae.encode(to_tensor(images))[0] * self.vae.config["scaling_factor"]
            self.masks[at], self.tokens[at], self.words[at] = masks, tokens, words
            self.seen += CHUNK
            if self.seen >= least:
                break

    def batch(self, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, token ids [n, 77], things' masks, and each thing's word positions (0 where there is none)."""
        pick = torch.randint(self.size, (n,), device=self.device)
        version = torch.randint(VERSIONS, (n,), device=self.device)
        told = torch.rand(n, device=self.device) > 0.1  # the others have no text, for classifier-free guidance
        tokens = self.silence.repeat(n, 1)
        tokens[:, :WORDS] = torch.where(told[:, None], self.tokens[pick, version].long(), tokens[:, :WORDS])
        words = self.words[pick, version].long() * told[:, None, None]
        return self.latents[pick].float(), tokens, self.masks[pick].float() / 255, words
