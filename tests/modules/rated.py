"""Rated traces, a data module that serves them, and each kind's loss written down once more, in float64 and plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from samples import question
from torch import Tensor
from torch.utils.data import DataLoader

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.records import Step, Trace
from spatial_lightning.tree import TokenTree, TreeBatch, pack


def rated_traces(pictures: Sequence[Path]) -> list[list[Trace]]:
    """Traces of three questions: two traces with a picture from a tool, one with an unrated step, one without a picture."""
    first = question("q0", "Which is taller?", "the cube")
    one = (
        Step("look at depth", "here it is", tuple(pictures[1:2]), 5.0, (("guess the cube", 2.0), ("no", None))),
        Step("measure the cone", "3.5 meters", (), 8.0),
        Step("The answer is the cube", rating=9.0, rejected=(("The answer is the cone", 1.0),)),
    )
    two = (
        Step("look", "nothing", (), 3.0),
        Step("The answer is the sphere", rating=7.0, rejected=(("The answer is no", 6.5), ("yes yes", 2.0))),
    )
    second = (Step("measure the sphere", "1.5 meters", (), 10.0, (("measure", 1.0),)), Step("1.5 meters"))
    images = tuple(pictures[:1])
    return [
        [Trace("a", images, first, one, True), Trace("b", images, first, two, False)],
        [Trace("c", tuple(pictures[2:3]), question("q1", "How far is the sphere?", "1.5 meters"), second, None)],
        [Trace("d", (), question("q2", "Is it red?", "yes"), (Step("yes it is", rating=4.0),), True)],
    ]


def trees_of(backbone: Backbone, groups: Sequence[Sequence[Trace]]) -> list[TokenTree]:
    """One tree a question."""
    encoder = Encoder(backbone.processor)
    return [encoder.traces(group) for group in groups]


class Traces(L.LightningDataModule):
    """Serves packed steps given outright, and the records behind them."""

    def __init__(self, groups: Sequence[Sequence[Trace]], steps: Sequence[Sequence[Sequence[TokenTree]]]) -> None:
        super().__init__()
        self.groups = groups
        self.steps = [[pack(row, keys=True) for row in step] for step in steps]

    def trace_records(self, split: str) -> Iterator[Trace]:
        assert split == "train"
        return (trace for group in self.groups for trace in group)

    def fingerprint(self) -> str:
        return "rated traces"

    def reference_rows(self, limit: int | None = None) -> Iterator[TreeBatch]:
        yield from [row for step in self.steps for row in step][:limit]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.steps, batch_size=None, num_workers=0)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()


@dataclass
class Branch:
    """A step or an attempt as the oracle sees it; ``at`` are its tokens among the targets of the row."""

    tree: int
    trace: Trace
    number: int
    text: str
    rating: float
    accepted: bool
    at: slice

    @property
    def last(self) -> bool:
        return self.number == len(self.trace.steps) - 1


def branches_of(groups: Sequence[Sequence[Trace]], batch: TreeBatch) -> list[Branch]:
    """Steps and attempts in the order of a row that holds all trees."""
    found: list[Branch] = []
    counts = torch.bincount(batch.branch).tolist()
    start = 0
    for tree, group in enumerate(groups):
        for trace in group:
            for number, step in enumerate(trace.steps):
                for index, (text, rating) in enumerate(((step.text, step.rating), *step.rejected)):
                    end = start + counts[len(found)]
                    rated = math.nan if rating is None else rating
                    found.append(Branch(tree, trace, number, text, rated, index == 0, slice(start, end)))
                    start = end
    assert len(found) == batch.branches
    return found


def reward(rating: float) -> float:
    """(rating - 1) / 9, 0 where unrated."""
    return 0.0 if math.isnan(rating) else (rating - 1) / 9


def return_of(trace: Trace, t: int, *, gamma: float = 1.0, normalise: str = "mean", bonus: float = 1.0) -> float:
    """G_t by its definition."""
    rated = [(u, (s.rating - 1) / 9) for u, s in enumerate(trace.steps) if u >= t and s.rating is not None]
    total = sum(gamma ** (u - t) * r for u, r in rated)
    if normalise == "mean":
        total = total / sum(gamma ** (u - t) for u, _ in rated) if rated else 0.0
    return total + gamma ** (len(trace.steps) - 1 - t) * bonus * bool(trace.correct)


def imitated(logps: Tensor, branches: Sequence[Branch], weights: dict[int, float]) -> Tensor:
    """Weighted negative log-likelihood of accepted steps over the count of their tokens."""
    accepted = [(i, branch) for i, branch in enumerate(branches) if branch.accepted]
    tokens = sum(branch.at.stop - branch.at.start for _, branch in accepted)
    terms = [weights[i] * logps[branch.at].double().sum() for i, branch in accepted]
    return -torch.stack(terms).sum() / tokens
