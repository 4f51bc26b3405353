"""Verdicts on single answers: choices, lengths with their bands, directions and plain words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.evaluation.scoring import BANDS, score_answer
from spatial_lightning.records import Question


def closed(answer="left", options=("left", "right"), **fields):
    return Question("q", "Left or right?", answer, "left_right", options, **fields)


def length(value):
    return Question("q", "How far?", f"{value} meters", "distance", value=value)


def opened(answer):
    return Question("q", "What?", answer, "open")


@given(st.text(max_size=200))
def test_hostile_text_is_wrong_or_right_but_never_raises(text):
    for question in (closed(), length(1.5), opened("3 o'clock"), opened("cube")):
        score = score_answer(question, text)
        assert score.parsed or not score.correct
        assert (score.ratio is None) or question.value is not None


@pytest.mark.parametrize(
    "question", [closed(), length(1.5), opened("3 o'clock"), opened("90 degrees"), opened("A cube.")]
)
def test_the_true_answer_is_right_however_it_is_introduced(question):
    for text in (question.answer, f"Let me see.\nThe final answer is {question.answer}"):
        score = score_answer(question, text)
        assert (score.correct, score.parsed) == (True, True)


@given(st.floats(0.05, 500), st.floats(0.05, 20))
def test_the_ratio_decides_and_bands_are_nested(truth, factor):
    score = score_answer(length(truth), f"{truth * factor:.9f} meters")
    assert score.ratio == pytest.approx(factor, rel=1e-4)
    assert score.correct == score.within(BANDS["50-200 %"])
    inside = [score.within(band) for band in BANDS.values()]
    assert inside == sorted(inside, reverse=True)


@pytest.mark.parametrize(
    ("metres", "inside"),
    [(0.49, 0), (0.5, 1), (0.66, 1), (0.667, 2), (0.9, 3), (1.1, 3), (1.11, 2), (1.5, 2), (1.51, 1), (2, 1), (2.01, 0)],
)
def test_edges_of_the_bands(metres, inside):
    score = score_answer(length(1.0), f"{metres} m")
    assert sum(score.within(band) for band in BANDS.values()) == inside


def test_a_reasoned_answer_is_judged_by_its_conclusion():
    question = closed(style="reasoned")
    text = "<reasoning>The cup is to the right of the lamp.</reasoning> The final answer is left."
    assert score_answer(question, text).correct
    assert not score_answer(question, text.replace("is left", "is right")).correct
    assert score_answer(question, "<reasoning>I see the lamp. It is on the left.</reasoning>").correct


def test_format_failures_are_told_apart_from_wrong_answers():
    assert (score_answer(closed(), "right").correct, score_answer(closed(), "right").parsed) == (False, True)
    for question, text in (
        (closed(), "hmm"),
        (length(1.5), "150 pixels"),
        (opened("3 o'clock"), "left"),
        (opened("cube"), " "),
    ):
        assert (score_answer(question, text).correct, score_answer(question, text).parsed) == (False, False)


@pytest.mark.parametrize(
    ("truth", "said", "correct"),
    [("12 o'clock", "1 o'clock", True), ("12 o'clock", "2 o'clock", False), ("1 o'clock", "12 o'clock", True),
     ("350 degrees", "10 degrees", True), ("0 degrees", "90 degrees", False)],
)  # fmt: skip
def test_directions_wrap_around(truth, said, correct):
    assert score_answer(opened(truth), said).correct is correct


@pytest.mark.parametrize(("truth", "said"), [("cube", "The cube."), ("3", "three"), ("a red ball", "Red ball")])
def test_plain_words_match_but_for_form(truth, said):
    assert score_answer(opened(truth), said).correct
    assert not score_answer(opened(truth), f"{said} or so").correct


def test_a_length_of_zero_is_met_by_zero_only():
    assert score_answer(length(0.0), "0 m").correct
    assert not score_answer(length(0.0), "0.01 m").correct


def test_a_true_answer_may_be_a_sentence():
    question = closed("The cup is on the left side. The final answer is left.")
    assert score_answer(question, "left").correct


def test_impossible_questions_are_refused_in_words():
    with pytest.raises(ValueError, match=r"'above' picks none of the options \['left', 'right'\]"):
        score_answer(closed("above"), "left")
    with pytest.raises(ValueError, match=r"value is -1.*0 or more"):
        score_answer(length(-1.0), "1 m")
