"""OpenSpatialDataset: regions over all turns, nested strings, options, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from question_samples import (
    SIZE,
    assert_answers_score,
    assert_encodes,
    convert,
    picture_bytes,
    questions_of,
    read,
    write_pictures,
)

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import OpenSpatial
from spatial_lightning.records import RecordError

HEIGHT, WIDTH = SIZE
# Columns of 48 pixels; each region covers rows 12 to 24 of a block of columns.
BLOCKS = [(0, 16), (16, 32), (32, 48), (48, 64)]


def mask(left: int, right: int) -> dict[str, Any]:
    runs = [left * HEIGHT + 12]
    for _ in range(left, right - 1):
        runs += [12, 36]
    return {"size": [HEIGHT, WIDTH], "counts": [*runs, 12, (WIDTH - right) * HEIGHT + 24]}


ROW: dict[str, Any] = {
    "filename": "0a1b2c3d4e",
    "conversations": [
        {"from": "human", "value": "<image>\nIs <mask> <depth> taller than <mask> <depth>?"},
        {"from": "gpt", "value": "In fact, Region [0] may be shorter than Region [1]."},
        {"from": "human", "value": "What is the width of <mask> <depth>?"},
        {"from": "gpt", "value": "Region [0] is 26.25 centimeters in width."},
        {"from": "human", "value": "Which is more to the left, <mask> <depth> or <mask> <depth>?"},
        {"from": "gpt", "value": "Region [1] is more to the left."},
        {"from": "human", "value": "How many windows are there in <mask> <depth>?"},
        {"from": "gpt", "value": "There are 3 windows, each 2 meters wide."},
    ],
    "rle": [mask(*BLOCKS[index]) for index in (0, 1, 2, 3, 0, 1, 2)],
    "bbox": [[left, 12, right, 24] for left, right in (BLOCKS[index] for index in (0, 1, 2, 3, 0, 1, 2))],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path, ["0a1b2c3d4e.jpg"])


def without(*names: str) -> dict[str, Any]:
    return {key: value for key, value in ROW.items() if key not in names}


@pytest.mark.parametrize(
    "row", [ROW, without("rle"), without("bbox"), {k: json.dumps(v) if k != "filename" else v for k, v in ROW.items()}]
)
def test_placeholders_of_all_turns_take_the_regions_in_order(folder: Path, row: dict[str, Any]) -> None:
    record = convert(OpenSpatial(path="x"), row, folder)
    assert record.images == (folder / "0a1b2c3d4e.jpg",)
    assert [question.text for question in record.questions] == [
        "Is Region [0] (0, 250, 250, 500) taller than Region [1] (250, 250, 500, 500)?",
        "What is the width of Region [0] (500, 250, 750, 500)?",
        "Which is more to the left, Region [0] (750, 250, 1000, 500) or Region [1] (0, 250, 250, 500)?",
        "How many windows are there in Region [0] (250, 250, 500, 500)?",
    ]
    assert [question.answer for question in record.questions] == [turn["value"] for turn in ROW["conversations"][1::2]]
    assert [question.kind for question in record.questions] == ["tall_short", "width", "left_right_choice", "other"]
    assert [question.value for question in record.questions] == [None, pytest.approx(0.2625), None, None]
    assert len({question.id for question in record.questions}) == 4
    assert_answers_score(record.questions)


def test_regions_may_be_named_alone_and_answers_short(folder: Path, tiny: Backbone) -> None:
    record = convert(OpenSpatial(path="x", regions="names", answers="short", depth="/nowhere"), ROW, folder)
    first, width, choice, _ = record.questions
    assert (first.text, first.answer, first.options) == ("Is Region [0] taller than Region [1]?", "no", ("yes", "no"))
    assert (choice.answer, choice.options) == ("Region [1]", ("Region [0]", "Region [1]"))
    assert width.answer == "Region [0] is 26.25 centimeters in width."
    assert_answers_score(record.questions)
    assert_encodes(tiny, record)


def test_a_file_of_many_rows_is_read(folder: Path, tmp_path: Path, tiny: Backbone) -> None:
    path = tmp_path / "result_10_depth_convs.json"
    path.write_text(json.dumps([ROW, without("rle"), without("bbox")]))
    records = read(OpenSpatial(path=str(path)), folder)
    questions = questions_of(records)
    assert len(questions) == len({question.id for question in questions}) == 12
    assert [record.questions[0].text for record in records] == [questions[0].text] * 3
    assert_encodes(tiny, records[2])


def test_a_picture_inside_the_row_is_used(tmp_path: Path) -> None:
    record = convert(OpenSpatial(path="x"), ROW | {"image": {"bytes": picture_bytes(), "path": None}}, tmp_path)
    assert record.images[0].read_bytes() == picture_bytes()


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if index % 2 else "human", "value": text} for index, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rle": ROW["rle"][:5], "bbox": ROW["bbox"][:5]}, "asks for region 5, the row has 5 regions"),
        ({"rle": None, "bbox": None}, "asks for region 0, the row has 0 regions"),
        ({"rle": [{"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}] * 7}, "no foreground"),
        ({"rle": 3}, "rle' must be a list, got int"),
        (
            {"conversations": turns("<image>\nHow tall is <mask>?", "Region [1] is 2 m.")},
            "speaks of Region .1., the question",
        ),
        (
            {"conversations": turns("<image>\nHow tall is <mask>?", "<mask> is 2 m.")},
            "answers name regions as Region .k.",
        ),
        ({"conversations": turns("<image>\nHow tall is <mask>?", "")}, "assistant turn 1 is empty"),
        ({"conversations": turns("<image>\nHow tall is <mask>?")}, "must alternate from user to assistant"),
        ({"conversations": turns("<image>\n<image>\nHow?", "So.")}, "marks 2 pictures, the row has 1"),
        ({"conversations": turns("<image>How?", "So.", "<image>How?", "So.")}, "marks 2 pictures, the row has 1"),
        ({"conversations": [{"from": "human", "value": 3}]}, "content of type int"),
        ({"conversations": "hello"}, "is a string that holds no JSON"),
        ({"conversations": None}, "'conversations' is missing; the row has filename, conversations"),
        ({"filename": None}, "'filename' is missing"),
        ({"filename": 12}, "filename must be text, got int"),
        ({"filename": "other"}, "other.jpg does not exist"),
    ],
)
def test_bad_rows_say_what_is_wrong(folder: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        convert(OpenSpatial(path="x"), ROW | change, folder)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(RecordError, match="regions is 'marks'; allowed: boxes, names"):
        OpenSpatial(path="x", regions="marks")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="answers is 'long'; allowed: published, short"):
        OpenSpatial(path="x", answers="long")  # type: ignore[arg-type]
