"""Attention over sequences of different lengths laid end to end, without padding or masks, by the kernel that is there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_MAX_WIDTH = 256
"""Largest head that the kernels take; a multiple of 8."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Where sequences start in queries and in keys.

    Attributes:
        query_starts, key_starts: first place of each sequence, with the total as last entry (int32).
        longest_query, longest_key: lengths of the longest.
    """

    query_starts: Int[Tensor, " n_plus_1"]
    key_starts: Int[Tensor, " n_plus_1"]
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int]) -> Sequences:
        """Sequences of these lengths, one behind the other."""
        starts = [torch.tensor([0, *lengths]).cumsum(0).to(torch.int32) for lengths in (queries, keys)]
        return cls(starts[0], starts[1], max(queries), max(keys))

    def to(self, device: torch.device | str) -> Sequences:
        """The same on another device."""
        return Sequences(self.query_starts.to(device), self.key_starts.to(device), self.longest_query, self.longest_key)


Kernel = Callable[..., Tensor]
"""``kernel(query, key, value, sequences, scaling=, causal=, window=)``; the last query of a sequence stands at its last
key, ``window`` keys back are seen, None for all; fewer heads of keys than of queries are shared."""


def kernel_for(device: torch.device, dtype: torch.dtype, width: int) -> Kernel | None:
    """flash-attn where it is installed, else torch's own on CUDA; None where neither takes the type or the head's width."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16) or width % 8 or width > _MAX_WIDTH:
        return None
    return _flash_attn if find_spec("flash_attn") else _torch_varlen


def _flash_attn(
    query: Float[Tensor, "queries heads width"],
    key: Float[Tensor, "keys kv_heads width"],
    value: Float[Tensor, "keys kv_heads width"],
    sequences: Sequences,
    *,
    scaling: float | None = None,
    causal: bool = True,
    window: int | None = None,
) -> Float[Tensor, "queries heads width"]:
    from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]

    return flash_attn_varlen_func(
        query,
        key,
        value,
        sequences.query_starts,
        sequences.key_starts,
        sequences.longest_query,
        sequences.longest_key,
        softmax_scale=scaling,
        causal=causal,
        window_size=(-1, -1) if window is None else (window - 1, 0),
    )


def _torch_varlen(
    query: Float[Tensor, "queries heads width"],
    key: Float[Tensor, "keys kv_heads width"],
    value: Float[Tensor, "keys kv_heads width"],
    sequences: Sequences,
    *,
    scaling: float | None = None,
    causal: bool = True,
    window: int | None = None,
) -> Float[Tensor, "queries heads width"]:
    from torch.nn.attention.varlen import varlen_attn

    settings, query, key, value = varlen_call(
        _parameters(varlen_attn), query, key, value, scaling=scaling, causal=causal, window=window
    )
    out = varlen_attn(
        query,
        key,
        value,
        sequences.query_starts,
        sequences.key_starts,
        sequences.longest_query,
        sequences.longest_key,
        **settings,
    )
    assert isinstance(out, Tensor)
    return out


def varlen_call(
    known: frozenset[str],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None,
    causal: bool,
    window: int | None,
) -> tuple[dict[str, Any], Tensor, Tensor, Tensor]:
    """What to call ``torch.nn.attention.varlen.varlen_attn`` with, whose arguments differ from torch 2.10 to 2.13.

    Args:
        known: names of the arguments that the installed release takes.

    Raises:
        NotImplementedError: a window, on a release that has none.
    """
    settings: dict[str, Any] = {}
    if "window_size" in known:
        settings["window_size"] = (-1 if window is None else window - 1, 0) if causal else (-1, -1)
    elif window is not None:
        raise NotImplementedError("torch 2.10 has no windows in its variable-length attention: use torch 2.11 or newer")
    else:
        settings["is_causal"] = causal
    if "scale" in known:
        settings["scale"] = scaling
    elif scaling is not None:
        query = query * (scaling * query.shape[-1] ** 0.5)
    if "enable_gqa" in known:
        settings["enable_gqa"] = True
    elif query.shape[1] != key.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    return settings, query, key, value


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
