"""Preference optimisation: DPO with its published variants, and fDPO with a strength for each segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spatial_lightning.modules.finetuner import Counts, FineTuner
from spatial_lightning.objectives import (
    PREFERENCE_KINDS,
    fdpo_loss,
    length_desensitised_weights,
    preference_loss,
    preference_metrics,
    segment_betas,
    segment_counts,
    segment_sums,
    simpo_loss,
    weighted_nll,
)
from spatial_lightning.records import SEGMENTS
from spatial_lightning.tree import TreeBatch


@dataclass(frozen=True, slots=True)
class _Sides:
    """Sums of log-probabilities of a row's pairs, one column per segment, or one column for whole responses."""

    chosen: Float[Tensor, "pairs segments"]
    rejected: Float[Tensor, "pairs segments"]

    @classmethod
    def of(cls, logps: Tensor, batch: TreeBatch, segment: Tensor, segments: int) -> _Sides:
        sums = segment_sums(logps, batch.branch, segment, branches=batch.branches, segments=segments)
        return cls(sums[0::2], sums[1::2])


@final
class DPOModule(FineTuner):
    """Direct preference optimisation on whole responses (arXiv:2305.18290), and the losses derived from it.

    Args:
        kind: one of ``PREFERENCE_KINDS``, or ``simpo`` (reference-free).
        beta: strength of the pull to the reference, above 0.
        label_smoothing: assumed share of flipped preferences, in [0, 0.5).
        gamma: target margin of SimPO, in units of its reward.
        ipo_per_token: IPO on per-token means of a response (length-robust) instead of sums.
        ld_alpha: LD-DPO weight in [0, 1] of tokens past the shorter response's length; 1 is DPO (arXiv:2409.06411).
        sft_weight: weight of an added negative log-likelihood of the chosen responses, averaged over their tokens.

    Raises:
        ValueError: an unknown kind or an invalid combination.
    """

    def __init__(
        self,
        *args: Any,
        kind: str = "sigmoid",
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        gamma: float = 1.0,
        ipo_per_token: bool = True,
        ld_alpha: float = 1.0,
        sft_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        allowed = sorted([*PREFERENCE_KINDS, "simpo"])
        if kind not in allowed:
            raise ValueError(f"objective.kind is {kind!r}; allowed: {', '.join(allowed)}")
        if not 0 <= ld_alpha <= 1:
            raise ValueError(f"objective.ld_alpha is {ld_alpha}; it must be between 0 and 1 (1 switches LD-DPO off)")
        if sft_weight < 0:
            raise ValueError(f"objective.sft_weight is {sft_weight}; it must not be negative")
        super().__init__(*args, needs_reference=kind != "simpo", **kwargs)
        self.kind, self.beta, self.label_smoothing, self.gamma = kind, beta, label_smoothing, gamma
        self.ipo_per_token, self.ld_alpha, self.sft_weight = ipo_per_token, ld_alpha, sft_weight
        # Wrong settings of the loss itself (such as smoothing with a kind that has none) fail now, not at the first step.
        self._pair_losses(_Sides(*[torch.zeros(2, 1)] * 2), _Sides(*[torch.zeros(2, 1)] * 2), torch.ones(4, 1).long())

    def counts(self, batch: TreeBatch) -> Counts:
        """Pairs, and tokens of chosen responses."""
        return _pair_counts(batch)

    def loss(self, batch: TreeBatch, totals: Counts) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Sum of the row's pair losses over the step's pairs, and of the SFT term over the step's chosen tokens."""
        if self.kind == "aot" and totals["pairs"] * 2 != batch.branches:
            raise ValueError("kind=aot sorts all pairs of a step: raise data.token_budget so that a step is one row")
        logps = self.backbone.logps(batch)
        whole = torch.zeros_like(batch.segment)
        lengths = segment_counts(batch.branch, whole, branches=batch.branches, segments=1)
        weights = self._length_weights(batch, lengths)
        policy = _Sides.of(logps * weights, batch, whole, 1)
        reference_logps = self.reference.logps(batch) if self.needs_reference else torch.zeros_like(logps)
        reference = _Sides.of(reference_logps * weights, batch, whole, 1)
        total = self._pair_losses(policy, reference, lengths).sum() / totals["pairs"]
        metrics = _pair_metrics(policy, reference, self.beta, totals)
        metrics |= _segment_logps(logps, batch, totals)
        if self.sft_weight:
            nll = _chosen_nll(logps, batch, totals)
            metrics["sft_loss"] = nll.detach()
            total = total + self.sft_weight * nll
        return total, metrics

    def _pair_losses(self, policy: _Sides, reference: _Sides, lengths: Tensor) -> Float[Tensor, " pairs"]:
        chosen_tokens, rejected_tokens = lengths[0::2, 0], lengths[1::2, 0]
        if self.kind == "simpo":
            return simpo_loss(
                policy.chosen[:, 0],
                policy.rejected[:, 0],
                chosen_tokens,
                rejected_tokens,
                beta=self.beta,
                gamma=self.gamma,
                label_smoothing=self.label_smoothing,
            )
        per_token = self.kind == "ipo" and self.ipo_per_token
        return preference_loss(
            policy.chosen[:, 0],
            policy.rejected[:, 0],
            reference.chosen[:, 0],
            reference.rejected[:, 0],
            kind=self.kind,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            chosen_tokens=chosen_tokens if per_token else None,
            rejected_tokens=rejected_tokens if per_token else None,
        )

    def _length_weights(self, batch: TreeBatch, lengths: Int[Tensor, "branches 1"]) -> Float[Tensor, " targets"]:
        if self.ld_alpha == 1.0:
            return torch.ones(batch.targets.numel(), device=batch.targets.device)
        per_branch = lengths[:, 0]
        starts = per_branch.cumsum(0) - per_branch
        position = torch.arange(batch.targets.numel(), device=starts.device) - starts[batch.branch]
        shorter = torch.minimum(per_branch[0::2], per_branch[1::2]).repeat_interleave(2)
        return length_desensitised_weights(position, shorter[batch.branch], alpha=self.ld_alpha)


@final
class FDPOModule(FineTuner):
    """Fine-grained DPO: each segment's strength follows its reward gap (arXiv:2506.21656).

    Args:
        beta: mean strength of the two segments, above 0.
        alpha: how far a segment's strength may depart from ``beta``, as a share in [0, 1).
        lam: how sharply the strength follows the difference of the reward gaps, above 0.
        label_smoothing: assumed share of flipped preferences, in [0, 0.5).
        sft_weight: weight of an added negative log-likelihood of the chosen responses, averaged over their tokens.
    """

    def __init__(
        self,
        *args: Any,
        beta: float = 0.1,
        alpha: float = 0.3,
        lam: float = 0.6,
        label_smoothing: float = 0.0,
        sft_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if sft_weight < 0:
            raise ValueError(f"objective.sft_weight is {sft_weight}; it must not be negative")
        super().__init__(*args, needs_reference=True, **kwargs)
        self.beta, self.alpha, self.lam = beta, alpha, lam
        self.label_smoothing, self.sft_weight = label_smoothing, sft_weight
        zero = torch.zeros(1, len(SEGMENTS))
        fdpo_loss(zero, zero, zero, zero, zero, beta=beta, alpha=alpha, lam=lam, label_smoothing=label_smoothing)

    def counts(self, batch: TreeBatch) -> Counts:
        """Pairs, and tokens of chosen responses."""
        return _pair_counts(batch)

    def loss(self, batch: TreeBatch, totals: Counts) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Sum of the row's pair losses over the step's pairs, and of the SFT term over the step's chosen tokens."""
        if bool((batch.segment < 0).any()):
            raise ValueError(
                f"fDPO needs every response cut in segments ({', '.join(SEGMENTS)}), which some of {batch.tree_ids[:5]} are "
                "not: add segments to the corpus, or train with objective=dpo"
            )
        logps = self.backbone.logps(batch)
        gap = batch.values["reward_gap"]
        policy = _Sides.of(logps, batch, batch.segment, len(SEGMENTS))
        reference = _Sides.of(self.reference.logps(batch), batch, batch.segment, len(SEGMENTS))
        losses = fdpo_loss(
            policy.chosen,
            policy.rejected,
            reference.chosen,
            reference.rejected,
            gap,
            beta=self.beta,
            alpha=self.alpha,
            lam=self.lam,
            label_smoothing=self.label_smoothing,
        )
        total = losses.sum() / totals["pairs"]
        betas = segment_betas(gap, beta=self.beta, alpha=self.alpha, lam=self.lam)
        metrics = _pair_metrics(policy, reference, betas, totals) | _segment_logps(logps, batch, totals)
        margins = (policy.chosen - reference.chosen - policy.rejected + reference.rejected).detach()
        for index, name in enumerate(SEGMENTS):
            metrics[f"beta_{name}"] = betas[:, index].sum() / totals["pairs"]
            metrics[f"margin_{name}"] = margins[:, index].sum() / totals["pairs"]
        metrics["reward_gap_missing"] = gap.isnan().any(dim=1).sum() / totals["pairs"]
        if self.sft_weight:
            nll = _chosen_nll(logps, batch, totals)
            metrics["sft_loss"] = nll.detach()
            total = total + self.sft_weight * nll
        return total, metrics


def _pair_counts(batch: TreeBatch) -> dict[str, float]:
    return {"pairs": batch.branches / 2, "chosen_tokens": float((batch.branch % 2 == 0).sum())}


def _pair_metrics(
    policy: _Sides, reference: _Sides, beta: float | Float[Tensor, "pairs segments"], totals: Counts
) -> dict[str, Tensor]:
    metrics = preference_metrics(policy.chosen, policy.rejected, reference.chosen, reference.rejected, beta=beta)
    return {name: value.sum() / totals["pairs"] for name, value in metrics.items()}


def _segment_logps(logps: Tensor, batch: TreeBatch, totals: Counts) -> dict[str, Tensor]:
    """Mean log-probability of chosen and rejected responses, whole and by segment."""
    values = logps.detach()
    whole = _Sides.of(values, batch, torch.zeros_like(batch.segment), 1)
    parts = _Sides.of(values, batch, batch.segment, len(SEGMENTS))
    metrics = {}
    for side in ("chosen", "rejected"):
        metrics[f"logps_{side}"] = getattr(whole, side).sum() / totals["pairs"]
        for index, name in enumerate(SEGMENTS):
            metrics[f"logps_{side}_{name}"] = getattr(parts, side)[:, index].sum() / totals["pairs"]
    return metrics


def _chosen_nll(logps: Tensor, batch: TreeBatch, totals: Counts) -> Float[Tensor, ""]:
    """Negative log-likelihood of the chosen responses, from the log-probabilities already there."""
    weights = (batch.branch % 2 == 0).to(logps.dtype)
    return weighted_nll(logps, weights, denominator=totals["chosen_tokens"])
