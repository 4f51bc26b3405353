"""Sums over the ranks of a distributed run."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def summed(values: Mapping[str, float], ranks: int) -> dict[str, float]:
    """Sum of each named number over all ranks; a rank may lack a name, e.g. because it has no example in a step."""
    if ranks == 1:
        return dict(values)
    gathered: list[dict[str, float]] = [{} for _ in range(ranks)]
    torch.distributed.all_gather_object(gathered, dict(values))
    totals: dict[str, float] = {}
    for own in gathered:
        for name, value in own.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals
