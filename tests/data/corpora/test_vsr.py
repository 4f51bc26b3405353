"""Visual Spatial Reasoning: every published row of the samples, votes, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from question_samples import (
    assert_answers_score,
    assert_encodes,
    convert,
    pictures_of,
    questions_of,
    read,
    write_pictures,
)

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import VSR
from spatial_lightning.data.corpora.vsr import CATEGORIES
from spatial_lightning.records import RecordError

ROW: dict[str, Any] = {
    "image": "000000000001.jpg",
    "image_link": "http://images.cocodataset.org/val2017/000000000001.jpg",
    "caption": "The cat is inside the box.",
    "label": 0,
    "relation": "inside",
    "annotator_id": 27,
    "vote_true_validator_id": "[4]",
    "vote_false_validator_id": "[1, 2, 20]",
}


@pytest.mark.parametrize(
    ("name", "count"),
    [("random/train", 7680), ("random/dev", 1097), ("zeroshot/train", 3489), ("zeroshot/dev", 340)],
)
def test_every_row_of_the_samples_becomes_a_question(
    shared_data: Path, tmp_path: Path, tiny: Backbone, name: str, count: int
) -> None:
    path = shared_data / "vsr" / "splits" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_pictures(tmp_path, [row["image"] for row in rows])
    records = read(VSR(path=str(path)), tmp_path)
    assert len(records) == len({record.id for record in records}) == count
    assert [record.images[0].name for record in records] == [row["image"] for row in rows]
    questions = questions_of(records)
    assert [question.answer for question in questions] == ["true" if row["label"] else "false" for row in rows]
    assert [question.kind for question in questions] == [row["relation"] for row in rows]
    assert all(row["caption"] in question.text for row, question in zip(rows, questions, strict=True))
    assert_answers_score(questions[:: count // 100])
    for record in records[:: count // 8]:
        assert_encodes(tiny, record)


def test_relations_are_grouped_as_published(shared_data: Path, tmp_path: Path) -> None:
    lines = (shared_data / "vsr" / "rel_meta_category_dict.txt").read_text().splitlines()
    published = {name: said for name, _, said in (line.partition(":") for line in lines if line.strip())}
    assert {name: [word.strip() for word in said.split(",")] for name, said in published.items()} == {
        name: list(relations) for name, relations in CATEGORIES.items()
    }
    write_pictures(tmp_path, [ROW["image"]])
    for name, relations in CATEGORIES.items():
        for relation in relations:
            kind = convert(VSR(path="x", kind="category"), ROW | {"relation": relation}, tmp_path).questions[0].kind
            assert kind == ("Topological" if relation == "among" else name)


@pytest.mark.parametrize("votes", [("[4]", "[1, 2, 20]"), ([4], [1, 2, 20])])
def test_rows_that_validators_doubt_are_passed_over(tmp_path: Path, votes: tuple[Any, Any]) -> None:
    write_pictures(tmp_path, [ROW["image"]])
    row = ROW | {"vote_true_validator_id": votes[0], "vote_false_validator_id": votes[1]}
    for least, kept in [(0.0, 1), (0.75, 1), (0.76, 0)]:
        reader = VSR(path="x", min_agreement=least)
        assert len(list(reader.records(row, "r", pictures_of(tmp_path)))) == kept
    nobody = ROW | {"vote_true_validator_id": [], "vote_false_validator_id": "[]"}
    assert convert(VSR(path="x", min_agreement=1.0), nobody, tmp_path)


def test_wording_answers_and_coco_folders_are_chosen(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["val2017/000000000001.jpg"])
    reader = VSR(path="x", question="{caption} Right?", answers=("yes", "no"), folders=True)
    record = convert(reader, ROW, tmp_path)
    assert record.images == (tmp_path / "val2017" / "000000000001.jpg",)
    question = record.questions[0]
    assert (question.text, question.answer, question.options) == (
        "The cat is inside the box. Right?",
        "no",
        ("yes", "no"),
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"label": 2}, "label is 2; allowed: 0, 1"),
        ({"label": None}, "'label' is missing; the row has image, image_link, caption"),
        ({"caption": ["The cat."]}, "caption must be text, got list"),
        ({"caption": "  "}, "caption is empty"),
        ({"relation": None}, "'relation' is missing"),
        ({"image": "other.jpg"}, "other.jpg does not exist"),
        ({"image": 7}, "image must be text, got int"),
        ({"vote_true_validator_id": "many"}, "vote_true_validator_id is a string that holds no JSON"),
        ({"vote_true_validator_id": 3}, "vote_true_validator_id must be a list, got int"),
    ],
)
def test_bad_rows_say_what_is_wrong(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    write_pictures(tmp_path, [ROW["image"]])
    with pytest.raises(RecordError, match=problem):
        convert(VSR(path="x", min_agreement=0.1), ROW | change, tmp_path)


def test_renamed_columns_are_listed(tmp_path: Path) -> None:
    write_pictures(tmp_path, [ROW["image"]])
    renamed = {"sentence" if key == "caption" else key: value for key, value in ROW.items()}
    with pytest.raises(RecordError, match="'caption' is missing; the row has image, image_link, sentence, label"):
        convert(VSR(path="x"), renamed, tmp_path)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"kind": "group"}, "kind is 'group'; allowed: relation, category"),
        ({"question": "True?"}, "must hold {caption}"),
        ({"answers": ("yes", "yes")}, "give two different ones"),
        ({"min_agreement": 75}, "min_agreement is 75; allowed: 0 to 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        VSR(path="x", **options)
