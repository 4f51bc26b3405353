"""Our side of the comparison: packed token trees, one pass a step, the same optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from turns import Row, Turns

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.reference import CachedReference, FrozenCopy, Reference
from spatial_lightning.backbones.towers import Tower, TowerPlan
from spatial_lightning.data import Encoder
from spatial_lightning.objectives import fdpo_loss, preference_loss, segment_sums, weighted_nll
from spatial_lightning.records import SEGMENTS, ImageQuestions, PreferencePair
from spatial_lightning.tree import pack

BETA = 0.1


class OurSide:
    """Trains on one fixed batch of records, step after step.

    Args:
        folder: as ``write_model`` leaves it, with the directories ``policy`` and ``reference``.
        records: questions about images (SFT) or preference pairs.
        objective: ``sft``, ``dpo`` or ``fdpo``.
        reference: ``live`` runs the reference model in every step, ``cached`` ran it once beforehand.
    """

    def __init__(
        self,
        folder: Path,
        records: Sequence[ImageQuestions] | Sequence[PreferencePair],
        *,
        objective: str,
        reference: str = "live",
        dtype: str = "float32",
        checkpointing: bool = False,
        device: str = "cpu",
        lr: float = 1e-5,
    ) -> None:
        self.objective, self.device = objective, torch.device(device)
        self.backbone = Backbone(folder / "policy", dtype=dtype)
        TowerPlan(vision=Tower("frozen")).apply(self.backbone)
        if checkpointing:
            self.backbone.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.backbone.to(self.device).train()
        encoder = Encoder(self.backbone.processor)
        trees = [
            encoder.questions(record) if isinstance(record, ImageQuestions) else encoder.pair(record)
            for record in records
        ]
        self.batch = pack(trees, keys=True)
        self.reference = None if objective == "sft" else self._reference(folder, reference, dtype)
        self.parameters = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, weight_decay=0.0, fused=self.device.type == "cuda")

    def trained_parameters(self) -> list[str]:
        """Names of the weights that learn."""
        return sorted(name for name, p in self.backbone.model.named_parameters() if p.requires_grad)

    def rows(self) -> list[Row]:
        """Every root-to-leaf path, in the order of the records."""
        trained = torch.zeros(self.batch.tokens, dtype=torch.bool)
        trained[self.batch.targets] = True
        rows = []
        for leaf in self.batch.leaves():
            places = torch.cat([torch.tensor(self.batch.node(node)) for node in self.batch.path(leaf)])
            rows.append((self.batch.ids[places].tolist(), trained[places].tolist()))
        return rows

    def run(self, steps: int, turns: Turns) -> None:
        """Train for some steps: forward and backward on the batch, clipping, update."""
        for _ in range(steps):
            turns.begin()
            loss = self._loss()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            turns.end(float(loss.detach()))

    def _reference(self, folder: Path, kind: str, dtype: str) -> Reference:
        source = Backbone(folder / "reference", dtype=dtype).to(self.device).eval()
        if kind == "live":
            return FrozenCopy(source)
        cache = CachedReference(source, folder / "cache")
        cache.fill(source, [self.batch], "benchmark")
        return cache

    def _loss(self) -> Tensor:
        batch = self.batch.to(self.device)
        logps = self.backbone.logps(batch)
        if self.reference is None:
            return weighted_nll(logps, torch.ones_like(logps), denominator=float(logps.numel()))
        segments = len(SEGMENTS) if self.objective == "fdpo" else 1
        segment = batch.segment if segments > 1 else torch.zeros_like(batch.segment)
        policy, reference = (
            segment_sums(values, batch.branch, segment, branches=batch.branches, segments=segments)
            for values in (logps, self.reference.logps(batch))
        )
        chosen, rejected, reference_chosen, reference_rejected = (
            values[side::2] for values in (policy, reference) for side in (0, 1)
        )
        sides = (chosen, rejected, reference_chosen, reference_rejected)
        if segments == 1:
            return preference_loss(*(side[:, 0] for side in sides), kind="sigmoid", beta=BETA).mean()
        return fdpo_loss(*sides, batch.values["reward_gap"], beta=BETA, alpha=0.3, lam=0.6).mean()
