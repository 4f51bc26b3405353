"""Marks of pictures between the words of a turn: what the words say about which picture is kept, in every reader of turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from reading import read_row, write_picture

from spatial_lightning.data.corpora import PreferenceChat, QuestionRows, ToolChat
from spatial_lightning.data.corpora.turns import read_turns


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("content", "text", "pictures"),
    [
        ("Is <image> above <image>?", "Is [image 1] above [image 2]?", 2),
        ("<image>\nWhere?", "Where?", 1),
        ("<image><image>\nIs this <image> closer?", "Is this [image 3] closer?", 3),
        ("<image>Compare <image> with <image>", "Compare [image 2] with ", 3),
        ("Look: <image>", "Look: ", 1),
        ("<image>", "", 1),
        ([{"type": "image"}, {"type": "text", "text": "Is <image> larger?"}], "Is [image 2] larger?", 2),
    ],
)
def test_a_mark_between_words_becomes_a_reference(content: Any, text: str, pictures: int) -> None:
    (turn,) = read_turns([said("user", content)])
    assert (turn.text, len(turn.pictures)) == (text, pictures)


def test_pictures_are_counted_over_the_conversation() -> None:
    turns = read_turns([said("user", "<image>A?"), said("assistant", "So <image>."), said("tool", "On <image> it is.")])
    assert [turn.text for turn in turns] == ["A?", "So <image>.", "On [image 2] it is."]


def test_readers_keep_what_the_words_refer_to(tmp_path: Path) -> None:
    names = ["a.png", "b.png"]
    paths = tuple(write_picture(tmp_path / name, side) for name, side in zip(names, (32, 40), strict=True))
    asked, wanted = said("user", "Is <image> above <image>?"), "Is [image 1] above [image 2]?"
    row: dict[str, Any] = {"messages": [asked, said("assistant", "Yes.")], "images": names}
    (trace,) = read_row(ToolChat(path="x"), row, tmp_path)
    assert (trace.question.text, trace.images) == (wanted, paths)
    row = {"prompt": [asked], "chosen": "Yes.", "rejected": "No.", "images": names}
    (pair,) = read_row(PreferenceChat(path="x"), row, tmp_path)
    assert (pair.question.text, pair.images) == (wanted, paths)
    row = {"image": names, "question": asked["content"], "answer": "yes"}
    (record,) = read_row(QuestionRows(path="x"), row, tmp_path)
    assert (record.questions[0].text, record.images) == (wanted, paths)
