"""Weights, gradients and optimizer state cut over ranks: FSDP2 (arXiv:2304.11277) for a backbone and its checkpoints."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from PIL import Image
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from transformers.modeling_layers import GradientCheckpointingLayer

from spatial_lightning.backbones.adapters import is_quantized
from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.backbones.processor import BackboneError, Processor
from spatial_lightning.tree import NO_SEGMENT, Node, TokenTree, TreeBatch, pack

_BLANK_PIXELS = 64


@final
class FSDP2Strategy(ModelParallelStrategy):
    """Every rank keeps one part of all weights and gathers a layer when it needs it.

    Checkpoints hold whole tensors, just as those of one device, so a run may go on under either.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Cut over all ranks of all nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """Trained weights as whole tensors on the first rank, nothing on the others."""
        assert self.model is not None
        named = ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)
        return self._on_first((name, whole(value.detach())) for name, value in named)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state in its own form, with whole tensors on the first rank and none on the others."""
        state = optimizer.state_dict()
        for index, own in state["state"].items():
            state["state"][index] = self._on_first(
                (name, whole(value) if isinstance(value, Tensor) else value) for name, value in own.items()
            )
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write what :meth:`lightning_module_state_dict` gathered; the first rank does."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The checkpoint as it was written, read by every rank."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this rank's part of every weight that a checkpoint holds."""
        assert self.model is not None
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in checkpoint["state_dict"].items():
                parameters[name].copy_(like(value, parameters[name]))

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether the trainer hands the optimizer's state to :meth:`load_optimizer_state_dict`."""
        return True

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's part of the optimizer's state."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            owners = dict(enumerate(value for group in optimizer.param_groups for value in group["params"]))
            cut = {
                index: {
                    name: like(value, owners[index]) if isinstance(value, Tensor) else value
                    for name, value in own.items()
                }
                for index, own in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": cut})

    def _on_first(self, named: Iterator[tuple[str, Any]]) -> dict[str, Any]:
        """The values on the first rank; the others go through them, because gathering takes all."""
        kept = ((name, value.cpu() if isinstance(value, Tensor) else value) for name, value in named)
        if self.is_global_zero:
            return dict(kept)
        for _ in kept:
            pass
        return {}


def whole(value: Tensor) -> Tensor:
    """A tensor that is not cut any more; every rank has to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor cut as a parameter is, or as it is where it has another shape (an optimizer's count of steps)."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def shard(backbone: Backbone, mesh: DeviceMesh, precision: str) -> None:
    """Cut a backbone over the ranks of a mesh: each layer of its towers by itself, the rest together.

    Under ``bf16-mixed`` layers gather their weights in bfloat16; what lies outside of them (embeddings, last norm, head)
    stays as it is, so that hidden states are kept in the type that one device keeps them in. Gradients are added up over
    ranks in float32.

    Raises:
        BackboneError: an engine whose passes differ in number between ranks, or quantised weights.
    """
    if isinstance(backbone, FSDPModule):
        return
    if backbone.engine != "shared":
        raise BackboneError(
            "FSDP needs every rank to take the same passes, which backbone.engine=separate does not: set it to shared, "
            "or choose trainer=ddp"
        )
    if any(map(is_quantized, backbone.model.parameters())):
        raise BackboneError(
            "FSDP cannot cut quantised weights: set backbone.quantization to null, or choose trainer=ddp"
        )
    layers = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if precision == "bf16-mixed" else None,
        reduce_dtype=torch.float32,
        # Autocast and the model itself say what is computed in which type; angles of positions stay exact.
        cast_forward_inputs=False,
    )
    rest = MixedPrecisionPolicy(reduce_dtype=layers.reduce_dtype, cast_forward_inputs=False)
    for layer in _layers(backbone):
        fully_shard(layer, mesh=mesh, mp_policy=layers)
    fully_shard(backbone, mesh=mesh, mp_policy=rest, reshard_after_forward=False)
    # The head and its tied embeddings are used beside the model's own forward: what gathers them is the whole call.
    for method in ("read", "generate"):
        if layers.param_dtype is not None:
            # Weights of two types work under autocast only, which the trainer leaves where answers are generated.
            autocast = torch.autocast(mesh.device_type, layers.param_dtype)
            setattr(backbone, method, autocast(getattr(backbone, method)))
        register_fsdp_forward_method(backbone, method)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Outermost layers of all towers, as transformers marks them."""
    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from _layers(child)


def blank_row(processor: Processor) -> TreeBatch:
    """A picture and one trained token that mean nothing, for ranks that take part in a pass without work of their own."""
    file = io.BytesIO()
    Image.new("RGB", (_BLANK_PIXELS, _BLANK_PIXELS)).save(file, "PNG")
    picture = processor.image(file)
    ids, _ = processor.tokenize(processor.frame(1).prefix, (picture,))
    trained = torch.zeros_like(ids).bool()
    trained[-1] = True
    positions = processor.positions(ids, (picture,)).contiguous()
    node = Node(-1, ids, positions, trained, torch.full_like(ids, NO_SEGMENT), 0, (picture,))
    return pack([TokenTree("blank", (node,))])


def with_picture(row: TreeBatch, blank: TreeBatch) -> TreeBatch:
    """A row that runs the vision tower; one without a picture gets a blank one behind it, which nothing of it sees."""
    if row.images:
        return row
    nodes = len(row.node_parents)
    return dataclasses.replace(
        row,
        ids=torch.cat([row.ids, blank.ids]),
        positions=torch.cat([row.positions, blank.positions], dim=1),
        node_starts=row.node_starts + tuple(row.tokens + start for start in blank.node_starts[1:]),
        node_parents=row.node_parents + tuple(p if p < 0 else nodes + p for p in blank.node_parents),
        images=blank.images,
        image_counts=row.image_counts + blank.image_counts,
        image_rows=blank.image_rows,
    )
