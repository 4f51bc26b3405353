"""What every objective asks of its arguments: numbers in range, tensors of one shape, sums in float32 or better."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def require_positive(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is finite and above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} is {value}; it must be a finite number above 0")


def require_smoothing(label_smoothing: float) -> None:
    """Raise ValueError unless ``label_smoothing``, the chance that a label is flipped, is in [0, 0.5)."""
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}; it is the chance that a preference label is flipped and must be at "
            "least 0 and below 0.5 (at 0.5 the labels say nothing)"
        )


def require_same_shape(**tensors: Tensor | None) -> None:
    """Raise ValueError unless all tensors given have one shape: broadcasting pairs against pairs hides a mistake."""
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor is not None}
    if len(set(given.values())) > 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in given.items())
        raise ValueError(f"inputs must have one shape, got {shapes}")


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if it came so: half precision loses whole nats on a long response."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
