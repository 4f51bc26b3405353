"""Token trees: validation, packing, and who is whose ancestor."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import asked, pair, trace

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.tree import ImageFeatures, Node, TokenTree, TreeError, continue_positions, pack, split_by_budget


def node(
    parent: int, length: int, *, trained: bool = True, branch: int = 0, image: ImageFeatures | None = None
) -> Node:
    positions = torch.arange(length).expand(3, length)
    flags = torch.full((length,), trained)
    if parent < 0:
        flags[0] = False
    ids = torch.arange(length) + 10 * (parent + 2)
    return Node(parent, ids, positions, flags, torch.zeros(length).long(), branch, (image,) if image else ())


@st.composite
def trees(draw: st.DrawFn) -> TokenTree:
    """Any tree of up to seven nodes; every node but the root trains all its tokens."""
    count = draw(st.integers(2, 7))
    nodes = [node(-1, draw(st.integers(1, 5)), trained=False, branch=-1)]
    for index in range(1, count):
        nodes.append(node(draw(st.integers(0, index - 1)), draw(st.integers(1, 4)), branch=index - 1))
    return TokenTree(f"tree {draw(st.integers(0, 99))}", tuple(nodes))


@given(st.lists(trees(), min_size=1, max_size=4))
def test_targets_and_predictors_are_neighbours_on_a_path(row: list[TokenTree]) -> None:
    batch = pack(row)
    assert batch.tokens == sum(tree.tokens for tree in row) == batch.ids.numel()
    assert batch.branches == sum(tree.branches for tree in row)
    found = {}
    for leaf in batch.leaves():
        places = [place for member in batch.path(leaf) for place in batch.node(member)]
        found.update(zip(places[1:], places[:-1], strict=True))
    expected = {place: before for place, before in found.items() if place in set(batch.targets.tolist())}
    assert dict(zip(batch.targets.tolist(), batch.predictors.tolist(), strict=True)) == expected
    assert batch.targets.tolist() == sorted(batch.targets.tolist())
    assert [batch.tree_targets[i] for i in range(len(row))] == [tree.trained_tokens for tree in row]


@given(st.lists(trees(), min_size=1, max_size=4))
def test_branches_are_counted_through_the_row(row: list[TokenTree]) -> None:
    expected, first = [], 0
    for tree in row:
        expected += [first + n.branch for n in tree.nodes for trained in n.trained.tolist() if trained]
        first += tree.branches
    assert pack(row).branch.tolist() == expected


@given(st.lists(trees(), min_size=1, max_size=8), st.integers(30, 60))
def test_rows_keep_the_order_and_the_budget(row: list[TokenTree], budget: int) -> None:
    rows = list(split_by_budget(row, budget))
    assert [tree for part in rows for tree in part] == row
    assert all(part and sum(tree.tokens for tree in part) <= budget for part in rows)
    for part, following in itertools.pairwise(rows):
        assert sum(tree.tokens for tree in part) + following[0].tokens > budget


def test_a_tree_above_the_budget_is_named() -> None:
    tree = TokenTree("long one", (node(-1, 9),))
    with pytest.raises(TreeError, match="long one: 9 tokens do not fit the token budget of 8"):
        list(split_by_budget([tree], 8))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((), "at least one node"),
        ((node(-1, 2), node(-1, 2)), "node 1 has parent -1"),
        ((node(-1, 2), node(1, 2)), "node 1 has parent 1"),
        ((node(0, 2),), "node 0 has parent 0"),
        ((node(-1, 2), node(0, 0)), "node 1 has no token"),
        ((node(-1, 2, trained=False),), "no token is trained"),
        ((node(-1, 2, branch=-1),), "belongs to no branch"),
        ((dataclasses.replace(node(-1, 2), trained=torch.ones(2).bool()),), "first token of a sequence"),
    ],
)
def test_impossible_trees_are_refused(nodes: tuple[Node, ...], message: str) -> None:
    with pytest.raises(TreeError, match=message):
        TokenTree("t", nodes)


def test_rows_need_trees_of_one_kind() -> None:
    tree = TokenTree("t", (node(-1, 2),))
    valued = TokenTree("v", (node(-1, 2),), {"reward_gap": torch.zeros(1, 2)})
    with pytest.raises(TreeError, match="no tree to pack"):
        pack([])
    with pytest.raises(TreeError, match="same values"):
        pack([tree, valued])
    pictured = [
        TokenTree(name, (node(-1, 2, image=ImageFeatures({name: torch.zeros(1)}, 1, name)),)) for name in ("a", "b")
    ]
    with pytest.raises(TreeError, match="same inputs"):
        pack(pictured)


@pytest.mark.parametrize("pictured", [False, True])
@pytest.mark.parametrize("keys", [False, True])
def test_hashes_are_made_exactly_when_asked_for(pictured: bool, keys: bool) -> None:
    image = ImageFeatures({"pixel_values": torch.zeros(1)}, 1, "a picture")
    batch = pack([TokenTree("t", (node(-1, 2, image=image if pictured else None),))], keys=keys)
    assert len(batch.tree_keys) == (1 if keys else 0)


def test_hash_follows_what_the_log_probabilities_depend_on(tiny: Backbone, pictures: tuple[Path, ...]) -> None:
    encoder = Encoder(tiny.processor)
    base = encoder.pair(pair("a", pictures[:1]))
    same = encoder.pair(
        dataclasses.replace(pair("another name", pictures[:1], scored=False), question=pair("a", ()).question)
    )
    assert base.key() == same.key()
    others = [
        encoder.pair(pair("a", pictures[1:2])),
        encoder.pair(pair("a", pictures[:1], extra=" too")),
        Encoder(tiny.processor, segment_context="independent").pair(pair("a", pictures[:1])),
        Encoder(tiny.processor, system="Be brief.").pair(pair("a", pictures[:1])),
    ]
    assert len({tree.key() for tree in [base, *others]}) == 5


def test_text_goes_on_from_the_global_maximum() -> None:
    parent = torch.tensor([[0, 1, 1], [0, 1, 5], [0, 1, 2]])
    assert continue_positions(parent, 2).tolist() == [[6, 7]] * 3
    assert continue_positions(torch.zeros(3, 0).long(), 2).tolist() == [[0, 1]] * 3


def test_images_follow_the_nodes(tiny: Backbone, pictures: tuple[Path, ...]) -> None:
    encoder = Encoder(tiny.processor)
    traced = dataclasses.replace(encoder.trace(trace("b", pictures[2:], pictures[:1])), values={})
    row = [encoder.questions(asked("a", pictures[:2], 2)), traced]
    batch = pack(row)
    grids = [tiny.processor.image(path).tensors["image_grid_thw"] for path in (*pictures, pictures[0])]
    assert torch.equal(batch.images["image_grid_thw"], torch.cat(grids))
    assert torch.equal(batch.images_of([0])["image_grid_thw"], torch.cat(grids[:2]))
    assert batch.images_of([1]) == {}
    backwards = batch.images_of([len(batch.node_parents) - 3, 3, 0])
    assert backwards["pixel_values"].shape[0] == int(backwards["image_grid_thw"].prod(1).sum())


def test_moving_a_batch_moves_every_tensor(tiny: Backbone, pictures: tuple[Path, ...]) -> None:
    batch = pack([Encoder(tiny.processor).pair(pair("a", pictures[:1]))], keys=True).to("meta")
    tensors = [
        value
        for value in (getattr(batch, f.name) for f in dataclasses.fields(batch))
        if isinstance(value, torch.Tensor)
    ]
    tensors += [*batch.images.values(), *batch.values.values()]
    assert len(tensors) == 9
    assert all(tensor.device.type == "meta" for tensor in tensors)
