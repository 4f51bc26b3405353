"""GQA: every published entry of the sample, short and full answers, and entries that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from question_samples import assert_answers_score, assert_encodes, convert, questions_of, read, write_pictures

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import GQA
from spatial_lightning.records import RecordError

ROW: dict[str, Any] = {
    "_key": "201307251",
    "question": "Is it overcast?",
    "imageId": "n161313",
    "answer": "no",
    "fullAnswer": "No, it is clear.",
    "types": {"detailed": "weatherVerifyC", "semantic": "global", "structural": "verify"},
}


@pytest.mark.parametrize("answers", ["short", "full"])
def test_every_entry_of_the_sample_becomes_a_question(
    shared_data: Path, tmp_path: Path, tiny: Backbone, answers: Any
) -> None:
    path = shared_data / "gqa_testdev" / "testdev_balanced_questions.json"
    entries = json.loads(path.read_text())
    write_pictures(tmp_path, [f"{entry['imageId']}.jpg" for entry in entries.values()])
    records = read(GQA(path=str(path), answers=answers), tmp_path)
    assert [record.id for record in records] == list(entries)
    assert [record.images[0].stem for record in records] == [entry["imageId"] for entry in entries.values()]
    questions = questions_of(records)
    key = {"short": "answer", "full": "fullAnswer"}[answers]
    assert [(q.text, q.answer) for q in questions] == [(entry["question"], entry[key]) for entry in entries.values()]
    assert [bool(q.options) for q in questions] == [entry["answer"] in ("yes", "no") for entry in entries.values()]
    assert_answers_score(questions)
    for record in records[::50]:
        assert_encodes(tiny, record)


@pytest.mark.parametrize(
    ("kind", "found"), [("structural", "verify"), ("semantic", "global"), ("detailed", "weatherVerifyC")]
)
def test_the_kind_is_one_of_the_published_types(tmp_path: Path, kind: Any, found: str) -> None:
    write_pictures(tmp_path, ["n161313.jpg"])
    assert convert(GQA(path="x", kind=kind), ROW, tmp_path).questions[0].kind == found
    assert (
        convert(GQA(path="x", kind=kind), ROW | {"types": json.dumps(ROW["types"])}, tmp_path).questions[0].kind
        == found
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"question": None}, "'question' is missing; the row has _key, question, imageId"),
        ({"answer": True}, "answer must be text, got bool"),
        ({"fullAnswer": ""}, "fullAnswer is empty"),
        ({"imageId": 161313}, "imageId must be text, got int"),
        ({"imageId": "n2"}, "n2.jpg does not exist"),
        ({"types": "verify"}, "types is a string that holds no JSON"),
        ({"types": ["verify"]}, "types must be an object, got list"),
        ({"types": {}}, "'semantic' is missing"),
    ],
)
def test_bad_entries_say_what_is_wrong(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    write_pictures(tmp_path, ["n161313.jpg"])
    with pytest.raises(RecordError, match=problem):
        convert(GQA(path="x", answers="full"), ROW | change, tmp_path)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(RecordError, match="answers is 'long'; allowed: short, full"):
        GQA(path="x", answers="long")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="kind is 'local'; allowed: structural, semantic, detailed"):
        GQA(path="x", kind="local")  # type: ignore[arg-type]
