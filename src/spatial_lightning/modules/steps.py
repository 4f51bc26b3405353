"""Steps of tool-use traces as a packed row holds them: who follows whom, who was rejected, who saw the same state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spatial_lightning.objectives.returns import (
    NO_STEP,
    Normalise,
    RewardScale,
    rating_rewards,
    step_returns,
)
from spatial_lightning.tree import TreeBatch

VALUES = ("step", "rating", "accepted", "next", "correct", "trace", "final")


@dataclass(frozen=True, slots=True)
class Steps:
    """The branches of a row, each an accepted step or an attempt that was rejected in its place.

    Attributes:
        number: place of the step within its trace, from 0; a rejected attempt has that of the step it was to be.
        rating: verifier's rating in [1, 10], NaN where there is none.
        accepted: whether the trace went on with it.
        following: index of the step that came next, -1 behind the last and behind rejected attempts.
        correct: 1 or 0 by the trace's answer, NaN where nobody judged it.
        final: whether it is the last step of its trace.
        question: index of its tree in the row.
        trajectory: index of its trace in the row.
        first: index among the row's targets of its first token.
        last: likewise of its last token.
    """

    number: Int[Tensor, " steps"]
    rating: Float[Tensor, " steps"]
    accepted: Bool[Tensor, " steps"]
    following: Int[Tensor, " steps"]
    correct: Float[Tensor, " steps"]
    final: Bool[Tensor, " steps"]
    question: Int[Tensor, " steps"]
    trajectory: Int[Tensor, " steps"]
    first: Int[Tensor, " steps"]
    last: Int[Tensor, " steps"]

    @classmethod
    def of(cls, batch: TreeBatch) -> Steps:
        """Read a row.

        Raises:
            ValueError: the row is not of traces.
        """
        missing = [name for name in VALUES if name not in batch.values]
        if missing:
            raise ValueError(
                f"offline RL trains on tool-use traces; example {batch.tree_ids[0]} has no {', '.join(missing)}: "
                "choose data of traces, or another objective"
            )
        values, device = batch.values, batch.ids.device
        own = torch.arange(batch.branches, device=device)
        places = torch.arange(batch.branch.numel(), device=device)
        nothing = torch.zeros_like(own)
        sizes = torch.tensor(batch.tree_targets, device=device)
        trees = torch.arange(sizes.numel(), device=device).repeat_interleave(sizes)
        question = nothing.scatter(0, batch.branch, trees)
        trace = values["trace"]
        _, trajectory = torch.unique(question * (trace.max() + 1) + trace, return_inverse=True)
        return cls(
            number=values["step"],
            rating=values["rating"],
            accepted=values["accepted"],
            following=torch.where(values["next"] > 0, own + values["next"], NO_STEP),
            correct=values["correct"],
            final=values["final"] & values["accepted"],
            question=question,
            trajectory=trajectory,
            first=nothing.scatter_reduce(0, batch.branch, places, "amin", include_self=False),
            last=nothing.scatter_reduce(0, batch.branch, places, "amax", include_self=False),
        )

    @property
    def rated(self) -> Bool[Tensor, " steps"]:
        """Which steps have a rating."""
        return self.rating.isfinite()

    def means_by_trace(self) -> Float[Tensor, " steps"]:
        """For every step the mean rating of its trace's accepted steps that are rated, NaN where none is."""
        counted = self.accepted & self.rated
        empty = self.rating.new_zeros(int(self.trajectory.max()) + 1)
        sums = empty.index_add(0, self.trajectory, torch.where(counted, self.rating, 0.0))
        return (sums / empty.index_add(0, self.trajectory, counted.to(empty)))[self.trajectory]

    def accepted_at(self) -> Int[Tensor, " steps"]:
        """For every step and attempt the index of the step accepted in the same state, -1 where there is none."""
        length = int(self.number.max()) + 1
        state = self.trajectory * length + self.number
        chosen = torch.full((int(state.max()) + 1,), NO_STEP, device=state.device)
        chosen[state[self.accepted]] = self.accepted.nonzero().flatten()
        return chosen[state]

    def following_tokens(self) -> Int[Tensor, " targets"]:
        """For every trained token the index of the one its trace goes on with, past all that is context; -1 behind the last."""
        following = torch.arange(1, int(self.last.max()) + 2, device=self.last.device)
        goes_on = self.following != NO_STEP
        following[self.last] = torch.where(goes_on, self.first[torch.where(goes_on, self.following, 0)], NO_STEP)
        return following


@dataclass(frozen=True, slots=True)
class Rewards:
    """How ratings and answers become rewards and returns.

    Attributes:
        reward: ``ninths`` for (rating - 1) / 9, ``tenths`` for rating / 10.
        bonus: extra reward, at least 0, of the last step of a trace whose answer is right; ratings ignore the answer.
        gamma: discount of one step, in (0, 1].
        normalise: ``mean`` or ``sum`` of the rewards to come.

    Raises:
        ValueError: a value outside its range.
    """

    reward: RewardScale = "ninths"
    bonus: float = 1.0
    gamma: float = 1.0
    normalise: Normalise = "mean"

    def __post_init__(self) -> None:
        if not 0 <= self.bonus < float("inf"):
            raise ValueError(
                f"objective.bonus is {self.bonus}; the reward of a right answer must be finite and at least 0"
            )
        nothing = torch.zeros(1)
        rating_rewards(nothing, scale=self.reward)
        step_returns(nothing, nothing, torch.tensor([NO_STEP]), gamma=self.gamma, normalise=self.normalise)

    def bonuses(self, correct: Tensor, final: Tensor) -> Float[Tensor, " steps"]:
        """The bonus of each step."""
        return torch.where(final, self.bonus * correct.nan_to_num(nan=0.0), 0.0)

    def immediate(self, steps: Steps) -> Float[Tensor, " steps"]:
        """Reward of each step with its bonus, 0 where it is not rated."""
        own = rating_rewards(steps.rating, scale=self.reward).nan_to_num(nan=0.0)
        return own + self.bonuses(steps.correct, steps.final)

    def returns(
        self, rating: Tensor, correct: Tensor, final: Tensor, following: Int[Tensor, " steps"]
    ) -> Float[Tensor, " steps"]:
        """Return of each step, see :func:`step_returns`."""
        return step_returns(
            rating_rewards(rating, scale=self.reward),
            self.bonuses(correct, final),
            following,
            gamma=self.gamma,
            normalise=self.normalise,
        )

    def of(self, steps: Steps) -> Float[Tensor, " steps"]:
        """Returns of a row's steps; what it says of rejected attempts means nothing."""
        return self.returns(steps.rating, steps.correct, steps.final, steps.following)
