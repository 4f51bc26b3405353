"""What a step's return is held against: nothing, the corpus, the step's number, or the other traces of the question."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from spatial_lightning.modules.steps import Rewards, Steps
from spatial_lightning.objectives.returns import NO_STEP, rival_returns
from spatial_lightning.records import Trace

BaselineKind = Literal["none", "dataset", "step", "question", "value"]
BASELINES = ("none", "dataset", "step", "question", "value")

log = logging.getLogger(__name__)


@final
class Baseline:
    """b(s_t) of AWR, fitted on the training traces where it needs them.

    Args:
        kind: ``none`` (0, which makes AWR RWR), ``dataset`` (mean return of the corpus), ``step`` (mean return at the same
            t; behind the longest trace, at its last step), ``question`` (mean return at the same t of the other traces of
            the question in the row, the corpus's mean where there is none). ``value`` is a head's and not computed here.
        rewards: how returns are computed.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kind: BaselineKind, rewards: Rewards) -> None:
        if kind not in BASELINES:
            raise ValueError(f"objective.baseline is {kind!r}; allowed: {', '.join(BASELINES)}")
        self.kind, self.rewards = kind, rewards
        self.mean: float | None = None
        self.by_step: Float[Tensor, " steps"] | None = None

    def fit(self, data: Any) -> None:
        """Learn the means of the corpus from a data module's ``trace_records("train")``.

        Raises:
            ValueError: there is none, or the question baseline has no question with two traces.
        """
        if self.kind in ("none", "value"):
            return
        what = f"objective.baseline={self.kind}"
        if self.kind == "question":
            asked = Counter(
                (trace.images, trace.question.text, trace.system)
                for trace in training_traces(data, what, "objective.baseline=none")
            )
            if max(asked.values(), default=0) < 2:
                raise ValueError(
                    "objective.baseline=question compares traces of one question, and no question of the corpus has two: "
                    "choose baseline=step, or add traces"
                )
        returns, number = corpus_returns(training_traces(data, what, "objective.baseline=none"), self.rewards)
        if not returns.numel():
            raise ValueError(f"{what} is fitted on the training traces, and there is none")
        self.mean = float(returns.mean())
        counts = torch.bincount(number)
        self.by_step = torch.bincount(number, weights=returns) / counts
        log.info("baseline %s: mean return %.4f over %d steps", self.kind, self.mean, returns.numel())

    def of(self, steps: Steps, returns: Float[Tensor, " steps"]) -> Float[Tensor, " steps"]:
        """Baselines of a row's accepted steps; what it says of rejected attempts means nothing."""
        if self.kind in ("none", "value"):
            return torch.zeros_like(returns)
        assert self.mean is not None
        assert self.by_step is not None
        if self.kind == "dataset":
            return torch.full_like(returns, self.mean)
        if self.kind == "step":
            table = self.by_step.to(returns)
            return table[steps.number.clamp(max=table.numel() - 1)]
        kept = steps.accepted
        rivals = rival_returns(returns[kept], steps.number[kept], steps.trajectory[kept], steps.question[kept])
        return torch.full_like(returns, self.mean).masked_scatter(kept, rivals.nan_to_num(nan=self.mean))


def corpus_returns(traces: Iterable[Trace], rewards: Rewards) -> tuple[Float[Tensor, " steps"], Tensor]:
    """Return (float64) and number of every step of a corpus."""
    rating: list[float] = []
    correct: list[float] = []
    final: list[bool] = []
    number: list[int] = []
    for trace in traces:
        last = len(trace.steps) - 1
        rating += [float("nan") if step.rating is None else step.rating for step in trace.steps]
        correct += [float("nan") if trace.correct is None else float(trace.correct)] * (last + 1)
        final += [index == last for index in range(last + 1)]
        number += range(last + 1)
    ends = torch.tensor(final)
    following = torch.where(ends, NO_STEP, torch.arange(1, ends.numel() + 1))
    ratings, answers = (torch.tensor(column, dtype=torch.float64) for column in (rating, correct))
    return rewards.returns(ratings, answers, ends, following), torch.tensor(number)


def training_traces(data: Any, what: str, instead: str) -> Iterable[Trace]:
    """The training traces of a data module.

    Raises:
        ValueError: it has none to give.
    """
    if not hasattr(data, "trace_records"):
        raise ValueError(f"{what} is fitted on the training traces, which only data of traces gives: choose {instead}")
    return data.trace_records("train")
