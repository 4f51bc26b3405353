"""How weights move: optimizer, learning rate, decay, clipping and schedule."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

OPTIMIZERS = ("adamw", "adamw_8bit", "muon")
_SMALLEST_8BIT = 4096
"""Elements below which bitsandbytes keeps moments in float32."""


@dataclass(frozen=True, slots=True)
class Optimization:
    """How weights move.

    Attributes:
        optimizer: ``adamw``, ``adamw_8bit`` with moments of a byte each (bitsandbytes, arXiv:2110.02861), or ``muon`` for
            matrices (arXiv:2502.16982) with AdamW for everything else.
        lr: learning rate of towers that have none of their own.
        weight_decay: decay of matrices; norms, biases and embeddings do not decay.
        betas: AdamW moment decay.
        max_grad_norm: clip the gradient's global L2 norm; None leaves it.
        schedule: learning-rate schedule after warm-up, by transformers' name.
        warmup: warm-up share of all steps, in [0, 1].

    Raises:
        ValueError: a value outside its range, or an optimizer that is not installed.
    """

    optimizer: Literal["adamw", "adamw_8bit", "muon"] = "adamw"
    lr: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float | None = 1.0
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = 0.05

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimization.optimizer is {self.optimizer!r}; allowed: {', '.join(OPTIMIZERS)}")
        if self.optimizer == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError(
                "optimization.optimizer=adamw_8bit needs bitsandbytes: pip install bitsandbytes, or choose adamw"
            )
        if self.lr <= 0:
            raise ValueError(f"optimization.lr is {self.lr}; it must be above 0")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"optimization.warmup is {self.warmup}; it is a share of all steps between 0 and 1")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"optimization.max_grad_norm is {self.max_grad_norm}; it must be above 0, or null")

    def build(self, groups: Sequence[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
        """The optimizer for parameter groups as :meth:`TowerPlan.parameter_groups` gives them."""
        if self.optimizer == "muon":
            return Muon(groups, lr=self.lr, betas=self.betas, fused=fused)
        if self.optimizer == "adamw_8bit":
            from bitsandbytes.optim.adamw import AdamW8bit  # pyright: ignore[reportMissingImports]

            return AdamW8bit(list(groups), lr=self.lr, betas=self.betas)
        return torch.optim.AdamW(list(groups), lr=self.lr, betas=self.betas, fused=fused)

    def state_bytes(self, groups: Sequence[dict[str, Any]]) -> int:
        """What the optimizer will hold for the groups it was built with, bytes."""
        total = 0
        for group in groups:
            for parameter in group["params"]:
                size = parameter.numel() * parameter.element_size()
                if self.optimizer == "adamw_8bit":
                    small = parameter.numel() < _SMALLEST_8BIT
                    total += 2 * parameter.numel() * (4 if small else 1)
                else:
                    total += size if group.get("matrices") else 2 * size
        return total


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices, AdamW for the rest, as one optimizer with one step and one state.

    Matrices are two-dimensional weights of groups that decay, so embeddings and the head tied to them are AdamW's. The
    update of a matrix is scaled to the root mean square of an AdamW update (arXiv:2502.16982, eq. 4), so learning rates
    and decay mean the same for both.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, lr: float, betas: tuple[float, float], fused: bool = False
    ) -> None:
        matrices, others = [], []
        for group in groups:
            for split, wanted in ((matrices, True), (others, False)):
                chosen = [p for p in group["params"] if (p.ndim == 2 and group["decays"]) is wanted]
                if chosen:
                    split.append({**group, "params": chosen, "matrices": wanted})
        self._inner: dict[bool, torch.optim.Optimizer] = {}
        if matrices:
            self._inner[True] = torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw")
        if others:
            self._inner[False] = torch.optim.AdamW(others, lr=lr, betas=betas, fused=fused)
        super().__init__([group for inner in self._inner.values() for group in inner.param_groups], {"lr": lr})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for wanted, inner in self._inner.items():
            # Loading a state replaces both, so they are handed on anew.
            inner.state = self.state
            inner.param_groups = [group for group in self.param_groups if group["matrices"] is wanted]
            inner.step()
        return loss
