"""How weights move: learning rate, decay, clipping and schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Optimization:
    """How weights move.

    Attributes:
        lr: learning rate of towers that have none of their own.
        weight_decay: AdamW decay of matrices; norms, biases and embeddings do not decay.
        betas: AdamW moment decay.
        max_grad_norm: clip the gradient's global L2 norm; None leaves it.
        schedule: learning-rate schedule after warm-up, by transformers' name.
        warmup: warm-up share of all steps, in [0, 1].

    Raises:
        ValueError: a value outside its range.
    """

    lr: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float | None = 1.0
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = 0.05

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"optimization.lr is {self.lr}; it must be above 0")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"optimization.warmup is {self.warmup}; it is a share of all steps between 0 and 1")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"optimization.max_grad_norm is {self.max_grad_norm}; it must be above 0, or null")
