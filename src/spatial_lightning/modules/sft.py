"""Supervised fine-tuning on answers."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from spatial_lightning.modules.finetuner import Counts, FineTuner
from spatial_lightning.objectives import weighted_nll
from spatial_lightning.tree import TreeBatch


@final
class SFTModule(FineTuner):
    """Negative log-likelihood of the answer tokens, averaged over all answer tokens of the step (arXiv:2504.20648)."""

    def counts(self, batch: TreeBatch) -> Counts:
        """Trained tokens."""
        return {"tokens": float(batch.targets.numel())}

    def loss(self, batch: TreeBatch, totals: Counts) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Sum of the row's negative log-likelihood over the step's trained tokens; validation adds how sure the model is."""
        readout = self.backbone.read(batch, statistics=not self.training)
        metrics: dict[str, Tensor] = {}
        if readout.entropy is not None and readout.top1 is not None:
            metrics["entropy"] = readout.entropy.sum() / totals["tokens"]
            metrics["token_accuracy"] = readout.top1.sum() / totals["tokens"]
        logps = readout.logps
        return weighted_nll(logps, torch.ones_like(logps), denominator=totals["tokens"]), metrics
