"""Omni3D-Bench: relative accuracy by hand, counts that must be exact, and numbers read out of sentences."""

from __future__ import annotations

import pytest

from spatial_lightning.evaluation.omni3d import Omni3D, relative_accuracy
from spatial_lightning.records import Question


def ask(answer: str, kind: str, options: tuple[str, ...] = ()) -> Question:
    return Question("q", "How many?", answer, kind, options)


@pytest.mark.parametrize(
    ("ratio", "share"),
    [(1.0, 1.0), (1.04, 1.0), (0.93, 0.9), (1.05, 0.9), (1.26, 0.5), (0.5, 0.0), (3.0, 0.0), (None, 0.0)],
)
def test_relative_accuracy_is_the_share_of_tolerances_above_the_error(ratio: float | None, share: float) -> None:
    assert relative_accuracy(ratio) == pytest.approx(share)


@pytest.mark.parametrize(
    ("kind", "answer", "text", "correct", "parsed"),
    [
        ("numeric_other", "2.5", "about 2.45", True, True),
        ("numeric_other", "2.5", "2.0 / 1.0 = 2.0", False, True),
        ("numeric_other", "2.5", "I cannot tell.", False, False),
        ("numeric_count", "4", "There are four.", True, True),
        ("numeric_count", "4", "The final answer is 5.", False, True),
        ("numeric_count", "1,200", "1200", True, True),
        ("numeric_other", "1.5", "The ratio is 3:2.", True, True),
        ("numeric_other", "1.5", "1.5:1", True, True),
        ("numeric_other", "0.75", "about 3/4", True, True),
        ("numeric_other", "3:2", "1.5", True, True),
        ("numeric_other", "2", "2.0 / 1.0 = 2.0", True, True),
        ("numeric_other", "2.5", "two and a half times", True, True),
        ("numeric_other", "0.5", "It is half as tall.", True, True),
        ("numeric_other", "1.5", "one point five", True, True),
        ("numeric_count", "30", "There are thirty.", True, True),
        ("numeric_count", "25", "twenty-five", True, True),
        ("numeric_count", "100", "a hundred of them", True, True),
        ("numeric_count", "2", "3:2", True, True),
        ("numeric_count", "4", "It is not 3 but 4", True, True),
        ("numeric_count", "4", "It is 4, not 3", True, True),
        ("numeric_count", "1", "a chair", False, False),
        ("multi_choice", "chair", "The chair.", True, True),
    ],
)
def test_answers_are_read_by_their_kind(kind: str, answer: str, text: str, correct: bool, parsed: bool) -> None:
    score = Omni3D().score(ask(answer, kind), text)
    assert (score.correct, score.parsed) == (correct, parsed)
    assert score.rule


def test_figures_name_the_mean_over_ratios_apart() -> None:
    questions = [
        ask("2", "numeric_other"),
        ask("2", "numeric_other"),
        ask("3", "numeric_count"),
        ask("yes", "yes_no", ("yes", "no")),
    ]
    scores = [
        Omni3D().score(question, text) for question, text in zip(questions, ["2", "2.3", "4", "Yes."], strict=True)
    ]
    figures = Omni3D().figures(questions, scores)
    assert next(iter(figures)) == "accuracy"
    assert figures["accuracy"] == 0.5
    assert figures["numeric_other_mra"] == pytest.approx((1 + 0.7) / 2)
    assert figures["numeric_count_accuracy"] == 0
    assert figures["yes_no_accuracy"] == 1


def test_a_truth_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="is no number"):
        Omni3D().check([ask("many", "numeric_count")])
