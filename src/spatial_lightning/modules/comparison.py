"""Offline RL against a reference policy, where rejected attempts count: Step-DPO and KTO on steps."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spatial_lightning.modules.baselines import training_traces
from spatial_lightning.modules.finetuner import Counts, FineTuner
from spatial_lightning.modules.imitation import require_not_negative
from spatial_lightning.modules.method import Method, Outcome, whole
from spatial_lightning.modules.mismatched import ForeignActions
from spatial_lightning.modules.steps import Steps
from spatial_lightning.objectives import kto_loss, preference_loss, preference_metrics, rating_filter, segment_sums
from spatial_lightning.objectives.returns import NO_STEP
from spatial_lightning.records import Trace
from spatial_lightning.tree import TreeBatch

BALANCE = (1.0, 4 / 3)
"""Where arXiv:2402.01306 wants weight times count of the desirable over that of the undesirable."""

log = logging.getLogger(__name__)


@final
@dataclass(eq=False)
class StepDPO(Method):
    """Step-DPO (arXiv:2406.18629): every rejected attempt against the step accepted in the same state, DPO on those tokens.

    Attributes:
        beta: strength of the pull to the reference, above 0.
        min_gap: least rating of the accepted minus that of the rejected, at least 0; attempts without a rating are left out.

    Raises:
        ValueError: a value outside its range.
    """

    needs_reference: ClassVar[bool] = True
    beta: float = 0.1
    min_gap: float = 1.0

    def __post_init__(self) -> None:
        require_not_negative("min_gap", self.min_gap)
        preference_loss(*[torch.zeros(1)] * 4, beta=self.beta)

    def fit(self, tuner: FineTuner, data: Any) -> None:
        """Make sure that there is something to compare.

        Raises:
            ValueError: no training trace has an attempt that makes a pair.
        """
        traces = _traces_if_known(data)
        if traces is not None and not any(map(self._has_pair, traces)):
            raise ValueError(
                f"no training trace has a rejected attempt rated {self.min_gap:g} or more below the step accepted in its "
                "place: set data.module.include_rejected=true, lower objective.min_gap, or choose another objective"
            )

    def _has_pair(self, trace: Trace) -> bool:
        return any(
            step.rating is not None and rating is not None and step.rating - rating >= self.min_gap
            for step in trace.steps
            for _, rating in step.rejected
        )

    def counts(self, tuner: FineTuner, batch: TreeBatch) -> Counts:
        """Pairs, and the attempts that could have been one."""
        steps = Steps.of(batch)
        return {"pairs": float(self.pairs(steps)[0].numel()), "attempts": float((~steps.accepted).sum())}

    def pairs(self, steps: Steps) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        """Accepted and rejected branch of each pair."""
        accepted = steps.accepted_at()
        gap = steps.rating[accepted] - steps.rating
        rejected = (~steps.accepted & (accepted != NO_STEP) & (gap >= self.min_gap)).nonzero().flatten()
        return accepted[rejected], rejected

    def loss(self, tuner: FineTuner, batch: TreeBatch, totals: Counts) -> Outcome:
        """Sum of the row's pair losses over the step's pairs."""
        chosen, rejected = self.pairs(Steps.of(batch))
        policy, reference = (
            by_branch(tuner.backbone.logps(batch), batch),
            by_branch(tuner.reference.logps(batch), batch),
        )
        sides = (policy[chosen], policy[rejected], reference[chosen], reference[rejected])
        losses = preference_loss(*sides, beta=self.beta)
        metrics = {n: v.sum() / whole(totals, "pairs") for n, v in preference_metrics(*sides, beta=self.beta).items()}
        for name, own in (("chosen", chosen), ("rejected", rejected)):
            metrics[f"logps_{name}"] = policy[own].detach().sum() / whole(totals, "pairs")
        metrics["paired"] = losses.new_tensor(rejected.numel()) / whole(totals, "attempts")
        return Outcome(losses.sum() / whole(totals, "pairs"), metrics, {})


@final
@dataclass(eq=False)
class KTO(Method):
    """KTO (arXiv:2402.01306) on steps: accepted or rejected, whatever is rated ``tau`` or better is desirable.

    The reference point z0 is the mean log-ratio of the policy to the reference over mismatched pairs of state and action:
    behind every accepted step's state of the batch, the action of a step of another question (:class:`ForeignActions`). It
    is known before the first row's loss, takes one more forward pass of each row without gradient, and is one number
    for all rows and ranks of a step.

    Attributes:
        tau: least rating of a desirable step, in [0, 10]; what nobody rated is left out.
        beta: aversion to risk, above 0.
        desirable_weight, undesirable_weight: weights of the two, above 0.
        reference_point: ``mismatched``, or ``zero`` to do without.

    Raises:
        ValueError: a value outside its range.
    """

    needs_reference: ClassVar[bool] = True
    tau: float = 4.0
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    reference_point: Literal["mismatched", "zero"] = "mismatched"
    foreign: ForeignActions | None = field(init=False, default=None)
    _warned: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if self.reference_point not in ("mismatched", "zero"):
            raise ValueError(f"objective.reference_point is {self.reference_point!r}; allowed: mismatched, zero")
        rating_filter(torch.zeros(1), tau=self.tau)
        self._losses(torch.zeros(1), torch.zeros(1), torch.ones(1).bool(), 0.0)

    @property
    def reference_use(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A complete cache of the corpus alone lacks the mismatched pairs."""
        return "+mismatched" if self.reference_point == "mismatched" else ""

    def fit(self, tuner: FineTuner, data: Any) -> None:
        """Take actions for mismatched pairs from the training traces, and weigh up the two classes.

        Raises:
            ValueError: there are no training traces, or weights are cut over ranks, which the pass for z0 cannot do.
        """
        if self.reference_point == "mismatched":
            what, instead = "objective.reference_point=mismatched", "objective.reference_point=zero"
            if tuner.sharded:
                raise ValueError(
                    f"{what} takes passes that ranks do not share, as FSDP wants: choose {instead}, or ddp"
                )
            self.foreign = ForeignActions(training_traces(data, what, instead), tuner.backbone.processor)
        ratings = [
            rating
            for trace in _traces_if_known(data) or ()
            for step in trace.steps
            for rating in (step.rating, *(rating for _, rating in step.rejected))
            if rating is not None
        ]
        if ratings:
            self._weigh(sum(rating >= self.tau for rating in ratings), len(ratings))

    def other_row(self, batch: TreeBatch) -> TreeBatch | None:
        """The row's states with the actions of other questions."""
        return None if self.foreign is None else self.foreign.row(batch)

    @torch.no_grad()
    def counts(self, tuner: FineTuner, batch: TreeBatch) -> Counts:
        """Rated steps, and the drift of the policy on the row's mismatched pairs (nats, summed)."""
        rated, good = self.labels(Steps.of(batch))
        drift, pairs, other = 0.0, 0.0, self.other_row(batch)
        if other is not None:
            drift = float((tuner.backbone.logps(other) - tuner.reference.logps(other)).sum())
            pairs = float(other.branches)
        sizes = {"responses": float(rated.sum()), "desirable": float(good.sum())}
        return sizes | {"undesirable": sizes["responses"] - sizes["desirable"], "drift": drift, "mismatched": pairs}

    def labels(self, steps: Steps) -> tuple[Bool[Tensor, " steps"], Bool[Tensor, " steps"]]:
        """Which branches are rated, and which of them desirable."""
        return steps.rated, steps.rated & rating_filter(steps.rating, tau=self.tau)

    def loss(self, tuner: FineTuner, batch: TreeBatch, totals: Counts) -> Outcome:
        """Sum of the row's losses over the step's rated steps."""
        if self.reference_point == "mismatched" and not totals["mismatched"] and not self._warned:
            log.warning("KTO: no mismatched pair of state and action in a step; z0 is 0 there")
            self._warned = True
        kl = max(0.0, totals["drift"] / whole(totals, "mismatched"))
        rated, good = self.labels(Steps.of(batch))
        policy = by_branch(tuner.backbone.logps(batch), batch)[rated]
        reference = by_branch(tuner.reference.logps(batch), batch)[rated]
        good = good[rated]
        losses = self._losses(policy, reference, good, kl)
        gains = self.beta * (policy.detach() - reference)
        metrics = {
            "reward_desirable": torch.where(good, gains, 0.0).sum() / whole(totals, "desirable"),
            "reward_undesirable": torch.where(good, 0.0, gains).sum() / whole(totals, "undesirable"),
            "desirable": good.sum() / whole(totals, "responses"),
            # Every row adds its share of a number that all have in common.
            "z0": losses.new_tensor(kl) * losses.numel() / whole(totals, "responses"),
        }
        return Outcome(losses.sum() / whole(totals, "responses"), metrics, {})

    def _losses(self, policy: Tensor, reference: Tensor, good: Tensor, kl: float) -> Float[Tensor, " responses"]:
        weights = {"desirable_weight": self.desirable_weight, "undesirable_weight": self.undesirable_weight}
        return kto_loss(policy, reference, good, kl, beta=self.beta, **weights)

    def _weigh(self, good: int, rated: int) -> None:
        bad = rated - good
        if not good or not bad:
            side = "no step" if not good else "every step"
            log.warning(
                "KTO: %s of the training traces is desirable at tau=%g: it learns from one class", side, self.tau
            )
            return
        ratio = self.desirable_weight * good / (self.undesirable_weight * bad)
        if not BALANCE[0] <= ratio <= BALANCE[1]:
            log.warning(
                "KTO: weights times counts of desirable (%d) and undesirable (%d) steps are as %.3g to 1, best is 1 to 4/3: "
                "set objective.undesirable_weight between %.4g and %.4g",
                good,
                bad,
                ratio,
                self.desirable_weight * good / (BALANCE[1] * bad),
                self.desirable_weight * good / (BALANCE[0] * bad),
            )


def _traces_if_known(data: Any) -> Iterable[Trace] | None:
    """The training traces; None where there are none to look at, as in a stream."""
    try:
        return training_traces(data, "", "")
    except ValueError:
        return None


def by_branch(logps: Float[Tensor, " targets"], batch: TreeBatch) -> Float[Tensor, " branches"]:
    """Log-probability of each branch, nats."""
    return segment_sums(logps, batch.branch, torch.zeros_like(batch.branch), branches=batch.branches, segments=1)[:, 0]
