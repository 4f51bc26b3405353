"""Implicit Q-learning on logged actions: values and action values without ever asking for an action outside the data."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spatial_lightning.objectives.checks import at_least_float32, require_same_shape
from spatial_lightning.objectives.offline import expectile_loss
from spatial_lightning.objectives.returns import NO_STEP


def q_targets(
    rewards: Float[Tensor, " actions"],
    values: Float[Tensor, " actions"],
    following: Int[Tensor, " actions"],
    discount: float | Float[Tensor, " actions"],
) -> Float[Tensor, " actions"]:
    """What Q should be: r + discount * V of the state that follows, or r alone behind a last action; detached.

    Args:
        rewards: reward of each action, any bonus included.
        values: V of the state in which each action was taken.
        following: index of the action taken next, -1 behind the last.
        discount: in (0, 1], one for all or one an action.

    Raises:
        ValueError: inputs that differ in shape.
    """
    require_same_shape(rewards=rewards, values=values, following=following)
    values = at_least_float32(values.detach())
    goes_on = following != NO_STEP
    ahead = torch.where(goes_on, values[torch.where(goes_on, following, 0)], 0.0)
    return at_least_float32(rewards.detach()) + discount * ahead


def q_loss(q: Float[Tensor, "heads actions"], targets: Float[Tensor, " actions"]) -> Float[Tensor, " actions"]:
    """Squared error of each action's Q against its target, summed over heads, unreduced (IQL, arXiv:2110.06169 Eq. 6)."""
    require_same_shape(q=q[0], targets=targets)
    return (at_least_float32(q) - targets.detach()).square().sum(dim=0)


def v_loss(
    values: Float[Tensor, " actions"], q: Float[Tensor, "heads actions"], *, tau: float
) -> Float[Tensor, " actions"]:
    """Expectile regression of V on the smallest of the target heads' Q, unreduced (IQL, arXiv:2110.06169 Eq. 5).

    Args:
        values: V of each state.
        q: what each target head says about the action taken there; carries no gradient.
        tau: expectile in (0, 1); 0.5 is half the squared error.

    Raises:
        ValueError: tau out of range, or inputs that differ in shape.
    """
    require_same_shape(values=values, q=q[0])
    return expectile_loss(q.detach().amin(dim=0) - at_least_float32(values), tau=tau)
