"""The abstract LightningModule: backbone, towers, optimizer groups, exact normalisation over rows and ranks, logging."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from transformers import get_scheduler

from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.backbones.reference import (
    AdapterOff,
    CachedReference,
    FrozenCopy,
    Reference,
    ReferenceKind,
)
from spatial_lightning.backbones.towers import TowerPlan, TowerReport
from spatial_lightning.modules.optimization import Optimization
from spatial_lightning.modules.random_state import random_state, set_random_state
from spatial_lightning.modules.ranks import added, gathered, summed
from spatial_lightning.modules.sharding import FSDP2Strategy, blank_row, shard, whole, with_picture
from spatial_lightning.tree import TreeBatch

Counts = Mapping[str, float]


class NonFiniteLossError(RuntimeError):
    """A loss or gradient that is not a finite number; the message names the examples of the step."""


class FineTuner(L.LightningModule, ABC):
    """Trains a backbone on packed token trees; a leaf adds the loss.

    One training step takes all rows of one optimizer step. Sums are divided by counts over the whole step and all ranks,
    so packing, accumulation and the number of ranks change nothing.

    Args:
        backbone: the policy.
        towers: what of it learns.
        optimization: how.
        reference: where reference log-probabilities come from, ``none`` for objectives without.
        cache_folder: where cached references live.
        needs_reference: whether the objective, as configured, compares with a reference policy.
        heads: modules that a leaf trains beside the backbone, e.g. value functions; kept in checkpoints as a whole.
        head_lr: learning rate of the heads; None takes the optimizer's. They do not decay.

    Raises:
        ValueError: a reference is missing or superfluous.
    """

    reference_use: str = ""
    """Names, for the cache, a leaf's own :meth:`reference_rows`."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        towers: TowerPlan,
        optimization: Optimization,
        reference: ReferenceKind = "none",
        cache_folder: Path = Path("cache/reference"),
        needs_reference: bool = False,
        heads: nn.Module | None = None,
        head_lr: float | None = None,
    ) -> None:
        super().__init__()
        self.needs_reference = needs_reference
        if needs_reference and reference == "none":
            raise ValueError(
                f"{type(self).__name__} compares with a reference policy: choose reference=cached or frozen_copy, "
                "or adapter_off where nothing but adapters is trained"
            )
        if not needs_reference and reference != "none":
            raise ValueError(f"{type(self).__name__} as configured uses no reference policy: choose reference=none")
        self.automatic_optimization = False
        if head_lr is not None and not head_lr > 0:
            raise ValueError(f"head_lr is {head_lr}; it must be above 0")
        self.backbone = backbone
        self.heads, self.head_lr = heads, head_lr
        self.towers = towers
        self.optimization = optimization
        self.reference_kind = reference
        self.cache_folder = cache_folder
        self.tower_report: list[TowerReport] = towers.apply(backbone)
        self.tokens_seen = 0
        self.examples_seen = 0
        self.tokens_timed = self.examples_timed = 0
        self.training_seconds = 0.0
        self._reference: list[Reference] = []
        self._validation: list[tuple[dict[str, float], int]] = []
        self._step_began = 0.0
        self._random: list[dict[str, Any]] = []
        # Checkpoints hold trained weights only.
        self.strict_loading = False

    # ------------------------------------------------------------------ for the leaves

    @abstractmethod
    def counts(self, batch: TreeBatch) -> Counts:
        """Denominators that this row contributes to the step, by name."""

    @abstractmethod
    def loss(self, batch: TreeBatch, totals: Counts) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The row's share of the loss, and metrics as (sum over the row's pairs or tokens) / total."""

    def prepare(self, data: Any) -> None:
        """Learn what the loss needs to know of the corpus, before training or validation; ``data`` may be None."""

    def reference_rows(self, data: Any) -> Iterator[TreeBatch]:
        """Rows whose reference log-probabilities a cache must hold."""
        return data.reference_rows()

    def after_step(self) -> None:
        """Follow an update of the weights."""

    def step_statistics(self) -> dict[str, float]:
        """Metrics of the whole step that are no sum over rows, the same on every rank; all of them ask."""
        return {}

    @property
    def reference(self) -> Reference:
        """The reference policy; present from :meth:`setup` on."""
        return self._reference[0]

    # ------------------------------------------------------------------ Lightning

    def setup(self, stage: str) -> None:
        """Fix the reference policy at the weights as they are before any training or resuming."""
        if stage not in ("fit", "validate"):
            return
        self.prepare(getattr(self.trainer, "datamodule", None))
        if self.needs_reference and not self._reference:
            self._reference = [self._make_reference()]

    def configure_model(self) -> None:
        """Cut policy and reference over the ranks where the strategy asks for it."""
        strategy = self.trainer.strategy
        if not isinstance(strategy, FSDP2Strategy):
            return
        mesh, precision = strategy.device_mesh["data_parallel"], str(self.trainer.precision)
        shard(self.backbone, mesh, precision)
        for reference in self._reference:
            if isinstance(reference, FrozenCopy):
                shard(reference.backbone, mesh, precision)

    def on_fit_start(self) -> None:
        """Put the model in training mode, which Lightning leaves as Hugging Face loaded it (eval)."""
        self.backbone.train()

    def on_train_start(self) -> None:
        """Start the step's clock."""
        self._step_began = time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Behind a resume, take the random generators up where they were, after all that setting up has drawn."""
        if self._random:
            set_random_state(self._random[self.global_rank], self.device)
            self._random = []

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Restart the step's clock, so that the next step includes the wait for its data."""
        self._step_began = time.perf_counter()

    def on_validation_end(self) -> None:
        """Leave validation out of the next step's time."""
        self._step_began = time.perf_counter()

    def training_step(self, batch: Sequence[TreeBatch], batch_idx: int) -> None:
        """One optimizer step over all rows of ``batch``; a step whose examples were all left out moves nothing."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        shares = gathered((len(batch), self._counted(batch)), self._world_size)
        totals = added(counts for _, counts in shares)
        metrics: dict[str, float] = {}
        if not batch and self._world_size > 1 and not self.sharded:
            self.manual_backward(self._anchor())
        for index, row in enumerate(batch):
            last = index == len(batch) - 1
            with self._synchronised(last):
                loss, row_metrics = self.loss(with_picture(row, self._blank) if self.sharded else row, totals)
                self._require_finite(loss, "loss", batch)
                anchor = self._anchor() if last and self._world_size > 1 and not self.sharded else 0.0
                self.manual_backward(loss * self._world_size + anchor)
            for name, value in {"loss": loss.detach(), **row_metrics}.items():
                metrics[name] = metrics.get(name, 0.0) + float(value)
        if self.sharded:
            self._accompany(max(rows for rows, _ in shares) - len(batch))
        if self._scaler is not None and not batch and self._world_size == 1:
            return  # the scaler of half precision insists on gradients
        scale = self._loss_scale
        norm = self._clip(self.backbone, scale, batch)
        if self.heads is not None:
            metrics["head_gradient_norm"] = self._clip(self.heads, scale, batch) / self._world_size
        optimizer.step()
        optimizer.zero_grad()
        if self._loss_scale >= scale:  # else half precision overflowed and the scaler left the step out
            if totals:
                self.after_step()
            scheduler = self.lr_schedulers()
            scheduler.step()  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue, reportCallIssue]
        if self._scaler is not None:
            metrics["loss_scale"] = scale / self._world_size
        self._log_step(batch, metrics, norm)

    def validation_step(self, batch: Sequence[TreeBatch], batch_idx: int) -> None:
        """Objective and metrics on held-out examples, which every rank goes through."""
        if not batch:
            return
        totals = self._counted(batch)
        metrics: dict[str, float] = {}
        for row in batch:
            loss, row_metrics = self.loss(row, totals)
            for name, value in {"loss": loss, **row_metrics}.items():
                metrics[name] = metrics.get(name, 0.0) + float(value)
        self._validation.append((metrics, sum(len(row.tree_ids) for row in batch)))

    def on_validation_epoch_end(self) -> None:
        """Log the example-weighted mean over the validation set."""
        total = sum(count for _, count in self._validation)
        if total:
            for name in self._validation[0][0]:
                mean = sum(metrics[name] * count for metrics, count in self._validation) / total
                self.log(f"val/{name}", mean, sync_dist=True)
        self._validation.clear()

    def configure_optimizers(self) -> Any:
        """The optimizer with one group per tower, and the schedule over our own count of steps."""
        settings = self.optimization
        groups = self.towers.parameter_groups(self.backbone, lr=settings.lr, weight_decay=settings.weight_decay)
        if self.heads is not None:
            # Small steps of a running mean round to nothing in half precision, to which the trainer may have converted.
            own = [parameter for parameter in self.heads.float().parameters() if parameter.requires_grad]
            rate = self.head_lr or settings.lr
            groups.append({"params": own, "lr": rate, "weight_decay": 0.0, "decays": False, "name": "heads"})
        optimizer = settings.build(groups, fused=self._can_fuse())
        steps = self.total_steps()
        scheduler = get_scheduler(settings.schedule, optimizer, round(settings.warmup * steps), steps)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep trainable weights only, heads as a whole, and the random generators of every rank."""
        kept = self._kept()
        checkpoint["state_dict"] = {name: t for name, t in checkpoint["state_dict"].items() if name in kept}
        checkpoint["random"] = gathered(random_state(self.device), self._world_size)
        checkpoint["seen"] = {"tokens": self.tokens_seen, "examples": self.examples_seen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Require the same trained weights; frozen ones, which checkpoints leave out, stay as they are.

        Raises:
            ValueError: the checkpoint is of a run that trained others.
        """
        kept = self._kept()
        different = sorted(kept ^ set(checkpoint["state_dict"]))
        if different:
            raise ValueError(
                f"the checkpoint was trained with other towers or heads: {different[0]} is trained "
                f"{'now and was not then' if different[0] in kept else 'no more'} ({len(different)} tensors differ)"
            )
        self._random = checkpoint["random"]
        self.tokens_seen, self.examples_seen = checkpoint["seen"]["tokens"], checkpoint["seen"]["examples"]

    def total_steps(self) -> int:
        """Optimizer steps of the whole run (Lightning's own estimate would restart stateful loaders).

        Raises:
            ValueError: the trainer has no limit in steps or epochs.
        """
        trainer = self.trainer
        limits = [trainer.max_steps] if trainer.max_steps > 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            limits.append(trainer.max_epochs * self._steps_per_epoch())
        if not limits:
            raise ValueError("the learning-rate schedule needs an end: set trainer.max_steps or trainer.max_epochs")
        return min(limits)

    # ------------------------------------------------------------------ details

    def _make_reference(self) -> Reference:
        strategy = self.trainer.strategy
        precision = strategy.precision_plugin
        # Lightning converts and moves the model behind this hook; the reference must see it as training will.
        precision.convert_module(self.backbone)
        if self.reference_kind == "cached" or not isinstance(strategy, FSDP2Strategy):
            self.backbone.to(strategy.root_device)
        if self.reference_kind == "frozen_copy":
            return FrozenCopy(self.backbone)
        if self.reference_kind == "adapter_off":
            return AdapterOff(self.backbone)
        mixed = "mixed" in str(self.trainer.precision)
        cache = CachedReference(
            self.backbone, self.cache_folder / str(self.trainer.precision) if mixed else self.cache_folder
        )
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        corpus = f"{data.fingerprint()}{self.reference_use}"
        with precision.forward_context():
            if self.trainer.local_rank == 0 and not cache.is_complete(corpus):
                cache.fill(self.backbone, self.reference_rows(data), corpus)
            strategy.barrier("reference cache")
            for row in data.reference_rows(limit=1):
                cache.check(self.backbone, row.to(self.backbone.device))
        return cache

    def _kept(self) -> set[str]:
        """Names of what checkpoints hold."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return trained | {name for name, _ in self.named_parameters() if name.startswith("heads.")}

    def _clip(self, module: nn.Module, scale: float, batch: Sequence[TreeBatch]) -> float:
        """Clip the gradient of the policy, or of the heads, whose errors must not shorten the policy's steps; its norm."""
        norm = torch.nn.utils.clip_grad_norm_(
            [parameter for parameter in module.parameters() if parameter.grad is not None],
            # Gradients of a scaled loss are scaled back inside the optimizer's step only.
            (self.optimization.max_grad_norm or float("inf")) * scale,
        )
        norm = whole(norm) / scale
        if self._scaler is None:
            self._require_finite(norm, "gradient", batch)
        return float(norm)

    def _counted(self, batch: Sequence[TreeBatch]) -> dict[str, float]:
        """Denominators of this rank's share of a step."""
        totals: dict[str, float] = {}
        for row in batch:
            for name, value in self.counts(row).items():
                totals[name] = totals.get(name, 0.0) + value
        return totals

    def _accompany(self, passes: int) -> None:
        """Take part in passes that other ranks have rows for and this one has not; gathering weights takes all ranks."""
        for _ in range(passes):
            nothing = self.backbone.logps(self._blank).sum() * 0.0
            if self.reference_kind in ("frozen_copy", "adapter_off"):
                self.reference.logps(self._blank)
            self.manual_backward(nothing)

    def _anchor(self) -> Float[Tensor, ""]:
        """A zero that every trained weight has a part in: ranks wait for each other's gradient of each of them."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.stack([parameter.sum().float() for parameter in trained]).sum() * 0.0

    def _steps_per_epoch(self) -> int:
        trainer = self.trainer
        data = getattr(trainer, "datamodule", None)
        if data is None or not hasattr(data, "steps_per_epoch"):
            trainer.fit_loop.setup_data()
            return int(trainer.num_training_batches)
        limit = trainer.limit_train_batches
        return (
            min(data.steps_per_epoch, limit) if isinstance(limit, int) else int(data.steps_per_epoch * (limit or 1.0))
        )

    @property
    def sharded(self) -> bool:
        """Whether weights are cut over ranks, so that all of them have to take the same passes."""
        return isinstance(self.trainer.strategy, FSDP2Strategy)

    @cached_property
    def _blank(self) -> TreeBatch:
        return blank_row(self.backbone.processor).to(self.device)

    @property
    def _world_size(self) -> int:
        """Ranks whose gradients are averaged; undone here because sums are divided by global counts."""
        return self.trainer.world_size

    def _synchronised(self, last_row: bool) -> AbstractContextManager[None]:
        """Exchange gradients between ranks only behind the last row of a step."""
        strategy = self.trainer.strategy
        if last_row or not isinstance(strategy, ParallelStrategy):
            return nullcontext()
        return strategy.block_backward_sync()

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """Scales the loss under half precision, so that small gradients are not rounded to zero."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    @property
    def _loss_scale(self) -> float:
        return 1.0 if self._scaler is None else self._scaler.get_scale()

    def _can_fuse(self) -> bool:
        trained = (parameter for parameter in self.parameters() if parameter.requires_grad)
        return all(parameter.dtype in (torch.float32, torch.bfloat16, torch.float16) for parameter in trained)

    def _require_finite(self, value: Tensor, what: str, batch: Sequence[TreeBatch]) -> None:
        if not bool(torch.isfinite(value)):
            names = [identity for row in batch for identity in row.tree_ids]
            raise NonFiniteLossError(
                f"{what} is {float(value.detach())} at step {self.global_step} in a batch of {len(names)} examples: "
                f"{', '.join(names[:8])}{', ...' if len(names) > 8 else ''}. Lower the learning rate, clip the gradient "
                "(optimization.max_grad_norm), or look at these examples."
            )

    def _log_step(self, batch: Sequence[TreeBatch], metrics: dict[str, float], norm: float) -> None:
        own = {
            "tokens": sum(row.tokens for row in batch),
            "examples": sum(len(row.tree_ids) for row in batch),
            "targets": sum(row.targets.numel() for row in batch),
        }
        work = summed(own, self._world_size)
        metrics = summed(metrics, self._world_size) | self.step_statistics()
        tokens, examples = int(work["tokens"]), int(work["examples"])
        if not examples:
            return
        self.tokens_seen += tokens
        self.examples_seen += examples
        seconds = time.perf_counter() - self._step_began
        metrics["tokens_per_s"] = tokens / seconds
        if self.trainer.fit_loop.epoch_loop.batch_idx > 0 or self.trainer.current_epoch > 0:
            # The first step pays for allocations that no later one does.
            self.tokens_timed += tokens
            self.examples_timed += examples
            self.training_seconds += seconds
        metrics["gradient_norm"] = norm
        metrics["trained_share"] = work["targets"] / tokens
        self.log("loss", metrics["loss"], prog_bar=True, logger=False)
        self.log_dict({f"train/{name}": value for name, value in metrics.items()}, batch_size=max(1, examples))
