"""Answers on disk: files that somebody else's model gave, how they are read and scored, and the journal of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint
from endpoint import said as reply
from evaluations import procedural, quiet, read_run, vsr_captions

from spatial_lightning.evaluation import summarise
from spatial_lightning.records import RecordError
from spatial_lightning.runs.answering import said
from spatial_lightning.runs.build import build
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.evaluating import evaluate_benchmark
from spatial_lightning.runs.predictions import PREDICTIONS, Journal, read_predictions

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


@pytest.mark.parametrize(
    "write",
    [
        lambda path, rows: path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows)),
        lambda path, rows: path.with_suffix(".json").write_text(json.dumps(rows)),
        lambda path, rows: path.with_suffix(".json").write_text(
            json.dumps({r["question_id"]: r["pred"] for r in rows})
        ),
        lambda path, rows: path.with_suffix(".csv").write_text(
            "question_id,pred\n" + "".join(f"{row['question_id']},{row['pred']}\n" for row in rows)
        ),
    ],
)
def test_stored_answers_are_scored_without_a_model(
    place: Path, vsr: Path, tmp_path: Path, write: Callable[[Path, list[dict[str, str]]], int]
) -> None:
    answers = ["true", "true", "the answer is true", "a cat"]
    write(tmp_path / "answers", [{"question_id": f"dev/{i}", "pred": text} for i, text in enumerate(answers)])
    (path,) = tmp_path.glob("answers.*")
    run = evaluate_benchmark(vsr_captions(place, vsr, f"predictions={path}"), tmp_path / "run", quiet)
    summary, rows = read_run(run)
    assert [row["answers"]["answer"] for row in rows] == answers
    assert [row["correct"]["answer"] for row in rows] == [True, False, True, False]
    assert summary["metrics"]["accuracy"] == 0.5
    assert summary["metrics"]["unparsed"] == 0.25
    assert summary["checkpoint"] is summary["backbone"] is None


def test_half_a_character_in_an_answer_is_kept(place: Path, vsr: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"id": f"dev/{i}", "answer": "true \ud800 é"}) + "\n" for i in range(4)))
    run = evaluate_benchmark(vsr_captions(place, vsr, f"predictions={path}"), tmp_path / "run", quiet)
    assert {row["answers"]["answer"] for row in read_run(run)[1]} == {"true \ud800 é"}
    assert set(Journal(run / PREDICTIONS).answers.values()) == {"true \ud800 é"}


def test_a_judge_decides_what_rules_cannot_read(place: Path, vsr: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.replies = [reply('{"match": 1}')]
    answers = ["true", "true", "mu", "perhaps not"]
    rows = [{"id": f"dev/{i}", "answer": text} for i, text in enumerate(answers)]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = ("judge=chat", f"judge.base_url={endpoint.url}", "judge.model=any", f"judge.cache={tmp_path / 'judge'}")
    for attempt in range(2):
        config = vsr_captions(place, vsr, f"predictions={path}", *judge)
        summary, samples = read_run(evaluate_benchmark(config, tmp_path / f"run{attempt}", quiet))
        assert [row["rules"]["answer"] for row in samples][2:] == ["judge", "judge"]
        assert [row["correct"]["answer"] for row in samples] == [True, False, True, True]
        assert summary["metrics"]["judged"] == 0.5
        assert summary["judge"] == "any"
    assert len(endpoint.asked) == 2, "kept answers are not asked for again"


def test_bad_stored_answers_are_counted_listed_and_refused(place: Path, vsr: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    lines = [
        '{"id": "dev/0", "answer": "true"}',
        '{"id": "dev/9", "answer": "true"}',
        '{"id": "dev/0", "answer": "false"}',
    ]
    path.write_text("\n".join([*lines, '{"id": "dev/1", "answer": [3]}', "not json", '{"answer": "true"}']) + "\n")
    with pytest.raises(RecordError) as refused:
        evaluate_benchmark(vsr_captions(place, vsr, f"predictions={path}"), tmp_path / "run", quiet)
    for text in (
        f"{path}:2: id 'dev/9' is no question of the benchmark, whose ids look like 'dev/0'",
        f"{path}:3: id 'dev/0' occurs twice",
        f"{path}:4: id 'dev/1' has an answer that is no text ([3])",
        f"{path}:5",
        f"{path}:6: has no id",
        "raise max_bad_fraction",
        "missing answer: 3",
    ):
        assert text in str(refused.value)
    config = vsr_captions(place, vsr, f"predictions={path}", "max_bad_fraction=1")
    summary, rows = read_run(evaluate_benchmark(config, tmp_path / "run", quiet))
    assert [row["answers"]["answer"] for row in rows] == ["true", "", "", ""]
    assert summary["metrics"]["unparsed"] == 0.75
    assert summary["unused"]["missing answer"] == 3


def test_answers_of_a_run_score_the_same_again(place: Path, scored: Path, tmp_path: Path) -> None:
    config = procedural(place, f"predictions={scored / PREDICTIONS}")
    again = read_run(evaluate_benchmark(config, tmp_path / "again", quiet))
    first = read_run(scored)
    assert again[1] == first[1]
    assert again[0]["metrics"] == first[0]["metrics"]
    opened = build(config.benchmark).open(place / "cache", max_bad_fraction=0.0, say=quiet)
    texts = [said(row["answers"]["answer"]) for row in first[1]]
    assert summarise(opened.scored, texts).metrics() == first[0]["metrics"]


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / PREDICTIONS
    path.write_text('{"id": "a", "answer": "yes"}\nnonsense\n{"id": "b", "answer": "no"}\n')
    with pytest.raises(ConfigError, match=r"predictions.jsonl:2 is no answer"):
        Journal(path)
    path.write_text('{"id": "a", "answer": "yes\\u2028"}\n{"id": "b"')
    journal = Journal(path)
    journal.append(["b"], ["no\nno"])
    assert Journal(path).answers == {"a": "yes\u2028", "b": "no\nno"}
    assert read_predictions(path, ["a", "b"], 0.0)[0] == {"a": "yes\u2028", "b": "no\nno"}
