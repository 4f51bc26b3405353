"""Progress of training in words: share done, loss, rate and time left, on a terminal and in a log file alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L


class Progress(L.Callback):
    """Says every few seconds how far training is.

    Args:
        say: receives one line at a time.
        seconds: time between two lines.
    """

    def __init__(self, say: Callable[[str], None], seconds: float = 10.0) -> None:
        self.say, self.seconds = say, seconds
        self._begin = self._said = 0.0
        self._first = self._tokens = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Start the clock."""
        self._begin = self._said = time.monotonic()
        self._first, self._tokens = trainer.global_step, pl_module.tokens_seen

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Say something when it is time."""
        now = time.monotonic()
        total = pl_module.total_steps()
        if now - self._said < self.seconds and trainer.global_step != total:
            return
        self._said = now
        seconds = max(now - self._begin, 1e-9)
        rate = (trainer.global_step - self._first) / seconds
        left = (total - trainer.global_step) / max(rate, 1e-9)
        loss = float(trainer.callback_metrics.get("train/loss", float("nan")))
        tokens = (pl_module.tokens_seen - self._tokens) / seconds
        self.say(
            f"step {trainer.global_step}/{total} ({100 * trainer.global_step / total:.0f} %)  loss {loss:.4f}  "
            f"{rate:.2f} steps/s  {tokens:,.0f} tokens/s  {clock(left)} left"
        )


def clock(seconds: float) -> str:
    """A duration as people read it, e.g. ``3 min 20 s``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
