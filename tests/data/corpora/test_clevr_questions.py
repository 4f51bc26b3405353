"""CLEVR and CLEVR-Humans question files, asked about the scenes and pictures of the sample."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from question_samples import assert_answers_score, assert_encodes, convert, questions_of, read, write_pictures

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import CLEVRQuestions
from spatial_lightning.records import RecordError

ROW: dict[str, Any] = {
    "question": "How many large things are there?",
    "answer": "3",
    "image_filename": "CLEVR_val_000000.png",
    "image_index": 0,
    "split": "val",
    "program": [{"inputs": [], "function": "scene", "value_inputs": []}, {"inputs": [0], "function": "count"}],
}


def asked_of_scenes(scenes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions with true answers, as the official files write them."""
    entries = []
    for scene in scenes:
        objects = scene["objects"]
        large = sum(thing["size"] == "large" for thing in objects)
        asked = [("How many large things are there?", str(large), "count")]
        asked += [("Is there a red thing?", "yes" if any(o["color"] == "red" for o in objects) else "no", "exist")]
        front = min(objects, key=lambda thing: thing["pixel_coords"][2])
        for query in ("color", "shape", "material", "size"):
            asked += [(f"What {query} is the nearest thing?", front[query], f"query_{query}")]
        for question, answer, function in asked:
            entry = {"image_index": scene["image_index"], "image_filename": scene["image_filename"]}
            program = [{"inputs": [], "function": "scene", "value_inputs": []}, {"inputs": [0], "function": function}]
            entry |= {"split": scene["split"], "question": question, "answer": answer, "program": program}
            entries.append(entry | {"question_index": len(entries), "question_family_index": 0})
    return entries


@pytest.mark.parametrize("split", ["train", "val"])
def test_questions_about_the_scenes_of_the_sample_are_read(
    shared_data: Path, tmp_path: Path, tiny: Backbone, split: str
) -> None:
    scenes = json.loads((shared_data / "clevr" / "scenes" / f"CLEVR_{split}_scenes.json").read_text())
    entries = asked_of_scenes(scenes["scenes"])
    path = tmp_path / f"CLEVR_{split}_questions.json"
    path.write_text(json.dumps({"info": scenes["info"], "questions": entries}))
    records = read(CLEVRQuestions(path=str(path)), shared_data / "clevr" / "images")
    assert len(records) == len({record.id for record in records}) == len(entries)
    assert [record.images[0].name for record in records] == [entry["image_filename"] for entry in entries]
    questions = questions_of(records)
    assert [(q.text, q.answer) for q in questions] == [(entry["question"], entry["answer"]) for entry in entries]
    assert Counter(q.kind for q in questions) == Counter(entry["program"][-1]["function"] for entry in entries)
    assert all(q.answer in q.options for q in questions)
    assert_answers_score(questions)
    assert_encodes(tiny, records[0])


def test_human_questions_have_no_program(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["val/CLEVR_val_000000.png"])
    row = {key: value for key, value in ROW.items() if key != "program"} | {"answer": "reflections"}
    path = tmp_path / "CLEVR-Humans-val.json"
    path.write_text(json.dumps({"questions": [row]}))
    (record,) = read(CLEVRQuestions(path=str(path)), tmp_path)
    assert (record.questions[0].kind, record.questions[0].options) == ("human", ())


def test_programs_of_the_first_release_are_understood(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["val/CLEVR_val_000000.png"])
    record = convert(CLEVRQuestions(path="x"), ROW | {"program": '[{"type": "exist"}]'}, tmp_path)
    assert record.questions[0].kind == "exist"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answer": None}, "'answer' is missing; the row has question, answer, image_filename"),
        ({"answer": 3}, "answer must be text, got int"),
        ({"question": ""}, "question is empty"),
        ({"split": None}, "'split' is missing"),
        ({"image_filename": "CLEVR_val_000009.png"}, "CLEVR_val_000009.png does not exist"),
        ({"image_filename": "../../secret.png"}, "leads out of"),
        ({"program": []}, "program must be a list of functions"),
        ({"program": "scene"}, "program is a string that holds no JSON"),
        ({"program": [{"inputs": []}]}, "'type' is missing; the row has inputs"),
    ],
)
def test_bad_rows_say_what_is_wrong(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    write_pictures(tmp_path, ["val/CLEVR_val_000000.png"])
    with pytest.raises(RecordError, match=problem):
        convert(CLEVRQuestions(path="x"), ROW | change, tmp_path)
