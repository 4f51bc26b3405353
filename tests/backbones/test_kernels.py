"""Plans for kernels of sequences, held against masked attention; the CUDA kernels themselves are not run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import asked
from test_tree import trees
from torch import Tensor, nn

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.attention import plan_attention, plan_sequences, tree_attention
from spatial_lightning.backbones.kernels import Sequences, kernel_for, varlen_call
from spatial_lightning.backbones.windows import WINDOW_ATTENTION, window_attention
from spatial_lightning.data import Encoder
from spatial_lightning.tree import TokenTree, pack

RELEASES = {
    "2.10": frozenset({"is_causal", "return_aux"}),
    "2.11": frozenset({"return_aux", "scale", "window_size"}),
    "2.13": frozenset({"return_aux", "scale", "window_size", "enable_gqa", "seqused_k"}),
}


def plain_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sequences: Sequences,
    *,
    scaling: float | None = None,
    causal: bool = True,
    window: int | None = None,
) -> Tensor:
    """What flash-attn says of itself, one sequence after the other: causal masks are aligned at the last query and key."""
    outputs = []
    assert sequences.longest_query == int(sequences.query_starts.diff().max())
    assert sequences.longest_key == int(sequences.key_starts.diff().max())
    for index in range(len(sequences.query_starts) - 1):
        q = query[sequences.query_starts[index] : sequences.query_starts[index + 1]]
        k, v = (row[sequences.key_starts[index] : sequences.key_starts[index + 1]] for row in (key, value))
        k, v = (row.repeat_interleave(q.shape[1] // row.shape[1], dim=1) for row in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        place = torch.arange(len(q)).unsqueeze(1) + len(k) - len(q)
        hidden = torch.zeros(len(q), len(k), dtype=torch.bool)
        if causal:
            hidden |= torch.arange(len(k)) > place
        if window is not None:
            hidden |= torch.arange(len(k)) <= place - window
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), v))
    return torch.cat(outputs)


@given(st.lists(trees(), min_size=1, max_size=4), st.sampled_from([None, 1, 3]))
def test_sequences_and_masks_are_the_same_attention(row: list[TokenTree], window: int | None) -> None:
    batch = pack(row)
    found = []
    generator = torch.Generator().manual_seed(0)
    given_rows = [torch.randn(1, heads, batch.tokens, 4, generator=generator).double() for heads in (4, 2, 2)]
    weights = torch.randn(1, batch.tokens, 4, 4, generator=generator).double()
    for plan in (plan_sequences(batch, plain_kernel), plan_attention(batch)):
        rows = [tensor.clone().requires_grad_() for tensor in given_rows]
        module: Any = nn.Identity()
        out, _ = tree_attention(module, *rows, None, tree_plan=plan, scaling=0.3, sliding_window=window)
        gradients = torch.autograd.grad((out * weights).sum(), rows)
        found.append((out, *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_model_says_the_same_through_sequences(
    tiny: Backbone, pictures: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(tiny.processor)
    row = pack([encoder.questions(asked("a", pictures[:2], 3)), encoder.questions(asked("b", pictures[1:2], 2))])
    expected = tiny.logps(row)
    monkeypatch.setattr("spatial_lightning.backbones.backbone.kernel_for", lambda *_: plain_kernel)
    used: list[Any] = []
    plan = tiny._plan
    monkeypatch.setattr(tiny, "_plan", lambda batch: used.append(plan(batch)) or used[-1])
    torch.testing.assert_close(tiny.logps(row), expected, rtol=1e-5, atol=1e-5)
    assert used[0].kernel is plain_kernel


def test_kernels_are_for_half_precision_on_cuda() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert kernel_for(cuda, torch.bfloat16, 128) is not None
    for device, dtype, width in ((cpu, torch.bfloat16, 128), (cuda, torch.float32, 128), (cuda, torch.float16, 20)):
        assert kernel_for(device, dtype, width) is None


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("causal", [True, False])
def test_every_release_of_torch_is_called_alike(release: str, causal: bool) -> None:
    """Whatever a release does not take is done to its inputs, with the same result."""
    query, key, value = (torch.randn(5, heads, 8) for heads in (4, 2, 2))
    starts = torch.tensor([0, 5])
    known = RELEASES[release]
    settings, q, k, v = varlen_call(known, query, key, value, scaling=0.5, causal=causal, window=None)
    assert set(settings) <= known
    assert settings.get("is_causal", settings.get("window_size") == (-1, 0)) == causal
    assert k.shape[1] == (2 if settings.get("enable_gqa") else 4)
    sequences = Sequences(starts, starts, 5, 5)
    out = plain_kernel(q, k, v, sequences, scaling=settings.get("scale"), causal=causal)
    torch.testing.assert_close(out, plain_kernel(query, key, value, sequences, scaling=0.5, causal=causal))


def test_windows_need_a_release_that_has_them() -> None:
    rows = [torch.randn(5, 2, 8)] * 3
    settings, *_ = varlen_call(RELEASES["2.13"], *rows, scaling=None, causal=True, window=3)
    assert settings["window_size"] == (2, 0)
    with pytest.raises(NotImplementedError, match=r"torch 2\.11 or newer"):
        varlen_call(RELEASES["2.10"], *rows, scaling=None, causal=True, window=3)


@pytest.mark.parametrize("lengths", [(4, 4, 4), (2, 5, 2, 1, 5)])
def test_images_and_windows_are_attended_to_in_few_calls(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = torch.tensor([0, *lengths]).cumsum(0)
    rows = [torch.randn(1, 2, sum(lengths), 8).double().requires_grad_() for _ in range(3)]
    weights = torch.randn(1, sum(lengths), 2, 8).double()
    sequences = Sequences(starts, starts, max(lengths), max(lengths))
    expected = plain_kernel(*(r[0].transpose(0, 1) for r in rows), sequences, scaling=0.4, causal=False)
    calls = []
    attend = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(a[0].shape) or attend(*a, **k)
    )
    found, _ = window_attention(
        nn.Identity(), *rows, None, cu_seq_lens_q=starts, max_length_q=max(lengths), scaling=0.4
    )
    assert len(calls) == len(set(lengths))
    torch.testing.assert_close(found[0], expected)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), rows),
        torch.autograd.grad((expected * weights[0]).sum(), rows),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_the_vision_tower_attends_so_on_the_shared_engine_only(tiny: Backbone) -> None:
    config = tiny.model.model.visual.config
    assert config._attn_implementation == WINDOW_ATTENTION
    with tiny.running("separate"):
        assert config._attn_implementation == "sdpa"
    assert config._attn_implementation == WINDOW_ATTENTION
