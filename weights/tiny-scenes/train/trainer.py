"""AdamW with clipped gradients, and a moving average of the weights, which is what gets saved."""
from __future__ import annotations

import copy
import math
import time
from typing import Callable

import torch
from torch import Tensor, nn


class Trainer:
    """``rate(done)`` scales the learning rate; ``done`` is the share of the steps, or of the seconds, that is over."""

    def __init__(self, model: nn.Module, steps: float, lr: float, rate: Callable[[float], float], warmup: int = 100,
                 ema: float = 0.999, beta2: float = 0.99, clip: float = 1.0, seconds: float = math.inf,
                 began: float | None = None) -> None:
        self.model, self.steps, self.ema, self.clip, self.count = model, steps, ema, clip, 0
        self.lr, self.rate, self.warmup = lr, rate, warmup
        self.seconds, self.began, self.told = seconds, began or time.monotonic(), 0.0
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr, (0.9, beta2), weight_decay=1e-3, fused=True)
        pairs = list(zip(self.average.state_dict().values(), model.state_dict().values()))
        self.smooth = list(zip(*[p for p in pairs if p[0].is_floating_point()]))
        self.plain = [p for p in pairs if not p[0].is_floating_point()]

    def done(self) -> float:
        return max(self.count / self.steps, (time.monotonic() - self.began) / self.seconds)

    def step(self, loss: Tensor, tell: Callable[[], str] = str) -> None:
        done = self.done()
        self.optimizer.param_groups[0]["lr"] = lr = self.lr * min(1, (self.count + 1) / self.warmup) * self.rate(done)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.found_inf = (~norm.isfinite()).float()  # then this step changes no weight
        self.optimizer.step()
        self.count += 1
        keep = min(self.ema, (1 + self.count) / (10 + self.count))
        with torch.no_grad():
            torch._foreach_lerp_(*self.smooth, 1 - keep)
            for a, p in self.plain:
                a.copy_(p)
        now = time.monotonic()
        if now > self.told + 10 or self.count == self.steps:
            self.told = now
            print(f"{now - self.began:.0f} s, {done:.1%}, step {self.count}: loss {loss.item():.4f} {tell()} "
                  f"norm {norm.item():.2f} rate {lr:.1e}", flush=True)
