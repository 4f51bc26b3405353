"""Losses on one preferred and one less preferred response, each a small named function of a :class:`Pairs`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True, slots=True)
class Pairs:
    """Log-probabilities of whole responses (nats) under policy and reference, with the settings of a loss.

    Attributes:
        beta: how strongly the policy is held to the reference, above 0.
        label_smoothing: chance in [0, 0.5) that a preference label is flipped.
        chosen_tokens: tokens summed in the chosen log-probability; None where the loss is on sums.
        rejected_tokens: likewise for the rejected one.
    """

    policy_chosen: Float[Tensor, " pairs"]
    policy_rejected: Float[Tensor, " pairs"]
    reference_chosen: Float[Tensor, " pairs"]
    reference_rejected: Float[Tensor, " pairs"]
    beta: float
    label_smoothing: float = 0.0
    chosen_tokens: Int[Tensor, " pairs"] | None = None
    rejected_tokens: Int[Tensor, " pairs"] | None = None

    @property
    def chosen_ratio(self) -> Tensor:
        """Log-ratio of policy to reference on the chosen response."""
        return self.policy_chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        """Log-ratio of policy to reference on the rejected response."""
        return self.policy_rejected - self.reference_rejected

    @property
    def logit(self) -> Tensor:
        """beta times the difference of the two log-ratios: the implicit reward margin."""
        return self.beta * (self.chosen_ratio - self.rejected_ratio)


def smoothed_logistic(logit: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of a preference predicted with ``logit``, its label flipped with chance ``label_smoothing``."""
    loss = -(1 - label_smoothing) * logsigmoid(logit)
    return loss - label_smoothing * logsigmoid(-logit) if label_smoothing else loss


def sigmoid(pairs: Pairs) -> Tensor:
    """DPO (arXiv:2305.18290 Eq. 7); label smoothing makes it cDPO (Mitchell 2023, "DPO with noisy preferences")."""
    return smoothed_logistic(pairs.logit, pairs.label_smoothing)


def robust(pairs: Pairs) -> Tensor:
    """Robust DPO (arXiv:2403.00409 Sec. 3.1): unbiased under label flips, hence negative on confident pairs."""
    flipped = pairs.label_smoothing
    kept = (1 - flipped) * logsigmoid(pairs.logit)
    return (flipped * logsigmoid(-pairs.logit) - kept) / (1 - 2 * flipped)


def hinge(pairs: Pairs) -> Tensor:
    """SLiC hinge (arXiv:2305.10425 Sec. 2) on log-ratios as in RSO (arXiv:2309.06657); the margin is 1 / beta."""
    return (1 - pairs.logit).relu()


def ipo(pairs: Pairs) -> Tensor:
    """IPO (arXiv:2310.12036 Eq. 17), a squared distance to 1 / (2 beta): on sums, or on token means given lengths."""
    chosen, rejected = pairs.chosen_ratio, pairs.rejected_ratio
    if pairs.chosen_tokens is not None and pairs.rejected_tokens is not None:
        chosen = token_mean(chosen, pairs.chosen_tokens)
        rejected = token_mean(rejected, pairs.rejected_tokens)
    return (chosen - rejected - 1 / (2 * pairs.beta)).square()


def nca_pair(pairs: Pairs) -> Tensor:
    """NCA on pairs (arXiv:2402.05369 Sec. 4.1): also keeps the likelihood of the chosen response from falling."""
    chosen, rejected = pairs.beta * pairs.chosen_ratio, pairs.beta * pairs.rejected_ratio
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def sppo_hard(pairs: Pairs) -> Tensor:
    """SPPO with hard labels (arXiv:2405.00675 Sec. 3): log-ratios go to +1 / (2 beta) and -1 / (2 beta)."""
    target = 1 / (2 * pairs.beta)
    return (pairs.chosen_ratio - target).square() + (pairs.rejected_ratio + target).square()


def exo_pair(pairs: Pairs) -> Tensor:
    """EXO on pairs (arXiv:2402.00856 Eq. 16): reverse KL to the smoothed label distribution."""
    flipped, logit = pairs.label_smoothing, pairs.logit
    kept = logit.sigmoid() * (logsigmoid(logit) - math.log1p(-flipped))
    return kept + (-logit).sigmoid() * (logsigmoid(-logit) - math.log(flipped))


def apo_zero(pairs: Pairs) -> Tensor:
    """APO-zero (arXiv:2408.06266 Sec. 4): chosen up, rejected down; for a policy worse than the chosen responses."""
    return (-pairs.beta * pairs.chosen_ratio).sigmoid() + (pairs.beta * pairs.rejected_ratio).sigmoid()


def apo_down(pairs: Pairs) -> Tensor:
    """APO-down (arXiv:2408.06266 Sec. 4): both down, rejected more; for a policy better than the chosen responses."""
    return (pairs.beta * pairs.chosen_ratio).sigmoid() + (-pairs.logit).sigmoid()


def aot(pairs: Pairs) -> Tensor:
    """Paired AOT (arXiv:2406.05882 Sec. 3): policy and reference margins are each sorted over the batch.

    Entry i compares the i-th smallest margins, so the result follows quantiles, not the order of the pairs.
    """
    policy = (pairs.policy_chosen - pairs.policy_rejected).sort().values
    reference = (pairs.reference_chosen - pairs.reference_rejected).sort().values
    return smoothed_logistic(pairs.beta * (policy - reference), pairs.label_smoothing)


def token_mean(total: Tensor, tokens: Tensor) -> Tensor:
    """Sum divided by its number of tokens; 0 for an empty response."""
    return total / tokens.clamp(min=1)


@dataclass(frozen=True, slots=True)
class Kind:
    """A pair loss, and whether its formula has a place for label smoothing."""

    loss: Callable[[Pairs], Tensor]
    smoothing: Literal["none", "optional", "required"] = "none"


KINDS: dict[str, Kind] = {
    "sigmoid": Kind(sigmoid, "optional"),
    "robust": Kind(robust, "required"),
    "hinge": Kind(hinge),
    "ipo": Kind(ipo),
    "nca_pair": Kind(nca_pair),
    "sppo_hard": Kind(sppo_hard),
    "exo_pair": Kind(exo_pair, "required"),
    "apo_zero": Kind(apo_zero),
    "apo_down": Kind(apo_down),
    "aot": Kind(aot, "optional"),
}
