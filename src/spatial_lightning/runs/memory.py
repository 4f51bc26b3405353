"""The memory plan: what a training step will hold, said before the first step and compared with the peak after the second."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers.modeling_layers import GradientCheckpointingLayer

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.head import CHUNK_ELEMENTS
from spatial_lightning.modules import FineTuner
from spatial_lightning.runs.cpu import release_memory
from spatial_lightning.tree import TreeBatch, pack

_HEAD_COPIES = 3
"""Chunks of float32 logits alive at once in the head's backward pass: logits, probabilities, and their product."""
_GIB = 2**30
_ADVICE = (
    "the strongest first: towers.language.checkpointing=true (keeps layer inputs only), a smaller data.module.token_budget "
    "(shorter rows, the same step), towers=lora or optimization.optimizer=adamw_8bit (fewer gradients and optimizer states)"
)


class OutOfMemory(RuntimeError):
    """The device ran out of memory; the message says what was planned and what would help."""


@dataclass(frozen=True, slots=True)
class Activations:
    """What the forward pass of a row keeps for the backward pass, bytes.

    Attributes:
        kept: with the checkpointing that is switched on.
        largest_layer: the layer that keeps most; a checkpointed one comes back whole while it is computed again.
    """

    kept: int
    largest_layer: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is held at the peak of a training step, bytes.

    Attributes:
        weights: of the policy, frozen ones included.
        reference: a second copy of the weights where there is one.
        gradients: of the trained weights.
        optimizer: its state.
        activations: kept by the forward pass of the fullest row of the first step.
        working: the larger of the head's logits and one layer computed again or differentiated.
    """

    weights: int
    reference: int
    gradients: int
    optimizer: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """The planned peak."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        parts = ", ".join(f"{field.name} {_gib(getattr(self, field.name))}" for field in fields(self))
        return f"{_gib(self.total)}: {parts}"


def measure_activations(backbone: Backbone, row: TreeBatch) -> Activations:
    """Run one forward pass and count what it keeps, every storage once and weights left out.

    Layers that would be checkpointed are run without, so that both their input and what they keep become known.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
    kept: dict[int, int] = {}
    layers: list[tuple[int, int, bool]] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with (
        torch.random.fork_rng(),
        _unchecked(backbone, lambda: sum(kept.values()), layers),
        saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        logps = backbone.logps(row)
        total = sum(kept.values())
        del logps
    for inner, state, checkpointed in layers:
        if checkpointed:
            total += state - inner
    return Activations(total, max((inner for inner, _, _ in layers), default=0))


@contextmanager
def _unchecked(backbone: Backbone, kept: Callable[[], int], layers: list[tuple[int, int, bool]]) -> Iterator[None]:
    """Run layers without checkpointing and note what each keeps, its input's size, and whether it is checkpointed."""
    handles, flags = [], []
    for layer in backbone.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            flags.append((layer, layer.gradient_checkpointing))
            before: list[int] = []

            def enter(_: nn.Module, args: Any, kwargs: Any, before: list[int] = before) -> None:
                before.append(kept())

            def leave(
                _: nn.Module, args: Any, output: Any, before: list[int] = before, active: bool = flags[-1][1]
            ) -> None:
                state = next((a for a in args if isinstance(a, Tensor)), None)
                size = 0 if state is None else state.numel() * state.element_size()
                layers.append((kept() - before.pop(), size, active))

            handles += [layer.register_forward_pre_hook(enter, with_kwargs=True), layer.register_forward_hook(leave)]
            layer.gradient_checkpointing = False
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer, flag in flags:
            layer.gradient_checkpointing = flag


def plan_memory(
    module: FineTuner, sample: TreeBatch, row: TreeBatch, *, groups: Sequence[dict[str, Any]], reference_copy: bool
) -> MemoryPlan:
    """Plan the peak of a step whose fullest row is ``row``, from a forward pass over a smaller ``sample`` of the same kind.

    Args:
        groups: of the optimizer.
        reference_copy: whether a frozen copy of the weights is held as well.
    """
    backbone = module.backbone
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = _size(module.parameters()) + _size(module.buffers())
    activations = measure_activations(backbone, sample)
    share = row.tokens / sample.tokens
    vocabulary = backbone.model.config.get_text_config().vocab_size
    head = _HEAD_COPIES * 4 * min(row.targets.numel() * vocabulary, CHUNK_ELEMENTS)
    return MemoryPlan(
        weights=weights,
        reference=weights if reference_copy else 0,
        gradients=_size(trained),
        optimizer=module.optimization.state_bytes(groups),
        activations=round(activations.kept * share),
        working=max(head, round(activations.largest_layer * share)),
    )


class MemoryReport(L.Callback):
    """Says the plan before the first step and the measured peak after the second, when the optimizer's state is there.

    Args:
        say: receives one line at a time.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.plan: MemoryPlan | None = None
        self._before = 0
        self._done = 0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Plan from the first example and the fullest row of the first step."""
        assert isinstance(pl_module, FineTuner)
        if self.plan is not None or not batch or pl_module.sharded:
            return  # a forward pass over weights that are cut up takes all ranks, and not all have a row
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        fullest = max(batch, key=lambda row: row.tokens)
        sample = pack([data.encode(next(iter(data.stream or data.records["train"])), epoch=0)]).to(pl_module.device)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        copied = pl_module.reference_kind == "frozen_copy"
        self.plan = plan_memory(pl_module, sample, fullest, groups=groups, reference_copy=copied)
        self.say(f"memory plan for rows of {fullest.tokens:,} tokens: {self.plan}")
        # What is there already, the weights, is part of the plan.
        room = _free() + self.plan.weights + self.plan.reference
        if self.plan.total > room > 0:
            self.say(f"warning: that is more than the {_gib(room)} there are. What helps, {_ADVICE}")
        self._before = _reset_peak()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Compare with the peak."""
        self._done += 1
        if self.plan is None or self._done != 2:
            return
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
        else:
            # The process holds much besides; what it grew by, the gradients and later parts of the plan, is comparable.
            peak = _resident("VmHWM") - self._before + self.plan.weights + self.plan.reference
        self.say(f"memory: peak {_gib(peak)}, planned {_gib(self.plan.total)}")

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn an allocation that failed into words.

        Raises:
            OutOfMemory: instead of the allocator's error.
        """
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            planned = f"planned was {self.plan}" if self.plan else "no plan had been made yet"
            first = str(error).split("\n")[0]
            raise OutOfMemory(f"out of memory ({first}); {planned}. What helps, {_ADVICE}") from error


def _size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _reset_peak() -> int:
    """Start measuring the peak anew; returns what is held now, bytes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    release_memory()
    reset = Path("/proc/self/clear_refs")
    if os.access(reset, os.W_OK):
        reset.write_text("5")
    return _resident("VmRSS")


def _free() -> int:
    """Bytes that nobody holds on the device that trains; 0 where it cannot be known."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable")


def _resident(field: str) -> int:
    """Bytes of a field of ``/proc/self/status``; 0 where there is none."""
    return _kilobytes(Path("/proc/self/status"), field)


def _kilobytes(path: Path, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", path.read_text(), re.MULTILINE) if path.exists() else None
    return int(found[1]) * 1024 if found else 0


def _gib(size: float) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"
