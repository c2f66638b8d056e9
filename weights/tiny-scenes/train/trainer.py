"""AdamW with clipped gradients, and a moving average of the weights, which is what gets saved."""
from __future__ import annotations

import copy
from typing import Callable

import torch
from torch import Tensor, nn


class Trainer:
    """``rate(done)`` scales the learning rate; ``done`` is the share of the steps that are over."""

    def __init__(self, model: nn.Module, steps: int, lr: float, rate: Callable[[float], float], warmup: int = 100,
                 ema: float = 0.999, beta2: float = 0.99, clip: float = 1.0) -> None:
        self.model, self.steps, self.ema, self.clip, self.count = model, steps, ema, clip, 0
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr, (0.9, beta2), weight_decay=1e-3)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1, (step + 1) / warmup) * rate(step / steps))

    def step(self, loss: Tensor, told: str = "") -> None:
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip, error_if_nonfinite=True)
        self.optimizer.step()
        self.schedule.step()
        self.count += 1
        keep = min(self.ema, (1 + self.count) / (10 + self.count))
        with torch.no_grad():
            for a, p in zip(self.average.state_dict().values(), self.model.state_dict().values()):
                a.lerp_(p, 1 - keep) if a.is_floating_point() else a.copy_(p)
        if self.count % max(1, self.steps // 50) == 0:
            print(f"step {self.count}/{self.steps} loss {loss.item():.4f} {told}", flush=True)
