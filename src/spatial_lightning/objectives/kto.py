"""Preference optimisation from single responses that are labelled good or bad, without pairs."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spatial_lightning.objectives.checks import at_least_float32, require_positive, require_same_shape


def kto_loss(
    policy: Float[Tensor, " responses"],
    reference: Float[Tensor, " responses"],
    desirable: Bool[Tensor, " responses"],
    kl: float | Float[Tensor, ""],
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, " responses"]:
    """KTO (arXiv:2402.01306 Sec. 4): desirable responses should gain on the reference by more than the policy drifts.

    Args:
        policy: log-probability in nats of each response under the policy.
        reference: likewise under the frozen reference.
        desirable: whether a response is labelled desirable.
        kl: how far the policy has drifted, in nats: the mean log-ratio of policy to reference over mismatched pairs of
            prompt and response, taken over all ranks. It is held at 0 or above and carries no gradient.
        beta: aversion to risk, above 0.
        desirable_weight: weight of desirable responses, above 0. The paper asks that weight times count of the
            desirable over weight times count of the undesirable lie in [1, 4/3].
        undesirable_weight: weight of undesirable responses, above 0.

    Returns:
        One loss per response, between 0 and its weight, in float32 or better.

    Raises:
        ValueError: a number out of range, or inputs that differ in shape.
    """
    require_positive("beta", beta)
    require_positive("desirable_weight", desirable_weight)
    require_positive("undesirable_weight", undesirable_weight)
    require_same_shape(policy=policy, reference=reference, desirable=desirable)
    gain = at_least_float32(policy) - at_least_float32(reference)
    drift = torch.as_tensor(kl, dtype=gain.dtype, device=gain.device).detach().clamp(min=0)
    logit = beta * (gain - drift)
    # 1 - sigmoid(x) is sigmoid(-x), without the cancellation.
    return torch.where(desirable.bool(), desirable_weight * (-logit).sigmoid(), undesirable_weight * logit.sigmoid())
