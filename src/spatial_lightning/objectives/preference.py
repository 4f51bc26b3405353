"""Preference optimisation on whole responses: the DPO family, SimPO, BCO, and the rewards they imply."""

from __future__ import annotations

from difflib import get_close_matches

from jaxtyping import Float, Int, Real
from torch import Tensor
from torch.nn.functional import logsigmoid

from spatial_lightning.objectives.checks import (
    at_least_float32,
    require_positive,
    require_same_shape,
    require_smoothing,
)
from spatial_lightning.objectives.pairs import KINDS, Pairs, smoothed_logistic, token_mean

PREFERENCE_KINDS = tuple(KINDS)


def preference_loss(
    policy_chosen: Float[Tensor, " pairs"],
    policy_rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    *,
    kind: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    chosen_tokens: Int[Tensor, " pairs"] | None = None,
    rejected_tokens: Int[Tensor, " pairs"] | None = None,
) -> Float[Tensor, " pairs"]:
    """Loss of each preference pair from the log-probabilities of its two responses, unreduced.

    Step-DPO (arXiv:2406.18629) is this loss on the log-probabilities of one accepted and one rejected step.

    Args:
        policy_chosen: log-probability in nats of the chosen response under the policy, summed over its tokens.
        policy_rejected: likewise for the rejected response.
        reference_chosen: log-probability of the chosen response under the frozen reference.
        reference_rejected: likewise for the rejected response.
        kind: one of ``PREFERENCE_KINDS``; the functions in ``objectives/pairs.py`` say what each one is.
        beta: strength of the tie to the reference, above 0.
        label_smoothing: chance in [0, 0.5) that a label is flipped. ``sigmoid`` (cDPO) and ``aot`` allow it, ``robust``
            and ``exo_pair`` need it above 0, the others have no place for it.
        chosen_tokens: tokens in each chosen response. Given them, ``ipo`` compares token means, so that its target
            1 / (2 beta) fits any length; without them it compares sums, as published. Other kinds ignore them.
        rejected_tokens: likewise for the rejected responses.

    Returns:
        One loss per pair, in float32 or better. For ``aot`` the entries follow the sorted margins instead of the pairs.

    Raises:
        ValueError: an unknown kind, a number out of range, label smoothing that the kind cannot use or lacks, token
            counts for one side only, or inputs that differ in shape.
    """
    if kind not in KINDS:
        close = get_close_matches(str(kind), KINDS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown preference loss {kind!r}; {hint}allowed: {', '.join(KINDS)}")
    require_positive("beta", beta)
    _require_smoothing_of_kind(kind, label_smoothing)
    if (chosen_tokens is None) != (rejected_tokens is None):
        raise ValueError(
            "token counts are given for one side only; give both chosen_tokens and rejected_tokens or neither"
        )
    require_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
    )
    pairs = Pairs(
        policy_chosen=at_least_float32(policy_chosen),
        policy_rejected=at_least_float32(policy_rejected),
        reference_chosen=at_least_float32(reference_chosen),
        reference_rejected=at_least_float32(reference_rejected),
        beta=beta,
        label_smoothing=label_smoothing,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
    )
    return KINDS[kind].loss(pairs)


def simpo_loss(
    policy_chosen: Float[Tensor, " pairs"],
    policy_rejected: Float[Tensor, " pairs"],
    chosen_tokens: Int[Tensor, " pairs"],
    rejected_tokens: Int[Tensor, " pairs"],
    *,
    beta: float,
    gamma: float,
    label_smoothing: float = 0.0,
) -> Float[Tensor, " pairs"]:
    """SimPO (arXiv:2405.14734 Sec. 2): token-mean log-probability as the reward, no reference model.

    Args:
        policy_chosen: log-probability in nats of the chosen response, summed over its tokens.
        policy_rejected: likewise for the rejected response.
        chosen_tokens: tokens in each chosen response.
        rejected_tokens: tokens in each rejected response.
        beta: scale of the reward, above 0; usually 2 to 10, since token means are small.
        gamma: margin by which the reward of the chosen response should lead, at least 0, in units of the reward: the
            token means should differ by gamma / beta nats.
        label_smoothing: chance in [0, 0.5) that a label is flipped.

    Raises:
        ValueError: a number out of range, or inputs that differ in shape.
    """
    require_positive("beta", beta)
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; the margin must be at least 0")
    require_smoothing(label_smoothing)
    require_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
    )
    chosen = token_mean(at_least_float32(policy_chosen), chosen_tokens)
    rejected = token_mean(at_least_float32(policy_rejected), rejected_tokens)
    return smoothed_logistic(beta * (chosen - rejected) - gamma, label_smoothing)


def bco_pair_loss(
    policy_chosen: Float[Tensor, " pairs"],
    policy_rejected: Float[Tensor, " pairs"],
    reference_chosen: Float[Tensor, " pairs"],
    reference_rejected: Float[Tensor, " pairs"],
    *,
    beta: float,
    baseline: float | Float[Tensor, ""],
) -> Float[Tensor, " pairs"]:
    """BCO on pairs (arXiv:2404.04656 Sec. 4): classify each response as chosen or rejected by its implicit reward.

    Args:
        policy_chosen: log-probability in nats of the chosen response under the policy.
        policy_rejected: likewise for the rejected response.
        reference_chosen: log-probability of the chosen response under the frozen reference.
        reference_rejected: likewise for the rejected response.
        beta: scale of the implicit reward, above 0.
        baseline: running mean of the rewards of chosen and rejected responses together, kept by the caller (see
            :func:`preference_metrics`); no gradient flows into it.

    Raises:
        ValueError: a number out of range, or inputs that differ in shape.
    """
    require_positive("beta", beta)
    require_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    shift = baseline.detach() if isinstance(baseline, Tensor) else baseline
    chosen = beta * (at_least_float32(policy_chosen) - at_least_float32(reference_chosen))
    rejected = beta * (at_least_float32(policy_rejected) - at_least_float32(reference_rejected))
    return -logsigmoid(chosen - shift) - logsigmoid(shift - rejected)


def preference_metrics(
    policy_chosen: Float[Tensor, "pairs ..."],
    policy_rejected: Float[Tensor, "pairs ..."],
    reference_chosen: Float[Tensor, "pairs ..."],
    reference_rejected: Float[Tensor, "pairs ..."],
    *,
    beta: float | Real[Tensor, "pairs segments"],
) -> dict[str, Float[Tensor, " pairs"]]:
    """Implicit rewards of each pair (arXiv:2305.18290 Sec. 4), detached, for logging.

    Chosen and rejected rewards are reported apart because the margin can grow while both of them fall.

    Args:
        policy_chosen: log-probability in nats of the chosen response, or of each of its segments, under the policy.
        policy_rejected: likewise for the rejected response.
        reference_chosen: likewise for the chosen response under the reference.
        reference_rejected: likewise for the rejected response under the reference.
        beta: scale of the rewards; for fDPO the result of :func:`segment_betas`.

    Returns:
        ``reward_chosen`` and ``reward_rejected``: beta times log-ratio, summed over segments; ``reward_margin``: their
        difference; ``reward_accuracy``: 1 where the margin is above 0, else 0.

    Raises:
        ValueError: inputs that differ in shape.
    """
    require_same_shape(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    chosen = beta * (at_least_float32(policy_chosen) - at_least_float32(reference_chosen)).detach()
    rejected = beta * (at_least_float32(policy_rejected) - at_least_float32(reference_rejected)).detach()
    if chosen.ndim == 2:
        chosen, rejected = chosen.sum(dim=-1), rejected.sum(dim=-1)
    margin = chosen - rejected
    return {
        "reward_chosen": chosen,
        "reward_rejected": rejected,
        "reward_margin": margin,
        "reward_accuracy": (margin > 0).to(margin.dtype),
    }


def _require_smoothing_of_kind(kind: str, label_smoothing: float) -> None:
    require_smoothing(label_smoothing)
    smoothing = KINDS[kind].smoothing
    if smoothing == "none" and label_smoothing:
        able = ", ".join(name for name, entry in KINDS.items() if entry.smoothing != "none")
        raise ValueError(
            f"label_smoothing is {label_smoothing}, but {kind!r} has no place for it; set it to 0 or choose from {able}"
        )
    if smoothing == "required" and not label_smoothing:
        reason = {"exo_pair": "it takes the logarithm of it", "robust": "without it the loss is 'sigmoid'"}[kind]
        raise ValueError(f"label_smoothing is 0, but {kind!r} needs it above 0 and below 0.5 ({reason}); 0.1 is usual")
