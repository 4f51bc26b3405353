"""Implicit Q-learning on logged traces: IQL on whole steps, ILQL on tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.modules.finetuner import Counts, FineTuner
from spatial_lightning.modules.imitation import hidden_size, require_not_negative, weighted_imitation
from spatial_lightning.modules.method import Method, Outcome, accepted_counts, imitation, whole
from spatial_lightning.modules.steps import Rewards, Steps
from spatial_lightning.modules.value_heads import ValueHeads
from spatial_lightning.objectives import advantage_weights, expectile_loss, q_loss, q_targets, v_loss
from spatial_lightning.objectives.returns import NO_STEP, Normalise, RewardScale
from spatial_lightning.tree import TreeBatch


@final
@dataclass(eq=False)
class IQL(Method):
    """IQL (arXiv:2110.06169) on steps: V before a step, twin Q behind it, the policy by advantage-weighted imitation.

    Attributes:
        reward, bonus, gamma: see :class:`Rewards`; rewards are summed, ``normalise`` can be nothing else.
        eta: expectile of V in (0, 1); 0.5 is the mean.
        temperature, max_weight: of the policy's weights, see :class:`~.imitation.AWR`.
        polyak: share of the way, in (0, 1], that target heads go to the heads in each step.
        value_weight: weight of the losses of V and Q, at least 0; matters where ``detach`` is off.
        detach: keep the heads' gradient from the backbone.
        head_width: of the heads' hidden layers; None takes that of the hidden states.
        head_lr: learning rate of the heads.

    Raises:
        ValueError: a value outside its range.
    """

    reward: RewardScale = "ninths"
    bonus: float = 1.0
    gamma: float = 1.0
    normalise: Normalise = "sum"
    eta: float = 0.7
    temperature: float = 0.5
    max_weight: float = 20.0
    polyak: float = 0.005
    value_weight: float = 1.0
    detach: bool = True
    head_width: int | None = None
    head_lr: float | None = 3e-4
    rewards: Rewards = field(init=False)

    def __post_init__(self) -> None:
        self.rewards = _summed_rewards("iql", self)
        advantage_weights(torch.zeros(1), temperature=self.temperature, max_weight=self.max_weight)

    def heads(self, backbone: Backbone) -> ValueHeads:
        """V, and Q of the state behind a step."""
        return ValueHeads(hidden_size(backbone), width=self.head_width, actions=1)

    def counts(self, tuner: FineTuner, batch: TreeBatch) -> Counts:
        """See :meth:`Method.counts`."""
        return accepted_counts(batch)

    def loss(self, tuner: FineTuner, batch: TreeBatch, totals: Counts) -> Outcome:
        """Advantage-weighted negative log-likelihood, and the regressions of V and Q over accepted steps."""
        heads, steps = tuner.heads, Steps.of(batch)
        assert isinstance(heads, ValueHeads)
        kept = steps.accepted
        rows = torch.cat([batch.predictors[steps.first[kept]], batch.targets[steps.last[kept]]])
        readout = tuner.backbone.read(batch, states=rows)
        assert readout.states is not None
        before, behind = (readout.states.detach() if self.detach else readout.states).chunk(2)
        with torch.no_grad():
            guess = heads.q_values(behind, targets=True)
        values = Values(heads.values(before), heads.q_values(behind), guess)
        rewards, following = self.rewards.immediate(steps)[kept], among(steps.following, kept)
        regression, metrics = values.regress(rewards, following, self.gamma, self.eta, whole(totals, "steps"))
        advantages = torch.zeros_like(steps.rating).masked_scatter(kept, values.advantages)
        loss, own, samples = weighted_imitation(
            readout.logps, batch, steps, advantages, totals, temperature=self.temperature, max_weight=self.max_weight
        )
        samples |= {"return": self.rewards.of(steps)[kept], "number": steps.number[kept].float()}
        return Outcome(loss + self.value_weight * regression, metrics | own, samples)


@final
@dataclass(eq=False)
class ILQL(Method):
    """ILQL (arXiv:2206.11871) on tokens: the policy imitates accepted steps, the heads bend its answers in decoding.

    A token's action is the next token; the reward falls on a step's last token, and the backup goes from there to the
    first token of the next accepted step, past the tool's output. The discount is taken between steps, so that V before a
    step is in the unit of :class:`IQL`.

    Attributes:
        cql_weight: weight, at least 0, of the push that keeps Q of tokens outside of the data down.
        others: as for :class:`IQL`.

    Raises:
        ValueError: a value outside its range.
    """

    reward: RewardScale = "ninths"
    bonus: float = 1.0
    gamma: float = 1.0
    normalise: Normalise = "sum"
    eta: float = 0.7
    cql_weight: float = 0.1
    polyak: float = 0.005
    value_weight: float = 1.0
    detach: bool = True
    head_width: int | None = None
    head_lr: float | None = 3e-4
    rewards: Rewards = field(init=False)

    def __post_init__(self) -> None:
        self.rewards = _summed_rewards("ilql", self)
        require_not_negative("cql_weight", self.cql_weight)

    def heads(self, backbone: Backbone) -> ValueHeads:
        """V, and Q of every next token."""
        vocabulary = backbone.model.get_output_embeddings().weight.shape[0]
        return ValueHeads(hidden_size(backbone), width=self.head_width, actions=vocabulary)

    def counts(self, tuner: FineTuner, batch: TreeBatch) -> Counts:
        """See :meth:`Method.counts`."""
        return accepted_counts(batch)

    def loss(self, tuner: FineTuner, batch: TreeBatch, totals: Counts) -> Outcome:
        """Negative log-likelihood, and the regressions of V and Q over the tokens of accepted steps."""
        heads, steps = tuner.heads, Steps.of(batch)
        assert isinstance(heads, ValueHeads)
        kept = steps.accepted[batch.branch]
        readout = tuner.backbone.read(batch, states=batch.predictors[kept])
        assert readout.states is not None
        states = readout.states.detach() if self.detach else readout.states
        actions = batch.ids[batch.targets[kept]]
        with torch.no_grad():
            guess = heads.q_values(states, actions, targets=True)
        values = Values(heads.values(states), heads.q_values(states, actions), guess)
        ends = torch.zeros_like(batch.branch, dtype=torch.bool).scatter(0, steps.last, True)
        rewards = torch.where(ends, self.rewards.immediate(steps)[batch.branch], 0.0)[kept]
        discount = torch.where(ends, self.gamma, 1.0)[kept]
        following = among(steps.following_tokens(), kept)
        regression, metrics = values.regress(rewards, following, discount, self.eta, whole(totals, "tokens"))
        push = heads.conservatism(states, actions).sum() / whole(totals, "tokens")
        loss, own = imitation(readout.logps, batch, steps, torch.ones_like(steps.rating), totals)
        metrics |= own | {"cql": push.detach(), "advantage": values.advantages.sum() / whole(totals, "tokens")}
        samples = {
            "advantage": values.advantages,
            "return": self.rewards.of(steps)[steps.accepted],
            "number": steps.number[steps.accepted].float(),
        }
        return Outcome(loss + self.value_weight * (regression + self.cql_weight * push), metrics, samples)


class Values(NamedTuple):
    """What the heads say about the actions of a row.

    Attributes:
        v: value of the state before each action.
        q: value of each action under the heads that learn.
        guess: under the target heads, without gradient.
    """

    v: Float[Tensor, " actions"]
    q: Float[Tensor, "heads actions"]
    guess: Float[Tensor, "heads actions"]

    @property
    def advantages(self) -> Float[Tensor, " actions"]:
        """The smaller target Q minus V, detached."""
        return self.guess.amin(0) - self.v.detach()

    def regress(
        self,
        rewards: Float[Tensor, " actions"],
        following: Int[Tensor, " actions"],
        discount: float | Float[Tensor, " actions"],
        eta: float,
        total: float,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Losses of V and Q over ``total`` actions of the step, and their metrics."""
        wanted = q_targets(rewards, self.v, following, discount)
        value = v_loss(self.v, self.guess, tau=eta).sum() / total
        action = q_loss(self.q, wanted).sum() / total
        metrics = {
            "value_loss": value.detach(),
            "q_loss": action.detach(),
            "value": self.v.detach().sum() / total,
            "value_error": (wanted - self.v.detach()).square().sum() / total,
        }
        return value + action, metrics


def among(following: Int[Tensor, " n"], kept: Tensor) -> Int[Tensor, " m"]:
    """Indices into all, as indices into the kept; -1 stays."""
    place = kept.long().cumsum(0) - 1
    own = following[kept]
    return torch.where(own != NO_STEP, place[torch.where(own != NO_STEP, own, 0)], NO_STEP)


def _summed_rewards(kind: str, method: IQL | ILQL) -> Rewards:
    if method.normalise != "sum":
        raise ValueError(
            f"objective.normalise is {method.normalise!r} with kind={kind}, whose backups add rewards up: set it to sum"
        )
    if not 0 < method.polyak <= 1:
        raise ValueError(f"objective.polyak is {method.polyak}; it is a share above 0 and at most 1")
    require_not_negative("value_weight", method.value_weight)
    expectile_loss(torch.zeros(1), tau=method.eta)
    return Rewards(method.reward, method.bonus, method.gamma, method.normalise)
