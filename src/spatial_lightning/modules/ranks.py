"""Values and sums over the ranks of a distributed run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch

T = TypeVar("T")


def gathered(value: T, ranks: int) -> list[T]:
    """Every rank's value, in the order of ranks."""
    values = [value] * ranks
    if ranks > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def added(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sum of each named number; a part may lack a name, e.g. because it has no example in a step."""
    totals: dict[str, float] = {}
    for own in parts:
        for name, value in own.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals


def summed(values: Mapping[str, float], ranks: int) -> dict[str, float]:
    """Sum of each named number over all ranks."""
    return added(gathered(dict(values), ranks))
