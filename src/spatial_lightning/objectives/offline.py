"""Offline reinforcement learning as weighted imitation, and the value regression that yields the weights."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spatial_lightning.objectives.checks import at_least_float32, require_positive, require_same_shape


def weighted_nll(
    logps: Float[Tensor, " tokens"],
    weights: Float[Tensor, " tokens"],
    *,
    denominator: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Weighted behaviour cloning: minus the weighted sum of token log-probabilities, over a named denominator.

    Weights of 1 make it supervised fine-tuning; 0 or 1 by rating, filtered behaviour cloning; the exponentiated return
    or advantage, RWR (Peters and Schaal 2007) or AWR (arXiv:1910.00177).

    Args:
        logps: log-probability of each token in nats.
        weights: weight of each token, no gradient; where it is 0 the log-probability may be ``-inf``.
        denominator: number of trained tokens of the whole optimisation step, all ranks and micro-batches together and
            regardless of their weights, so that neither batching nor filtering rescales the gradient.

    Raises:
        ValueError: inputs that differ in shape, or a denominator that is a number but not above 0.
    """
    require_same_shape(logps=logps, weights=weights)
    if not isinstance(denominator, Tensor):
        require_positive("denominator", denominator)
    weights = weights.detach()
    trained = torch.where(weights == 0, 0.0, at_least_float32(logps))
    return -(weights * trained).sum() / denominator


def advantage_weights(
    advantages: Float[Tensor, "*shape"],
    *,
    temperature: float,
    max_weight: float,
) -> Float[Tensor, "*shape"]:
    """Imitation weights min(exp(advantage / temperature), max_weight) of AWR (arXiv:1910.00177), detached.

    A clipped weight equals ``max_weight`` exactly, so ``weights >= max_weight`` finds the clipped ones. With the
    return in place of the advantage the weights are those of RWR.

    Args:
        advantages: advantage of each action, in units of reward.
        temperature: reward that multiplies a weight by e, above 0; infinity gives weights of 1.
        max_weight: largest weight, above 0.

    Returns:
        Weights in [0, max_weight], in float32 or better; an advantage too large to exponentiate gets ``max_weight``.

    Raises:
        ValueError: a number out of range.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0 (infinity allowed)")
    require_positive("max_weight", max_weight)
    return (at_least_float32(advantages.detach()) / temperature).exp().clamp(max=max_weight)


def rating_filter(rating: Float[Tensor, "*shape"], *, tau: float) -> Bool[Tensor, "*shape"]:
    """Which steps or traces filtered behaviour cloning keeps: those rated ``tau`` or better.

    What nobody rated (NaN) counts as rated 0, so ``tau`` of 0 keeps everything.

    Args:
        rating: in [1, 10], or NaN.
        tau: threshold in [0, 10].

    Raises:
        ValueError: tau out of range.
    """
    if not 0 <= tau <= 10:
        raise ValueError(f"tau is {tau}; ratings go from 1 to 10, so it must be in [0, 10] (0 keeps everything)")
    return rating.nan_to_num(nan=0.0) >= tau


def effective_sample_size(weights: Float[Tensor, " steps"]) -> Float[Tensor, ""]:
    """Kish's effective sample size (sum w)^2 / sum w^2: how many equal weights would say as much; 0 for no weight."""
    weights = at_least_float32(weights)
    squares = weights.square().sum()
    return torch.where(squares > 0, weights.sum().square() / squares.clamp(min=torch.finfo(squares.dtype).tiny), 0.0)


def expectile_loss(error: Float[Tensor, "*shape"], *, tau: float) -> Float[Tensor, "*shape"]:
    """Asymmetric squared error |tau - 1[error < 0]| * error^2 for expectiles (IQL, arXiv:2110.06169), unreduced.

    Args:
        error: target minus prediction, Q - V for a state value.
        tau: expectile in (0, 1); 0.5 is half the squared error, towards 1 the prediction nears the maximum.

    Raises:
        ValueError: tau outside (0, 1).
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau is {tau}; an expectile must be above 0 and below 1")
    square = at_least_float32(error).square()
    return torch.where(error < 0, (1 - tau) * square, tau * square)
