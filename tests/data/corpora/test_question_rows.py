"""Plain rows: columns of any name in any kind of table, options, and rows that cannot be used."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from question_samples import (
    assert_answers_score,
    assert_encodes,
    convert,
    picture_bytes,
    questions_of,
    read,
    write_lines,
    write_pictures,
)

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import QuestionRows
from spatial_lightning.records import RecordError

ROWS: list[dict[str, Any]] = [
    {"image": "1.jpg", "question": "How far is the cup from the lamp?", "answer": "2.5 feet"},
    {"image": "2.jpg", "question": "What is this?", "answer": "a cup"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path, ["1.jpg", "2.jpg"])


def write_table(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        write_lines(path, rows)
    return str(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_tables_of_every_kind_give_the_same_questions(folder: Path, tiny: Backbone, suffix: str) -> None:
    records = read(QuestionRows(path=write_table(folder / f"rows{suffix}", ROWS)), folder)
    assert [record.images for record in records] == [(folder / "1.jpg",), (folder / "2.jpg",)]
    questions = questions_of(records)
    assert [(q.text, q.answer) for q in questions] == [(row["question"], row["answer"]) for row in ROWS]
    assert [(q.kind, q.value) for q in questions] == [("distance", pytest.approx(0.762)), ("other", None)]
    assert_answers_score(questions)
    assert_encodes(tiny, records[0])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_columns_have_any_name(folder: Path, suffix: str) -> None:
    options = ["left", "right"] if suffix != ".csv" else '["left", "right"]'
    row = {"number": 7, "picture": "1.jpg", "text": "<image>\nWhere?", "truth": "B", "of": options, "task": "side"}
    reader = QuestionRows(
        path=write_table(folder / f"rows{suffix}", [row]),
        image_column="picture",
        question_column="text",
        answer_column="truth",
        options_column="of",
        kind_column="task",
        id_column="number",
    )
    (question,) = questions_of(read(reader, folder))
    assert (question.id, question.text, question.answer) == ("7", "Where?", "right")
    assert (question.kind, question.options) == ("side", ("left", "right"))


def test_a_row_may_hold_many_questions_and_pictures(folder: Path, tiny: Backbone) -> None:
    asked = [{"question": "Where?", "answer": "here"}, {"question": "How many?", "answer": 3}]
    row = {"image": ["1.jpg", {"bytes": picture_bytes()}], "qa": asked}
    record = convert(QuestionRows(path="x", questions_column="qa"), row, folder)
    assert [(q.id, q.answer) for q in record.questions] == [("row/0", "here"), ("row/1", "3")]
    assert len(record.images) == 2
    assert_encodes(tiny, record)
    assert convert(QuestionRows(path="x", questions_column="qa"), row | {"qa": json.dumps(asked)}, folder) == record


@pytest.mark.parametrize(
    ("options", "answer", "meant"),
    [
        (["a cup", "a lamp"], "a lamp", "a lamp"),
        (["a cup", "a lamp"], "(B)", "a lamp"),
        (["a cup", "a lamp"], "A.", "a cup"),
        (["a cup", "a lamp"], 1, "a lamp"),
        (["a cup", "a lamp"], "It is A LAMP.", "a lamp"),
        (["1", "2", "3"], 2, "2"),
        ([1, 2, 3], 2, "2"),
        (["yes", "no"], "No", "no"),
        (["A", "B"], "B", "B"),
        (["red", "dark red"], "dark red", "dark red"),
    ],
)
def test_answers_mean_one_of_the_options(folder: Path, options: list[Any], answer: Any, meant: str) -> None:
    row = ROWS[0] | {"answer": answer, "choices": options}
    (question,) = convert(QuestionRows(path="x", options_column="choices"), row, folder).questions
    assert (question.answer, question.options) == (meant, tuple(map(str, options)))
    assert_answers_score([question])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answer": None}, "'answer' is missing; the row has image, question, answer, choices"),
        ({"answer": "  "}, "answer is empty"),
        ({"answer": True}, "answer must be text, got bool"),
        ({"answer": {"text": "cup"}}, "answer must be text, got dict"),
        ({"answer": "C"}, "answer 'C' is none of the options"),
        ({"answer": 2}, "answer '2' is none of the options"),
        ({"answer": -1}, "answer '-1' is none of the options"),
        ({"answer": "cup or lamp"}, "answer 'cup or lamp' is none of the options"),
        ({"question": 3}, "question must be text, got int"),
        ({"question": "<image>"}, "question is empty"),
        ({"image": None}, "'image' is missing"),
        ({"image": " "}, "'image' names no picture"),
        ({"image": "lost.jpg"}, "lost.jpg does not exist"),
        ({"choices": "cup, lamp"}, "choices is a string that holds no JSON"),
        ({"choices": {"A": "cup"}}, "choices must be a list, got dict"),
        ({"choices": ["cup", None]}, "'choices' is missing"),
    ],
)
def test_bad_rows_say_what_is_wrong(folder: Path, change: dict[str, Any], problem: str) -> None:
    row = ROWS[0] | {"answer": "cup", "choices": ["cup", "lamp"]} | change
    with pytest.raises(RecordError, match=problem):
        convert(QuestionRows(path="x", options_column="choices"), row, folder)


def test_renamed_columns_are_listed(folder: Path) -> None:
    with pytest.raises(RecordError, match="'question' is missing; the row has image, prompt, answer"):
        convert(QuestionRows(path="x"), {"image": "1.jpg", "prompt": "Where?", "answer": "here"}, folder)
    with pytest.raises(RecordError, match="'qa' is missing; the row has image, question, answer"):
        convert(QuestionRows(path="x", questions_column="qa"), ROWS[0], folder)
    with pytest.raises(RecordError, match="qa must be a list of objects"):
        convert(QuestionRows(path="x", questions_column="qa"), ROWS[0] | {"qa": ["Where?"]}, folder)
