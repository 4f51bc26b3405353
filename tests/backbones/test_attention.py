"""The plan of tree attention: exactly the path is seen, and no more is computed than that needs."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import asked
from test_tree import trees
from torch import nn
from transformers import Lfm2Config, Qwen2Config
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.attention import (
    _CALL_COST,
    _chains,
    plan_attention,
    require_shareable,
    tree_attention,
)
from spatial_lightning.backbones.blocks import Blocks
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.data import Encoder
from spatial_lightning.tree import Node, TokenTree, TreeBatch, pack

ROWS = st.lists(trees(), min_size=1, max_size=5)


def seen(batch: TreeBatch, window: int | None = None, blocks: Blocks | None = None) -> list[list[int]]:
    """For each token of a row, the tokens that its plan lets it attend to, in order."""
    plan = plan_attention(batch, blocks)
    keys = []
    lengths = [mask.shape[0] * mask.shape[-1] for mask in plan.masks]
    for mask, rows in zip(plan.layer_masks(window), plan.keys.split(lengths), strict=True):
        allowed, paths = mask[:, 0], rows.view(mask.shape[0], -1)
        keys += [path[seen].tolist() for path, queries in zip(paths, allowed, strict=True) for seen in queries]
    places = plan.inverse.tolist()
    assert plan.queries[plan.inverse].tolist() == list(range(batch.tokens))
    return [keys[place] for place in places]


def path_to(batch: TreeBatch, token: int) -> list[int]:
    member = next(n for n in range(len(batch.node_parents)) if token in batch.node(n))
    return [place for n in batch.path(member) for place in batch.node(n) if place <= token]


@given(ROWS)
def test_every_token_sees_its_path_and_nothing_else(row: list[TokenTree]) -> None:
    batch = pack(row)
    assert seen(batch) == [path_to(batch, token) for token in range(batch.tokens)]


@given(ROWS, st.integers(1, 6))
def test_windows_are_measured_along_the_path(row: list[TokenTree], window: int) -> None:
    batch = pack(row)
    assert seen(batch, window) == [path_to(batch, token)[-window:] for token in range(batch.tokens)]


@given(ROWS)
def test_padding_costs_less_than_the_calls_it_saves(row: list[TokenTree]) -> None:
    batch = pack(row)
    needed = sum(chain.queries.numel() * chain.keys.numel() for chain in _chains(batch))
    area = sum(mask.numel() for mask in plan_attention(batch).masks)
    assert needed <= area <= needed + len(_chains(batch)) * _CALL_COST / 4


def test_area_grows_with_the_trees_and_not_with_the_row_squared(tiny: Backbone, pictures: tuple[Path, ...]) -> None:
    encoder = Encoder(tiny.processor)

    def area(images: int) -> tuple[int, int]:
        batch = pack([encoder.questions(asked(str(i), pictures[:1], 32)) for i in range(images)])
        return sum(mask.numel() for mask in plan_attention(batch).masks), batch.tokens

    (one, tokens), (many, row) = area(1), area(32)
    assert row == 32 * tokens
    assert many <= 1.1 * 32 * one
    assert one < 0.2 * tokens**2
    assert many < 0.01 * row**2


def test_number_of_calls_does_not_follow_the_number_of_trees(tiny: Backbone, pictures: tuple[Path, ...]) -> None:
    encoder = Encoder(tiny.processor)
    batch = pack([encoder.questions(asked(str(i), pictures[:1], 8)) for i in range(16)])
    assert len(plan_attention(batch).masks) <= 8


def test_layers_that_carry_state_are_refused() -> None:
    require_shareable(Qwen2Config())
    with pytest.raises(BackboneError, match=r"lfm2 has layers of type conv.*engine=separate"):
        require_shareable(Lfm2Config(num_hidden_layers=2, full_attn_idxs=[1]))


@given(ROWS, st.integers(1, 6), st.booleans(), st.randoms(use_true_random=False))
def test_blocks_see_their_own_on_the_path(row: list[TokenTree], window: int, windowed: bool, random: Random) -> None:
    """Against the rule in words: causal or same block, and the window over all of it or over the causal part only."""
    batch = pack(row)
    of = torch.tensor([random.randrange(-1, 3) for _ in range(batch.tokens)])
    for n, start in enumerate(batch.node_starts[:-1]):  # a block never straddles nodes
        of[start : batch.node_starts[n + 1]] += 3 * n * (of[start : batch.node_starts[n + 1]] >= 0)
    for width in (None, window):
        for token, keys in enumerate(seen(batch, width, Blocks(of, windowed))):
            member = next(n for n in range(len(batch.node_parents)) if token in batch.node(n))
            path = [place for n in batch.path(member) for place in batch.node(n)]
            own = path.index(token)
            near = [width is None or place > own - width for place in range(len(path))]
            block = [bool(of[token] >= 0 and of[key] == of[token]) for key in path]
            causal = [place <= own for place in range(len(path))]
            wanted = [
                key
                for key, n, b, c in zip(path, near, block, causal, strict=True)
                if ((c or b) and n if windowed else (c and n) or b)
            ]
            assert keys == wanted


@pytest.mark.parametrize("softcap", [0.5, 30.0])
def test_capped_scores_are_capped(softcap: float) -> None:
    """Against transformers' own eager attention on one sequence, and plainly different from uncapped scores."""
    length = 5
    query, key, value = (3 * torch.randn(1, heads, length, 4) for heads in (4, 2, 2))
    ids = torch.arange(length)
    node = Node(-1, ids, ids[None], ids > 0, ids * 0, 0)
    plan = plan_attention(pack([TokenTree("a", (node,))]))
    module: Any = nn.Identity().eval()
    module.num_key_value_groups = 2
    out, _ = tree_attention(module, query, key, value, None, tree_plan=plan, scaling=0.5, softcap=softcap)
    mask = torch.full((length, length), -torch.inf).triu(1)
    expected, _ = eager_attention_forward(module, query, key, value, mask, scaling=0.5, softcap=softcap)
    torch.testing.assert_close(out, expected)
    plain, _ = tree_attention(module, query, key, value, None, tree_plan=plan, scaling=0.5)
    assert softcap > 1 or (plain - out).abs().max() > 1e-2


def test_attention_sinks_are_refused() -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(BackboneError, match="engine=separate"):
        tree_attention(nn.Identity(), states, states, states, None, tree_plan=None, s_aux=states)  # type: ignore[arg-type]
