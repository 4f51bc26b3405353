"""Fine-grained DPO: one preference, a strength of its own for each segment of the response."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from spatial_lightning.objectives.checks import (
    at_least_float32,
    require_positive,
    require_same_shape,
    require_smoothing,
)
from spatial_lightning.objectives.pairs import smoothed_logistic


def segment_betas(
    reward_gap: Float[Tensor, "pairs segments"],
    *,
    beta: float,
    alpha: float,
    lam: float,
) -> Float[Tensor, "pairs segments"]:
    """Strength beta_s of each segment, larger where the segment's reward gap is larger (arXiv:2506.21656).

    With w the softmax of ``lam * reward_gap`` over the S segments of a pair, beta_s = beta * f_s and
    f_s = 1 + alpha * (S * w_s - 1). For description and reasoning (S = 2) this is the paper's
    f_s = 1 + alpha * (2 * w_s - 1), which equals 1 +- alpha * tanh(lam * difference of the gaps / 2). For any S the
    betas of a pair sum to S * beta and equal gaps give beta throughout; more than two segments are our extension.

    Args:
        reward_gap: score of the chosen minus score of the rejected segment; both scores in [0, 8], so a gap in [-8, 8].
            NaN where a score is missing: one NaN makes all segments of that pair weigh the same.
        beta: mean strength, above 0.
        alpha: how far a segment may depart from it, in [0, 1]; 0 is DPO. The paper tunes it to 0.3.
        lam: sharpness of the softmax per point of reward, at least 0; 0 is DPO. The paper tunes it to 0.6.

    Returns:
        Betas in beta * [1 - alpha, 1 + alpha * (S - 1)], in float32 or better. The scores come from a judge outside the
        model, so no gradient flows through them.

    Raises:
        ValueError: a number out of range, or a reward gap that is not pairs by segments.
    """
    require_positive("beta", beta)
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"alpha is {alpha}; it must be in [0, 1], past 1 a segment would be rewarded for getting worse"
        )
    if not 0 <= lam < float("inf"):
        raise ValueError(f"lam is {lam}; it must be a finite number, at least 0")
    if reward_gap.ndim != 2 or not reward_gap.shape[1]:
        raise ValueError(f"reward_gap has shape {tuple(reward_gap.shape)}; it must be (pairs, segments)")
    gap = at_least_float32(reward_gap.detach())
    missing = gap.isnan().any(dim=-1, keepdim=True)
    weights = torch.where(missing, 0.0, lam * gap).softmax(dim=-1)
    return beta * (1 + alpha * (gap.shape[1] * weights - 1))


def fdpo_loss(
    policy_chosen: Float[Tensor, "pairs segments"],
    policy_rejected: Float[Tensor, "pairs segments"],
    reference_chosen: Float[Tensor, "pairs segments"],
    reference_rejected: Float[Tensor, "pairs segments"],
    reward_gap: Float[Tensor, "pairs segments"],
    *,
    beta: float,
    alpha: float,
    lam: float,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " pairs"]:
    """fDPO (arXiv:2506.21656): -log sigmoid of the segments' log-ratio margins, each with its own beta.

    Args:
        policy_chosen: log-probability in nats of each segment of the chosen response under the policy.
        policy_rejected: likewise for the rejected response.
        reference_chosen: likewise for the chosen response under the frozen reference.
        reference_rejected: likewise for the rejected response under the reference.
        reward_gap: score of chosen minus rejected for each segment; NaN where missing.
        beta: as for :func:`segment_betas`.
        alpha: as for :func:`segment_betas`; 0 gives DPO on the whole response.
        lam: as for :func:`segment_betas`.
        label_smoothing: chance in [0, 0.5) that a label is flipped.

    Returns:
        One loss per pair, in float32 or better. The margin is not clipped, so a badly wrong pair keeps its gradient.

    Raises:
        ValueError: a number out of range, or inputs that differ in shape.
    """
    require_smoothing(label_smoothing)
    require_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        reward_gap=reward_gap,
    )
    betas = segment_betas(reward_gap, beta=beta, alpha=alpha, lam=lam)
    chosen = at_least_float32(policy_chosen) - at_least_float32(reference_chosen)
    rejected = at_least_float32(policy_rejected) - at_least_float32(reference_rejected)
    return smoothed_logistic((betas * (chosen - rejected)).sum(dim=-1), label_smoothing)
