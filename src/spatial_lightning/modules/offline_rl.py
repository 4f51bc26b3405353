"""Offline reinforcement learning on verified tool-use traces, seven kinds by one module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.backbones.reference import ReferenceKind
from spatial_lightning.backbones.towers import TowerPlan
from spatial_lightning.modules.comparison import KTO, StepDPO
from spatial_lightning.modules.finetuner import Counts, FineTuner
from spatial_lightning.modules.imitation import AWR, FilteredBC, rwr
from spatial_lightning.modules.implicit_q import ILQL, IQL
from spatial_lightning.modules.method import Method
from spatial_lightning.modules.optimization import Optimization
from spatial_lightning.modules.ranks import gathered
from spatial_lightning.modules.value_heads import ValueHeads
from spatial_lightning.objectives import effective_sample_size
from spatial_lightning.tree import Prompt, TreeBatch

METHODS: dict[str, Callable[..., Method]] = {
    "filtered_bc": FilteredBC,
    "rwr": rwr,
    "awr": AWR,
    "iql": IQL,
    "ilql": ILQL,
    "step_dpo": StepDPO,
    "kto": KTO,
}
_QUANTILES = (10, 50, 90)


@final
class OfflineRLModule(FineTuner):
    """Learns from tool-use traces whose steps a verifier rated (data as in arXiv:2511.00054; the objectives are standard).

    Args:
        backbone, towers, optimization, reference, cache_folder: see :class:`FineTuner`.
        kind: one of ``METHODS``.
        options: settings of the kind, see its class.

    Raises:
        ValueError: an unknown kind, or a setting that it does not have or that is out of range.
    """

    handed_on = frozenset(name for method in METHODS.values() for name in inspect.signature(method).parameters)
    """Settings of all kinds, for whoever builds the module from a configuration."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        towers: TowerPlan,
        optimization: Optimization,
        reference: ReferenceKind = "none",
        cache_folder: Path = Path("cache/reference"),
        kind: str = "filtered_bc",
        **options: Any,
    ) -> None:
        method = make_method(kind, options)
        super().__init__(
            backbone,
            towers=towers,
            optimization=optimization,
            reference=reference,
            cache_folder=cache_folder,
            needs_reference=method.needs_reference,
            heads=method.heads(backbone),
            head_lr=method.head_lr,
        )
        self.kind, self.method = kind, method
        self.reference_use = method.reference_use
        self._samples: list[dict[str, Tensor]] = []

    def prepare(self, data: Any) -> None:
        """Fit what the kind takes from the training traces.

        Raises:
            ValueError: heads with weights that are cut over ranks.
        """
        if self.heads is not None and self.sharded:
            raise ValueError(f"kind={self.kind} trains heads, which FSDP does not cut up here: choose trainer=ddp")
        self.method.fit(self, data)

    def reference_rows(self, data: Any) -> Iterator[TreeBatch]:
        """The corpus, and what the kind makes of it."""
        for row in data.reference_rows():
            yield row
            other = self.method.other_row(row)
            if other is not None:
                yield other

    def counts(self, batch: TreeBatch) -> Counts:
        """What the kind counts."""
        return self.method.counts(self, batch)

    def loss(self, batch: TreeBatch, totals: Counts) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The kind's loss."""
        outcome = self.method.loss(self, batch, totals)
        if torch.is_grad_enabled():
            self._samples.append({name: value.detach().cpu() for name, value in outcome.samples.items()})
        return outcome.loss, outcome.metrics

    def after_step(self) -> None:
        """Let target heads follow."""
        if isinstance(self.heads, ValueHeads) and self.method.polyak:
            self.heads.follow(self.method.polyak)

    def step_statistics(self) -> dict[str, float]:
        """Spread of weights and advantages over the accepted steps of all ranks, and their returns by place in the trace."""
        rows, self._samples = [row for rank in gathered(self._samples, self._world_size) for row in rank], []
        samples = {name: torch.cat([row[name] for row in rows]) for name in (rows[0] if rows else ())}
        statistics: dict[str, float] = {}
        for name in ("weight", "advantage"):
            own = samples.get(name, torch.zeros(0))
            if own.numel():
                statistics |= {f"{name}_p{q}": float(own.quantile(q / 100)) for q in _QUANTILES}
                statistics[f"{name}_max"] = float(own.max())
        if samples.get("weight", torch.zeros(0)).numel():
            statistics["effective_sample_size"] = float(effective_sample_size(samples["weight"]))
        for number in samples["number"].unique().tolist() if "number" in samples else ():
            own = samples["return"][samples["number"] == number]
            statistics[f"return_step_{int(number)}"] = float(own.mean())
        return statistics

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int = 64, guidance: float = 0.0
    ) -> list[str]:
        """Greedy answers of the policy, or of pi * exp(guidance * (Q - V)) with the heads of ILQL (arXiv:2206.11871).

        Args:
            guidance: how far values bend the policy, at least 0; 0 leaves it.

        Raises:
            ValueError: guidance without the heads of ILQL, or below 0.
        """
        if guidance < 0 or (guidance and not isinstance(self.method, ILQL)):
            raise ValueError(
                f"guidance is {guidance} with kind={self.kind}; it must be at least 0, and only ilql has Q of tokens"
            )
        heads = self.heads
        guide = partial(heads.guide, strength=guidance) if guidance and isinstance(heads, ValueHeads) else None
        return self.backbone.generate(prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, guide=guide)


def make_method(kind: str, options: dict[str, Any]) -> Method:
    """The method of a kind.

    Raises:
        ValueError: an unknown kind, or settings that it does not have.
    """
    if kind not in METHODS:
        raise ValueError(f"objective.kind is {kind!r}; allowed: {', '.join(METHODS)}")
    allowed = inspect.signature(METHODS[kind]).parameters
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"objective.{unknown[0]} means nothing to kind={kind}; its settings are {', '.join(allowed)}")
    return METHODS[kind](**options)
