"""Runs of the real Lightning trainer over a handful of examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from spatial_lightning.modules.finetuner import FineTuner, Optimization
from spatial_lightning.modules.sharding import whole
from spatial_lightning.tree import TreeBatch

CALM = Optimization(lr=1e-3, weight_decay=0.0, max_grad_norm=None, warmup=0.0, schedule="constant_with_warmup")


class Watch(L.Callback):
    """Keeps what each step saw: examples, metrics and the gradient just before the update."""

    def __init__(self) -> None:
        self.ids: list[list[str]] = []
        self.metrics: list[dict[str, float]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.questions: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.gradients.append({n: whole(p.grad).clone() for n, p in pl_module.named_parameters() if p.grad is not None})

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: list[TreeBatch], batch_idx: int
    ) -> None:
        self.ids.append([identity for row in batch for identity in row.tree_ids])
        self.questions.append(torch.cat([row.ids for row in batch]) if batch else torch.zeros(0))
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def trainer(folder: Path, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    """A trainer on the CPU that writes nothing by itself."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    options = {"max_epochs": 1, "limit_val_batches": 0, "num_sanity_val_steps": 0, **quiet, **options}
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        use_distributed_sampler=False,
        callbacks=[*callbacks],
        **options,
    )


def fit_rows(module: FineTuner, steps: Sequence[Sequence[TreeBatch]], folder: Path, **options: Any) -> Watch:
    """Train on packed steps given outright."""
    watch = Watch()
    loader = torch.utils.data.DataLoader([list(step) for step in steps], batch_size=None, num_workers=0)  # type: ignore[arg-type]
    trainer(folder, watch, **options).fit(module, loader)
    return watch
