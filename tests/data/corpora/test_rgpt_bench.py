"""SpatialRGPT-Bench: every flat row of the sample, rows as published, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from question_samples import (
    assert_answers_score,
    assert_encodes,
    convert,
    picture_bytes,
    questions_of,
    read,
    write_pictures,
)

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import RGPTBench
from spatial_lightning.records import RecordError

ROW: dict[str, Any] = {
    "id": "quantitative_a",
    "image_info": {"file_path": "nuscenes/1.jpg", "height": 48, "width": 64},
    "text_q": "How far is Region [0] from Region [1]?",
    "qa_info": {"type": "quantitative", "category": "distance_data"},
    "conversations": [
        {"from": "human", "value": "<image>\nHow far is <mask> from <mask>?"},
        {"from": "gpt", "value": "Region [0] is 3.98 feet from Region [1]."},
    ],
    "bbox": [[0, 12, 16, 24], [32, 12, 64, 48]],
}
FLAT = {
    "id": "qualitative_b",
    "question": "Which is above, Region [0] or Region [1]?",
    "ground_truth": "Positioned higher is Region [1].",
    "qa_type": "qualitative",
    "qa_category": "above_choice",
}


def test_every_row_of_the_sample_becomes_a_question(shared_data: Path, tmp_path: Path, tiny: Backbone) -> None:
    path = shared_data / "spatialrgpt_bench" / "questions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_pictures(tmp_path, [f"{row['id']}.jpg" for row in rows])
    records = read(RGPTBench(path=str(path), regions="names", picture_name="{id}.jpg"), tmp_path)
    assert [record.id for record in records] == [row["id"] for row in rows]
    questions = questions_of(records)
    assert [(q.text, q.answer, q.kind) for q in questions] == [
        (row["question"], row["ground_truth"], row["qa_category"]) for row in rows
    ]
    assert [q.value is not None for q in questions] == [row["qa_category"].endswith("_data") for row in rows]
    assert_answers_score(questions)
    short = questions_of(
        read(RGPTBench(path=str(path), regions="names", answers="short", picture_name="{id}.jpg"), tmp_path)
    )
    assert [bool(q.options) for q in short] == [row["qa_type"] == "qualitative" for row in rows]
    assert_answers_score(short)
    for record in records[::100]:
        assert_encodes(tiny, record)


@pytest.mark.parametrize("strings", [False, True])
def test_rows_as_published_have_boxes(tmp_path: Path, tiny: Backbone, strings: bool) -> None:
    write_pictures(tmp_path, ["nuscenes/1.jpg"])
    row = {key: json.dumps(value) if strings and not isinstance(value, str) else value for key, value in ROW.items()}
    record = convert(RGPTBench(path="x"), row, tmp_path)
    (question,) = record.questions
    assert question.text == "How far is Region [0] (0, 250, 250, 500) from Region [1] (500, 250, 1000, 1000)?"
    assert (question.kind, question.value) == ("distance_data", pytest.approx(3.98 * 0.3048))
    assert record.images == (tmp_path / "nuscenes" / "1.jpg",)
    assert_answers_score([question])
    assert_encodes(tiny, record)


def test_a_picture_inside_the_row_comes_first(tmp_path: Path) -> None:
    record = convert(RGPTBench(path="x"), ROW | {"image": {"bytes": picture_bytes()}}, tmp_path)
    assert record.images[0].read_bytes() == picture_bytes()


def test_flat_rows_may_have_regions_of_their_own_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["b.jpg"])
    record = convert(RGPTBench(path="x", regions="names", answers="short"), FLAT | {"image": "b.jpg"}, tmp_path)
    (question,) = record.questions
    assert (question.answer, question.options) == ("Region [1]", ("Region [0]", "Region [1]"))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (ROW | {"bbox": None}, "no rle, segmentation or bbox: set regions=names"),
        (ROW | {"bbox": ROW["bbox"][:1]}, "asks for region 1, the row has 1 regions"),
        (FLAT | {"image": "nuscenes/1.jpg", "bbox": ROW["bbox"]}, "has no <mask> to put a box to: set regions=names"),
        (FLAT, "the row names no picture: set picture_name"),
        (ROW | {"id": None}, "'id' is missing; the row has id, image_info, text_q"),
        (ROW | {"qa_info": {"type": "quantitative"}}, "'category' is missing; the row has type"),
        (ROW | {"qa_info": "distance"}, "qa_info is a string that holds no JSON"),
        (ROW | {"qa_info": None}, "'qa_category' is missing; the row has id, image_info"),
        (ROW | {"image_info": {"file_path": 3}}, "file_path must be text, got int"),
        (ROW | {"image_info": {"file_path": "lost.jpg"}}, "lost.jpg does not exist"),
        (FLAT | {"image": "nuscenes/1.jpg", "ground_truth": ["up"]}, "ground_truth must be text, got list"),
        (FLAT | {"image": "nuscenes/1.jpg", "ground_truth": ""}, "ground_truth is empty"),
    ],
)
def test_bad_rows_say_what_is_wrong(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    write_pictures(tmp_path, ["nuscenes/1.jpg"])
    with pytest.raises(RecordError, match=problem):
        convert(RGPTBench(path="x"), row, tmp_path)


def test_a_measured_quantity_needs_one_length(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["b.jpg"])
    row = FLAT | {"image": "b.jpg", "qa_category": "width_data", "ground_truth": "2 to 3 meters"}
    with pytest.raises(RecordError, match="width_data needs a ground truth with one length, got '2 to 3 meters'"):
        convert(RGPTBench(path="x", regions="names"), row, tmp_path)
