"""Tunix' fDPO rows become pairs whose segments tile the responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reading import encode, read, read_row, write_picture

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.data.corpora import FDPOPairs
from spatial_lightning.records import RecordError

ROW = {
    "prompts": "Which is taller?",
    "chosen_desc": "A red cube and a blue cone.",
    "chosen_reason": "The cone ends higher. The final answer is the cone.",
    "rejected_desc": "Two cubes.",
    "rejected_reason": "Both are red. The final answer is the cube.",
}


def reader(**options: Any) -> FDPOPairs:
    return FDPOPairs(path="unused", **options)


@pytest.mark.parametrize("wrap", ["tags", "bare"])
def test_segments_hold_the_published_texts(wrap: str, tmp_path: Path) -> None:
    (pair,) = read_row(reader(wrap=wrap), ROW, tmp_path)
    for side, response in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        first, second = response.segments
        assert (first.name, second.name) == ("description", "reasoning")
        assert (first.start, first.end, second.end) == (0, second.start, len(response.text))
        pieces = [response.text[segment.start : segment.end] for segment in response.segments]
        if wrap == "tags":
            assert pieces[0] == f"<description>{ROW[f'{side}_desc']}</description>\n"
            assert pieces[1] == f"<reasoning>{ROW[f'{side}_reason']}</reasoning>"
        else:
            assert pieces == [ROW[f"{side}_desc"] + "\n", ROW[f"{side}_reason"]]
    assert pair.question.text == ROW["prompts"]
    assert pair.reward_gap is None


def test_texts_that_are_tagged_already_are_not_tagged_again(tmp_path: Path) -> None:
    tagged = ROW | {"chosen_desc": "<description>A cone.</description>", "chosen_reason": "<reasoning>So.</reasoning>"}
    (pair,) = read_row(reader(), tagged, tmp_path)
    assert pair.chosen.text == "<description>A cone.</description>\n<reasoning>So.</reasoning>"


def test_scores_become_the_reward_gap(tmp_path: Path) -> None:
    scores = {"chosen_desc_score": {"vc": 3.5, "sp": 2.0}, "chosen_reason_score": 6}
    scores |= {"rejected_desc_score": {"vc": 3.0, "sp": 2.0}, "rejected_reason_score": 4.0}
    (pair,) = read_row(reader(), ROW | scores, tmp_path)
    assert pair.reward_gap == (0.5, 2.0)
    assert pair.chosen.segments[0].rewards == {"vc": 3.5, "sp": 2.0}


def test_lists_are_several_pairs(tmp_path: Path) -> None:
    rows: dict[str, Any] = {key: [value, value + " More."] for key, value in ROW.items()}
    rows |= {f"{side}_{part}_score": [1.0, 2.0] for side in ("chosen", "rejected") for part in ("desc", "reason")}
    rows["images"] = [["a.png"], ["a.png", "b.png"]]
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name)
    pairs = read_row(reader(), rows, tmp_path)
    assert [pair.id for pair in pairs] == ["row/0", "row/1"]
    assert [len(pair.images) for pair in pairs] == [1, 2]
    assert pairs[1].question.text == "Which is taller? More."
    assert [pair.reward_gap for pair in pairs] == [(0.0, 0.0), (0.0, 0.0)]


def test_a_hard_negative_differs_in_its_reasoning_alone(tmp_path: Path, tiny: Backbone) -> None:
    row = ROW | {"rejected_desc": ROW["chosen_desc"]}
    (pair,) = read_row(reader(), row, tmp_path)
    tree = Encoder(tiny.processor).pair(pair)
    first, second = (node.ids[node.segment == 0] for node in tree.nodes[1:])
    assert first.equal(second)
    assert not tree.nodes[1].ids.equal(tree.nodes[2].ids)


def test_files_are_read_and_encoded(tmp_path: Path, tiny: Backbone) -> None:
    write_picture(tmp_path / "a.png")
    rows = [ROW | {"image": "a.png"}, ROW]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    records = read(FDPOPairs(path=str(tmp_path / "pairs.jsonl")), tmp_path)
    assert [len(record.images) for record in records] == [1, 0]
    for record in records:
        tree = encode(Encoder(tiny.processor), record)
        assert all((node.segment >= 0).all() for node in tree.nodes[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": None}, "key 'prompts' is missing; the row has prompts, chosen_desc"),
        ({"prompts": 3}, "prompts is a int"),
        ({"chosen_desc": ""}, "chosen_desc is empty"),
        ({"chosen_desc": 5}, "chosen_desc must be text, got int"),
        ({"rejected_reason": None}, "key 'rejected_reason' is missing"),
        ({"chosen_desc_score": 9}, r"chosen_desc_score has score=9; allowed: a number in \[0, 8\]"),
        ({"chosen_desc_score": True}, "chosen_desc_score has score=True"),
        ({"chosen_reason_score": {"lc": 5}}, r"lc=5; allowed: a number in \[0, 4\]"),
        ({"prompts": ["a", "b"]}, "chosen_desc is a str while prompts is a list"),
        ({key: ["a"] for key in ROW} | {"prompts": ["a", "b"]}, "chosen_desc has 1 entries, prompts has 2"),
        ({"rejected_desc": ROW["chosen_desc"], "rejected_reason": ROW["chosen_reason"]}, "same text"),
        ({"image": "lost.png"}, "lost.png does not exist"),
    ],
)
def test_bad_rows_say_what_is_wrong(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read_row(reader(), ROW | change, tmp_path)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(RecordError, match="wrap is 'both'; allowed: tags, bare"):
        reader(wrap="both")
