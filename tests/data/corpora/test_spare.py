"""SpaRE: the taxonomy of relations, rows, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from question_samples import assert_encodes, convert, questions_of, read, write_lines, write_pictures

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import SpaRE
from spatial_lightning.data.corpora.spare import OTHER, RELATIONS, SHARES, relation
from spatial_lightning.records import RecordError

ROW: dict[str, Any] = {
    "image": "1.jpg",
    "source": "docci",
    "description": "A cat sits between two boxes.",
    "qa": [
        {"question": "Where does the cat sit?", "answer": "Between two boxes."},
        {"question": "What is to the left of the cat?", "answer": "A box on the floor."},
        {"question": "What colour is the cat?", "answer": "Gray"},
    ],
}


def test_the_taxonomy_is_the_published_table() -> None:
    assert len(RELATIONS) == 29
    assert RELATIONS.keys() == SHARES.keys()
    assert sum(SHARES.values()) == pytest.approx(100, abs=0.5)
    assert SHARES["right"] == max(SHARES.values())
    assert all(phrase == phrase.strip().lower() and phrase for phrases in RELATIONS.values() for phrase in phrases)
    assert len(RELATIONS["left"]) == len(RELATIONS["right"])
    assert {phrase.replace("left", "right") for phrase in RELATIONS["left"]} == set(RELATIONS["right"])


@pytest.mark.parametrize("name", RELATIONS)
def test_each_phrase_means_its_relation_or_a_rarer_one(name: str) -> None:
    for phrase in RELATIONS[name]:
        found = relation(f"Is the cat {phrase} the box?")
        assert found == name or (phrase in RELATIONS[found] and SHARES[found] <= SHARES[name]), phrase


@pytest.mark.parametrize(
    ("question", "answer", "found"),
    [
        ("What is to the left of the cat in the image?", "a dog", "left"),
        ("What stands in front of the house?", "a tree", "front"),
        ("What lies next to the box on the table?", "a cup", "next_to_beside_adjacent"),
        ("Is the street perpendicular to the wall at right angles to it?", "Yes", "perpendicular_to"),
        ("Where is the cat?", "It sits between two boxes.", "between"),
        ("Where is the cat relative to the sofa?", "To the right of it.", "right"),
        ("Where is the cat relative to the sofa?", "Elsewhere", "relative_to"),
        ("Which town is NORTH OF the river?", "None", "cardinal_directions"),
        ("What is on the left of the box on the right?", "a cup", "left"),
        ("What colour is the cat?", "Gray", OTHER),
        ("Is the frontier inner city bright?", "It only is", OTHER),
    ],
)
def test_the_longer_phrase_and_the_rarer_relation_count(question: str, answer: str, found: str) -> None:
    assert relation(question, answer) == found


@pytest.mark.parametrize("qa", [ROW["qa"], json.dumps(ROW["qa"])])
def test_a_row_becomes_questions_by_relation(tmp_path: Path, tiny: Backbone, qa: Any) -> None:
    write_pictures(tmp_path, ["1.jpg"])
    records = read(SpaRE(path=write_lines(tmp_path / "rows.jsonl", [ROW | {"qa": qa}, ROW])), tmp_path)
    assert [question.kind for question in records[0].questions] == ["between", "left", OTHER]
    assert [(q.text, q.answer) for q in records[0].questions] == [(p["question"], p["answer"]) for p in ROW["qa"]]
    assert len({question.id for question in questions_of(records)}) == 6
    assert_encodes(tiny, records[0])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image": None}, "'image' is missing or empty; the row has image, source, description, qa"),
        ({"image": "lost.jpg"}, "lost.jpg does not exist"),
        ({"image": "http://nowhere/1.jpg"}, "addresses are not fetched"),
        ({"image": 3}, "picture is given as int"),
        ({"qa": None}, "'qa' is missing; the row has image, source"),
        ({"qa": []}, "at least one question"),
        ({"qa": "none"}, "qa is a string that holds no JSON"),
        ({"qa": {"question": "Where?"}}, "qa must be a list, got dict"),
        ({"qa": ["Where?"]}, "must be a list of {question, answer}"),
        ({"qa": [{"question": "Where?", "reply": "here"}]}, "'answer' is missing; the row has question, reply"),
        ({"qa": [{"question": "Where?", "answer": 3}]}, "answer must be text, got int"),
        ({"qa": [{"question": "Where?", "answer": ""}]}, "answer is empty"),
    ],
)
def test_bad_rows_say_what_is_wrong(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    write_pictures(tmp_path, ["1.jpg"])
    with pytest.raises(RecordError, match=problem):
        convert(SpaRE(path="x"), ROW | change, tmp_path)
