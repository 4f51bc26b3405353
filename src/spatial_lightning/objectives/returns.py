"""What a step of a trace was worth: rewards from ratings, discounted returns, and the returns of its rivals."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spatial_lightning.objectives.checks import at_least_float32, require_same_shape

RewardScale = Literal["ninths", "tenths"]
Normalise = Literal["mean", "sum"]
NO_STEP = -1


def rating_rewards(rating: Float[Tensor, " steps"], *, scale: RewardScale = "ninths") -> Float[Tensor, " steps"]:
    """Reward in [0, 1] of a step that a verifier rated (arXiv:2511.00054 rates; the reward is our own formulation).

    Args:
        rating: in [1, 10]; NaN where nobody rated the step.
        scale: ``ninths`` maps 1..10 onto 0..1, (rating - 1) / 9; ``tenths`` divides by 10.

    Returns:
        Rewards, NaN where there is no rating.

    Raises:
        ValueError: an unknown scale.
    """
    if scale not in ("ninths", "tenths"):
        raise ValueError(f"reward is {scale!r}; allowed: ninths, (rating - 1) / 9, and tenths, rating / 10")
    rating = at_least_float32(rating)
    return (rating - 1) / 9 if scale == "ninths" else rating / 10


def step_returns(
    rewards: Float[Tensor, " steps"],
    bonus: Float[Tensor, " steps"],
    following: Int[Tensor, " steps"],
    *,
    gamma: float,
    normalise: Normalise,
) -> Float[Tensor, " steps"]:
    """Return G_t = (sum over u >= t of gamma^(u-t) r_u) / Z_t + sum over u >= t of gamma^(u-t) bonus_u of each step.

    Z_t is the sum of gamma^(u-t) (``mean``: a weighted mean of the rewards to come, which does not favour long traces)
    or 1 (``sum``). The bonus, which the last step of a trace gets for a correct answer, is never normalised. Steps
    without a rating count neither in the sum nor in Z_t.

    Args:
        rewards: reward of each step, NaN where it is not known.
        bonus: extra reward of each step, 0 but for last steps.
        following: index of the step behind each step in the same trace, -1 behind the last.
        gamma: discount in (0, 1].
        normalise: ``mean`` or ``sum``.

    Returns:
        Returns in units of reward; 0 plus the bonus where no step to come is rated.

    Raises:
        ValueError: a number out of range, an unknown way to normalise, or inputs that differ in shape.
    """
    require_same_shape(rewards=rewards, bonus=bonus, following=following)
    if normalise not in ("mean", "sum"):
        raise ValueError(f"normalise is {normalise!r}; allowed: mean, sum")
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma is {gamma}; a discount must be above 0 and at most 1")
    own = torch.stack([rewards.nan_to_num(nan=0.0), rewards.isfinite().to(rewards), bonus.to(rewards)])
    own = at_least_float32(own)
    totals, pointer, discount = own.clone(), following, gamma
    for _ in range(following.numel()):
        reached = pointer != NO_STEP
        if not bool(reached.any()):
            break
        place = torch.where(reached, pointer, 0)
        totals = totals + torch.where(reached, discount * own[:, place], 0.0)
        pointer = torch.where(reached, following[place], NO_STEP)
        discount *= gamma
    total, weight, extra = totals
    return (torch.where(weight > 0, total / weight, 0.0) if normalise == "mean" else total) + extra


def rival_returns(
    returns: Float[Tensor, " steps"],
    step: Int[Tensor, " steps"],
    trajectory: Int[Tensor, " steps"],
    question: Int[Tensor, " steps"],
) -> Float[Tensor, " steps"]:
    """Leave-one-out baseline: mean return of the other traces of the same question at the same step.

    A rival that ended earlier counts with the return of its last step. A trace's own returns never enter its baseline, so
    the baseline does not depend on the action that it is held against.

    Args:
        returns: return of each accepted step.
        step: its number within its trace, from 0.
        trajectory: which trace it belongs to, counted through the batch from 0.
        question: which question that trace answers, counted through the batch from 0.

    Returns:
        Baselines in units of reward, NaN where the question has no second trace.
    """
    require_same_shape(returns=returns, step=step, trajectory=trajectory, question=question)
    if not returns.numel():
        return returns
    traces, length = int(trajectory.max()) + 1, int(step.max()) + 1
    table = returns.new_full((traces, length), float("nan"))
    table[trajectory, step] = returns
    for later in range(1, length):
        table[:, later] = torch.where(table[:, later].isnan(), table[:, later - 1], table[:, later])
    asks = torch.zeros(traces, dtype=torch.long, device=returns.device)
    asks[trajectory] = question
    known = ~table.isnan()
    empty = returns.new_zeros(int(question.max()) + 1, length)
    sums = empty.index_add(0, asks, table.nan_to_num(nan=0.0))
    counts = empty.index_add(0, asks, known.to(returns))
    others = counts[question, step] - 1
    return torch.where(others > 0, (sums[question, step] - returns) / others, torch.nan)
