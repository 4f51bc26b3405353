"""A packed row drawn: the mask is the one that attention uses, and every node is in the drawing."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import asked, pair
from test_tree import trees

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.records import SEGMENTS
from spatial_lightning.runs.row_plots import SORTS, _places, attended, draw_mask, draw_tree, sorts_of
from spatial_lightning.tree import TokenTree, pack


@given(st.lists(trees(), min_size=1, max_size=5))
def test_a_token_attends_to_its_path_and_nothing_else(row: list[TokenTree]) -> None:
    batch = pack(row)
    expected = torch.zeros(batch.tokens, batch.tokens, dtype=torch.bool)
    for node in range(len(batch.node_parents)):
        path = [place for member in batch.path(node) for place in batch.node(member)]
        for token in batch.node(node):
            expected[token, [place for place in path if place <= token]] = True
    assert torch.equal(attended(batch), expected)


@given(st.lists(trees(), min_size=1, max_size=5))
def test_no_two_nodes_are_drawn_at_one_place(row: list[TokenTree]) -> None:
    batch = pack(row)
    places = _places(batch)
    assert len(set(places)) == len(batch.node_parents)
    for node, parent in enumerate(batch.node_parents):
        assert places[node][0] == (places[parent][0] + 1 if parent >= 0 else 0)
    rows = [places[leaf][1] for leaf in batch.leaves()]
    assert sorted(rows) == list(range(len(rows)))


def test_sorts_are_what_is_trained_and_its_segment(tiny: Backbone, pictures: tuple[Path, ...]) -> None:
    encoder = Encoder(tiny.processor)
    pairs = pack([encoder.pair(pair("a", pictures[:1]))])
    names = [list(SORTS)[place] for place in sorts_of(pairs).tolist()]
    assert [names[place] for place in pairs.targets.tolist()] == [SEGMENTS[at] for at in pairs.segment.tolist()]
    assert names.count("context") == pairs.tokens - pairs.targets.numel()
    questions = sorts_of(pack([encoder.questions(asked("b", pictures[:1], 3))]))
    assert set(questions.tolist()) == {0, 1}


def test_drawings_are_pictures_with_a_caption(tiny: Backbone, pictures: tuple[Path, ...], tmp_path: Path) -> None:
    batch = pack([Encoder(tiny.processor).questions(asked("b", pictures[:1], 3))])
    for plot in (draw_tree(batch, tmp_path / "tree.png"), draw_mask(batch, tmp_path / "mask.png")):
        assert plot.caption
        with Image.open(plot.path) as picture:
            assert len(picture.convert("RGB").getcolors(maxcolors=2**16) or ()) > 3
