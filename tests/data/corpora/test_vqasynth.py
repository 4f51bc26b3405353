"""VQASynth's corpora: typed parts that number pictures, reasoned outputs, and rows that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from question_samples import (
    assert_answers_score,
    assert_encodes,
    convert,
    picture_bytes,
    pictures_of,
    read,
    write_lines,
    write_pictures,
)

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import VQASynth
from spatial_lightning.records import RecordError


def said(role: str, text: str, *pictures: int | None) -> dict[str, Any]:
    parts = [{"index": index, "text": None, "type": "image"} for index in pictures]
    return {"role": role, "content": [*parts, {"index": None, "text": text, "type": "text"}]}


ROW: dict[str, Any] = {
    "images": ["1.jpg"],
    "messages": [
        said("user", "How far is the red couch from the lamp?", 0),
        said("assistant", "The red couch is 4.5 feet from the lamp."),
        said("user", "Is the lamp taller than the couch?"),
        said("assistant", "Yes, the lamp is taller."),
    ],
}
REASONED = (
    "<think>The shelf is about 2 m high.\nThe lamp is less.</think> <answer>The lamp is 1.2 meters tall.</answer>"
)
THINKER: dict[str, Any] = {
    "images": ["1.jpg"],
    "input": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nThink first.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n<image>\nHow tall is the lamp?<|eot_id|>",
    "output": REASONED,
    "reasoning": "on",
    "messages": ROW["messages"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path, ["1.jpg", "2.jpg"])


def test_pairs_of_turns_become_questions_about_the_picture(folder: Path, tmp_path: Path, tiny: Backbone) -> None:
    (record,) = read(VQASynth(path=write_lines(tmp_path / "rows.jsonl", [ROW])), folder)
    assert record.images == (folder / "1.jpg",)
    assert [(q.text, q.answer) for q in record.questions] == [
        ("How far is the red couch from the lamp?", "The red couch is 4.5 feet from the lamp."),
        ("Is the lamp taller than the couch?", "Yes, the lamp is taller."),
    ]
    assert [(q.kind, q.value, q.style) for q in record.questions] == [
        ("distance", pytest.approx(1.3716), "direct"),
        ("tall_short", None, "direct"),
    ]
    assert_answers_score(record.questions)
    assert_encodes(tiny, record)


def test_parts_show_the_pictures_that_they_number(folder: Path) -> None:
    messages = [said("user", "Which is nearer?", 1, 0), said("assistant", "The first.")]
    record = convert(VQASynth(path="x"), ROW | {"images": ["1.jpg", "2.jpg"], "messages": messages}, folder)
    assert [path.name for path in record.images] == ["2.jpg", "1.jpg"]
    unnumbered = [said("user", "How far?", None), said("assistant", "Far.")]
    assert convert(VQASynth(path="x"), ROW | {"messages": unnumbered}, folder).images == (folder / "1.jpg",)


def test_pictures_that_no_part_shows_open_the_first_turn(folder: Path) -> None:
    for messages in (
        [said("user", "How far?"), said("assistant", "Far.")],
        [{"role": "user", "content": "<image>\nHow far?"}, {"role": "assistant", "content": "Far."}],
    ):
        record = convert(VQASynth(path="x"), ROW | {"messages": messages}, folder)
        assert (record.images, record.questions[0].text) == ((folder / "1.jpg",), "How far?")


def test_placeholders_beside_picture_parts_are_no_further_pictures(folder: Path) -> None:
    messages = [said("user", "<image>\nHow far?", 0), said("assistant", "Far.")]
    record = convert(VQASynth(path="x"), ROW | {"messages": messages}, folder)
    assert (record.images, record.questions[0].text) == ((folder / "1.jpg",), "How far?")


def test_reasoned_outputs_keep_their_reasoning_and_system_turn(folder: Path, tiny: Backbone) -> None:
    record = convert(VQASynth(path="x"), THINKER | {"images": [{"bytes": picture_bytes(), "path": None}]}, folder)
    (question,) = record.questions
    assert (question.text, question.answer, question.style) == ("How tall is the lamp?", REASONED, "reasoned")
    assert (question.kind, question.value) == ("height", 1.2)
    assert record.system == "Think first."
    assert_encodes(tiny, record)


def test_inputs_may_be_plain_and_outputs_direct(folder: Path) -> None:
    record = convert(VQASynth(path="x"), THINKER | {"input": "How tall is the lamp?", "output": "1.2 m"}, folder)
    (question,) = record.questions
    assert (record.system, question.text, question.value, question.style) == (
        "",
        "How tall is the lamp?",
        1.2,
        "direct",
    )


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (ROW | {"images": []}, "lists no picture in images; it has images, messages"),
        (ROW | {"images": ["3.jpg"]}, "3.jpg does not exist"),
        (ROW | {"messages": None}, "'messages' is missing; the row has images, messages"),
        ({"images": ["1.jpg"], "chat": []}, "'messages' is missing; the row has images, chat"),
        (ROW | {"messages": "How?"}, "messages is a string that holds no JSON"),
        (ROW | {"messages": ["How?"]}, "turn 0 is a str"),
        (ROW | {"messages": [{"role": "user", "content": 3}]}, "content of type int"),
        (ROW | {"messages": [said("user", "How?", 1), said("assistant", "So.")]}, "shows picture 1, the row lists 1"),
        (ROW | {"messages": [*ROW["messages"], said("user", "How?", 0), said("assistant", "So.")]}, "question 2 shows"),
        (ROW | {"messages": [said("assistant", "So.")]}, "begins with assistant"),
        (ROW | {"messages": [said("user", "How?"), said("assistant", " ")]}, "assistant turn 1 is empty"),
        (
            ROW | {"messages": [said("user", "How?"), {"role": "assistant", "content": [{"type": "text"}]}]},
            "needs text",
        ),
        (THINKER | {"input": None}, "'input' is missing; the row has images, input"),
        (THINKER | {"output": ["so"]}, "output must be text, got list"),
        (THINKER | {"output": "<think>It is"}, "is not <think>...</think> <answer>...</answer>"),
        (THINKER | {"input": "<|start_header_id|>system<|end_header_id|>So."}, "input has 0 user turns"),
        (THINKER | {"input": "<image>"}, "question is empty"),
    ],
)
def test_bad_rows_say_what_is_wrong(folder: Path, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        list(VQASynth(path="x").records(row, "row", pictures_of(folder)))
