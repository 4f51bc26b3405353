"""Protocols on the answers of real models to SpatialRGPT-Bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spatial_lightning.evaluation import Summary, parse_quantity, summarise
from spatial_lightning.evaluation.protocols import RGPTBench
from spatial_lightning.records import Question


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_question(row: dict[str, Any]) -> Question:
    truth = parse_quantity(row["ground_truth"], "length") if row["qa_category"].endswith("_data") else None
    value = None if truth is None else truth.value
    return Question(row["id"], row["question"], row["ground_truth"], row["qa_category"], (), value)


@pytest.fixture(scope="module")
def summaries(shared_data: Path) -> dict[str, Summary]:
    runs = sorted((shared_data / "spatialrgpt_bench" / "predictions").glob("*.jsonl"))
    rows = {run.stem: read_rows(run) for run in runs}
    assert len(rows) == 5
    return {
        name: summarise([*map(as_question, own)], [row["prediction"] for row in own], RGPTBench())
        for name, own in rows.items()
    }


def test_every_ground_truth_is_right(shared_data):
    questions = [*map(as_question, read_rows(shared_data / "spatialrgpt_bench" / "questions.jsonl"))]
    RGPTBench().check(questions)
    summary = summarise(questions, [question.answer for question in questions], RGPTBench())
    assert summary.overall.correct == len(questions) == 948
    assert all(value == (0 if name.endswith("abs_rel") else 1) for name, value in summary.figures.items())


def test_the_contrary_of_a_ground_truth_is_wrong(shared_data):
    rows = [
        row
        for row in read_rows(shared_data / "spatialrgpt_bench" / "questions.jsonl")
        if "predicate" in row["qa_category"]
    ]
    questions = [*map(as_question, rows)]
    truths = summarise(questions, [question.answer for question in questions], RGPTBench())
    turned = ["no" if score.said == "yes" else "yes" for score in truths.scores]
    assert summarise(questions, turned, RGPTBench()).overall.correct == 0
    assert {"yes", "no"} == {score.said for score in truths.scores}


def test_nearly_every_comparison_can_be_read(summaries):
    for name, summary in summaries.items():
        qualitative = [own for kind, own in summary.kinds.items() if kind.endswith(("_predicate", "_choice"))]
        unreadable = sum(own.unparsed for own in qualitative) / sum(own.n for own in qualitative)
        assert unreadable == 0 if "spatial" in name else unreadable < 0.05


def test_figures_of_stored_answers(summaries):
    """Measured once and read by hand; a change of any reader shows here."""
    found = {
        name: (round(summary.figures["qualitative_accuracy"], 3), round(summary.figures["quantitative_accuracy"], 3))
        for name, summary in summaries.items()
    }
    assert found == {
        "gemma-3-4b-it": (0.475, 0.168),
        "gemma-3-4b-it_run2": (0.515, 0.193),
        "gemma-spatial-bbox": (0.485, 0.222),
        "gemma-spatial-bbox-fixed": (0.496, 0.233),
        "gemma-spatial-bbox-fixed_run2": (0.496, 0.241),
    }
    assert [summary.overall.unparsed for summary in summaries.values()] == [210, 211, 0, 0, 0]
