"""Offline RL as weighted imitation of accepted steps: filtered BC, reward-weighted and advantage-weighted regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.modules.baselines import Baseline, BaselineKind
from spatial_lightning.modules.finetuner import Counts, FineTuner
from spatial_lightning.modules.method import Method, Outcome, accepted_counts, imitation, whole
from spatial_lightning.modules.steps import Rewards, Steps
from spatial_lightning.modules.value_heads import ValueHeads
from spatial_lightning.objectives import advantage_weights, expectile_loss, rating_filter
from spatial_lightning.objectives.returns import Normalise, RewardScale
from spatial_lightning.tree import TreeBatch


@final
@dataclass(eq=False)
class FilteredBC(Method):
    """Imitate what is rated well enough.

    Attributes:
        tau: least rating, in [0, 10]; 0 is SFT on the accepted steps.
        level: ``step`` filters single steps, ``trace`` whole traces by the mean rating of their accepted steps.

    Raises:
        ValueError: a value outside its range.
    """

    tau: float = 4.0
    level: Literal["step", "trace"] = "step"

    def __post_init__(self) -> None:
        if self.level not in ("step", "trace"):
            raise ValueError(f"objective.level is {self.level!r}; allowed: step, trace")
        rating_filter(torch.zeros(1), tau=self.tau)

    def counts(self, tuner: FineTuner, batch: TreeBatch) -> Counts:
        """See :meth:`Method.counts`."""
        return accepted_counts(batch)

    def loss(self, tuner: FineTuner, batch: TreeBatch, totals: Counts) -> Outcome:
        """Negative log-likelihood of what is kept."""
        steps = Steps.of(batch)
        rating = steps.rating if self.level == "step" else steps.means_by_trace()
        weights = rating_filter(rating, tau=self.tau).float()
        loss, metrics = imitation(tuner.backbone.logps(batch), batch, steps, weights, totals)
        return Outcome(loss, metrics, {"weight": weights[steps.accepted]})


@final
@dataclass(eq=False)
class AWR(Method):
    """Imitate accepted steps the more, the more their return exceeds a baseline (AWR, arXiv:1910.00177).

    Attributes:
        reward, bonus, gamma, normalise: see :class:`Rewards`.
        baseline: see :class:`Baseline`, or ``value``: a head on the state before the step, regressed on returns.
        temperature: return that multiplies a weight by e, above 0; infinity is SFT on the accepted steps.
        max_weight: largest weight, above 0.
        value_weight: weight of the value head's loss, at least 0; matters where ``detach`` is off.
        detach: keep the value head's gradient from the backbone.
        head_width: of the value head's hidden layer; None takes that of the hidden states.
        head_lr: learning rate of the value head.

    Raises:
        ValueError: a value outside its range.
    """

    reward: RewardScale = "ninths"
    bonus: float = 1.0
    gamma: float = 1.0
    normalise: Normalise = "mean"
    baseline: BaselineKind = "step"
    temperature: float = 0.5
    max_weight: float = 20.0
    value_weight: float = 1.0
    detach: bool = True
    head_width: int | None = None
    head_lr: float | None = 3e-4
    rewards: Rewards = field(init=False)
    against: Baseline = field(init=False)

    def __post_init__(self) -> None:
        self.rewards = Rewards(self.reward, self.bonus, self.gamma, self.normalise)
        self.against = Baseline(self.baseline, self.rewards)
        advantage_weights(torch.zeros(1), temperature=self.temperature, max_weight=self.max_weight)
        require_not_negative("value_weight", self.value_weight)

    def heads(self, backbone: Backbone) -> ValueHeads | None:
        """V where it is the baseline."""
        return ValueHeads(hidden_size(backbone), width=self.head_width) if self.baseline == "value" else None

    def fit(self, tuner: FineTuner, data: Any) -> None:
        """Fit the baseline."""
        self.against.fit(data)

    def counts(self, tuner: FineTuner, batch: TreeBatch) -> Counts:
        """See :meth:`Method.counts`."""
        return accepted_counts(batch)

    def loss(self, tuner: FineTuner, batch: TreeBatch, totals: Counts) -> Outcome:
        """Advantage-weighted negative log-likelihood, and the value head's squared error."""
        steps = Steps.of(batch)
        kept, returns = steps.accepted, self.rewards.of(steps)
        against = self.against.of(steps, returns)
        regression, error = torch.zeros((), device=returns.device), {}
        if isinstance(tuner.heads, ValueHeads):
            readout = tuner.backbone.read(batch, states=batch.predictors[steps.first[kept]])
            assert readout.states is not None
            logps = readout.logps
            values = tuner.heads.values(readout.states.detach() if self.detach else readout.states)
            missed = returns[kept] - values
            regression = expectile_loss(missed, tau=0.5).sum() / whole(totals, "steps")
            error["value_error"] = missed.detach().square().sum() / whole(totals, "steps")
            against = against.masked_scatter(kept, values.detach())
        else:
            logps = tuner.backbone.logps(batch)
        advantages = returns - against
        loss, metrics, samples = weighted_imitation(
            logps, batch, steps, advantages, totals, temperature=self.temperature, max_weight=self.max_weight
        )
        metrics |= error | {"return": returns[kept].sum() / whole(totals, "steps")}
        samples |= {"return": returns[kept], "number": steps.number[kept].float()}
        return Outcome(loss + self.value_weight * regression, metrics, samples)


def rwr(
    *,
    reward: RewardScale = "ninths",
    bonus: float = 1.0,
    gamma: float = 1.0,
    normalise: Normalise = "mean",
    temperature: float = 0.5,
    max_weight: float = 20.0,
) -> AWR:
    """Reward-weighted regression (Peters and Schaal 2007): AWR without a baseline; settings as for :class:`AWR`."""
    return AWR(reward, bonus, gamma, normalise, "none", temperature, max_weight)


def weighted_imitation(
    logps: Float[Tensor, " targets"],
    batch: TreeBatch,
    steps: Steps,
    advantages: Float[Tensor, " steps"],
    totals: Counts,
    *,
    temperature: float,
    max_weight: float,
) -> tuple[Float[Tensor, ""], dict[str, Tensor], dict[str, Tensor]]:
    """Loss of advantage-weighted imitation, its metrics, and the weights and advantages of single accepted steps."""
    weights = advantage_weights(advantages, temperature=temperature, max_weight=max_weight)
    loss, metrics = imitation(logps, batch, steps, weights, totals)
    own, gain = weights[steps.accepted], advantages[steps.accepted]
    metrics["clipped"] = (own >= max_weight).sum() / whole(totals, "steps")
    metrics["advantage"] = gain.sum() / whole(totals, "steps")
    return loss, metrics, {"weight": own, "advantage": gain}


def hidden_size(backbone: Backbone) -> int:
    """Width of the language tower's last hidden states."""
    return backbone.model.config.get_text_config().hidden_size


def require_not_negative(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is finite and at least 0."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"objective.{name} is {value}; it must be finite and at least 0")
