"""The plan of tree attention: exactly the path is seen, and no more is computed than that needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import asked
from test_tree import trees
from torch import nn
from transformers import Lfm2Config, Qwen2Config

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.attention import (
    _CALL_COST,
    _chains,
    plan_attention,
    require_shareable,
    tree_attention,
    within,
)
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.data import Encoder
from spatial_lightning.tree import TokenTree, TreeBatch, pack

ROWS = st.lists(trees(), min_size=1, max_size=5)


def seen(batch: TreeBatch, window: int | None = None) -> list[list[int]]:
    """For each token of a row, the tokens that its plan lets it attend to, in order."""
    plan = plan_attention(batch)
    keys = []
    lengths = [mask.shape[0] * mask.shape[-1] for mask in plan.masks]
    for mask, rows in zip(plan.masks, plan.keys.split(lengths), strict=True):
        allowed, paths = within(mask, window)[:, 0], rows.view(mask.shape[0], -1)
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


@pytest.mark.parametrize("extra", [{"softcap": 30.0}, {"s_aux": torch.zeros(2)}])
def test_scores_that_the_plan_cannot_bend_are_refused(extra: dict) -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(BackboneError, match="engine=separate"):
        tree_attention(nn.Identity(), states, states, states, None, tree_plan=None, **extra)  # type: ignore[arg-type]
