"""What a kind of offline RL has to say: what it adds to the model, what it counts, and its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.modules.finetuner import Counts, FineTuner
from spatial_lightning.modules.steps import Steps
from spatial_lightning.modules.value_heads import ValueHeads
from spatial_lightning.objectives import weighted_nll
from spatial_lightning.tree import TreeBatch


class Outcome(NamedTuple):
    """A row's share of a step.

    Attributes:
        loss: share of the loss.
        metrics: shares of metrics, sum over the row / total of the step.
        samples: numbers of single accepted steps, of which quantiles are logged.
    """

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]
    samples: Mapping[str, Float[Tensor, " steps"]]


class Method(ABC):
    """One kind of offline RL; a subclass is a dataclass of its settings, which are checked when it is made."""

    needs_reference: ClassVar[bool] = False
    reference_use: ClassVar[str] = ""
    head_lr: float | None = None
    polyak: float = 0.0

    def heads(self, backbone: Backbone) -> ValueHeads | None:
        """What is trained beside the backbone."""
        return None

    def fit(self, tuner: FineTuner, data: Any) -> None:  # noqa: B027
        """Learn what the loss needs to know of the corpus; ``data`` may be None."""

    def other_row(self, batch: TreeBatch) -> TreeBatch | None:
        """A row made from a row of data whose reference log-probabilities are needed as well."""
        return None

    @abstractmethod
    def counts(self, tuner: FineTuner, batch: TreeBatch) -> Counts:
        """Denominators that this row contributes to the step, by name."""

    @abstractmethod
    def loss(self, tuner: FineTuner, batch: TreeBatch, totals: Counts) -> Outcome:
        """The row's share of the loss."""


def accepted_counts(batch: TreeBatch) -> Counts:
    """Accepted steps and their trained tokens, whatever their weights."""
    accepted = Steps.of(batch).accepted
    return {"tokens": float(accepted[batch.branch].sum()), "steps": float(accepted.sum())}


def imitation(
    logps: Float[Tensor, " targets"],
    batch: TreeBatch,
    steps: Steps,
    weights: Float[Tensor, " steps"],
    totals: Counts,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Weighted negative log-likelihood of accepted steps, over the unweighted count of their tokens in the whole step.

    Args:
        weights: of each branch; rejected attempts are never imitated, whatever theirs.
    """
    weights = torch.where(steps.accepted, weights, 0.0)
    loss = weighted_nll(logps, weights[batch.branch], denominator=whole(totals, "tokens"))
    accepted = steps.accepted.to(logps.dtype)[batch.branch]
    metrics = {
        "nll": weighted_nll(logps.detach(), accepted, denominator=whole(totals, "tokens")),
        "weight_mean": weights.sum() / whole(totals, "steps"),
        "kept": (weights > 0).sum() / whole(totals, "steps"),
        "unrated": (steps.accepted & ~steps.rated).sum() / whole(totals, "steps"),
    }
    return loss, metrics


def whole(totals: Counts, name: str) -> float:
    """A denominator; 1 where the step has nothing of the kind, so that its sum of nothing is 0."""
    return totals[name] or 1.0
