"""Files of answers that somebody else's model gave: which column is the answer, which the id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spatial_lightning.records import RecordError
from spatial_lightning.runs.predictions import read_predictions

IDS = ("dev/0", "dev/1", "dev/2")


def _lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("column", ["prediction", "pred", "response", "output"])
def test_the_true_answer_beside_the_models_is_not_taken_for_it(tmp_path: Path, column: str) -> None:
    """Also in a row where the model's is missing."""
    rows = [{"id": "dev/0", "answer": "yes", column: "no"}, {"id": "dev/1", "answer": "yes"}]
    read = read_predictions(_lines(tmp_path, *rows), IDS[:2], 1.0)
    assert read.answers == {"dev/0": "no"}
    assert read.notes == [f"answers were taken from {column}, not from answer"]
    assert read.bad.reasons["no text"] == 1


def test_the_id_is_the_column_that_names_questions(tmp_path: Path) -> None:
    rows = [{"index": n, "qid": identity, "pred": "A"} for n, identity in enumerate(("c", "a", "b"), start=7)]
    read = read_predictions(_lines(tmp_path, *rows), ("a", "b", "c"), 0.0)
    assert set(read.answers) == {"a", "b", "c"}


def test_a_row_number_names_its_question_where_there_is_one_of_that_number(tmp_path: Path) -> None:
    read = read_predictions(_lines(tmp_path, {"idx": 1, "pred": "A"}, {"idx": "0", "pred": "B"}), IDS[:2], 0.0)
    assert read.answers == {"dev/1": "A", "dev/0": "B"}
    assert read.notes == ["2 ids were numbers of rows, e.g. '0'"]
    with pytest.raises(RecordError, match="id '0' is no question"):
        read_predictions(_lines(tmp_path, {"idx": 0, "pred": "A"}), ("2D/0", "3D/0"), 0.0)
    with pytest.raises(RecordError, match="id 'test/1' is no question"):
        read_predictions(_lines(tmp_path, {"id": "test/1", "pred": "A"}), IDS, 0.0)


def test_numbers_and_truth_values_are_answers(tmp_path: Path) -> None:
    given = (3, 2.5, True)
    rows = [{"id": identity, "answer": answer} for identity, answer in zip(IDS, given, strict=True)]
    assert list(read_predictions(_lines(tmp_path, *rows), IDS, 0.0).answers.values()) == ["3", "2.5", "true"]


def test_an_object_with_a_list_of_rows_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"predictions": [{"id": "dev/0", "pred": "A"}, 3]}))
    read = read_predictions(path, IDS[:1], 1.0)
    assert read.answers == {"dev/0": "A"}
    assert any("row 2" in place for place in read.bad.places)


def test_missing_columns_are_named_beside_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="needs one of id, question_id, idx, index, qid; it has ID, Answer"):
        read_predictions(_lines(tmp_path, {"ID": "dev/0", "Answer": "A"}), IDS, 0.0)
    with pytest.raises(RecordError, match="needs text in one of prediction, pred, .*; it has id, said"):
        read_predictions(_lines(tmp_path, {"id": "dev/0", "said": "A"}), IDS, 0.0)
    path = tmp_path / "answers.csv"
    path.write_text("id;answer\ndev/0;A\n")
    with pytest.raises(RecordError, match="separated by ; instead of a comma"):
        read_predictions(path, IDS, 0.0)
