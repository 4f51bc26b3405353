"""Attention of vision towers that lay images and windows end to end: all of them in one call, not one call each."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface

from spatial_lightning.backbones.attention import take_rows
from spatial_lightning.backbones.kernels import Sequences, kernel_for

WINDOW_ATTENTION = "flash_windows"
"""Transformers hands over where windows start to functions with ``flash`` in their name, and calls others window by window."""


def windowed_configs(vision: nn.Module) -> list[Any]:
    """Configurations of the attention layers of a vision tower that are told where sequences start."""
    found: dict[int, Any] = {}
    for module in vision.modules():
        config = getattr(module, "config", None)
        told = "cu_seqlens" in inspect.signature(module.forward).parameters
        if config is not None and told and hasattr(module, "scaling"):
            found[id(config)] = config
    return list(found.values())


def window_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens width"],
    key: Float[Tensor, "1 heads tokens width"],
    value: Float[Tensor, "1 heads tokens width"],
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Int[Tensor, " n_plus_1"],
    max_length_q: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Float[Tensor, "1 tokens heads width"], None]:
    """Full attention within each window, in the signature of transformers' attention functions."""
    rows = [tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value)]
    kernel = kernel_for(query.device, query.dtype, query.shape[-1]) if dropout == 0 else None
    if kernel is not None:
        starts = cu_seq_lens_q.to(torch.int32)
        windows = Sequences(starts, starts, int(max_length_q), int(max_length_q))
        return kernel(*rows, windows, scaling=scaling, causal=False).unsqueeze(0), None
    return _by_length(rows, cu_seq_lens_q, scaling, dropout).unsqueeze(0), None


def _by_length(
    rows: list[Float[Tensor, "tokens heads width"]],
    starts: Int[Tensor, " n_plus_1"],
    scaling: float | None,
    dropout: float,
) -> Float[Tensor, "tokens heads width"]:
    """Windows of one length in one call; as many calls as there are lengths."""
    lengths = starts.diff()
    sizes = lengths.unique().tolist()
    if len(sizes) == 1:
        return _attend(rows, sizes[0], scaling, dropout)
    groups = []
    for size in sizes:
        first = starts[:-1][lengths == size]
        groups.append((first.unsqueeze(1) + torch.arange(size, device=first.device)).flatten())
    outputs = []
    for size, places in zip(sizes, groups, strict=True):
        outputs.append(_attend([take_rows(row, places) for row in rows], size, scaling, dropout))
    order = torch.cat(groups)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    return take_rows(torch.cat(outputs), inverse)


def _attend(
    rows: list[Float[Tensor, "tokens heads width"]], size: int, scaling: float | None, dropout: float
) -> Float[Tensor, "tokens heads width"]:
    q, k, v = (row.unflatten(0, (-1, size)).transpose(1, 2) for row in rows)
    out = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
    return out.transpose(1, 2).flatten(0, 1)


AttentionInterface.register(WINDOW_ATTENTION, window_attention)
