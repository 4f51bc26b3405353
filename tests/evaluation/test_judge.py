"""A judge for what rules cannot read: what it is shown, how its replies are read, and when it is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.evaluation import summarise
from spatial_lightning.evaluation.judge import LONGEST_SHOWN, judge_prompt, read_match, read_number
from spatial_lightning.evaluation.protocols import Bands, Choice, Judged, QSpatial, RGPTBench
from spatial_lightning.records import Question

CLOSED = Question("c", "Which is nearer?", "the cup", "near", ("the cup", "the pan"))
LENGTH = Question("l", "How wide is Region [0]?", "Region [0] is 2 meters wide.", "width_data", value=2.0)
CLOCK = Question("d", "Where is Region [1]?", "At 3 o'clock.", "direction")


class Replies:
    """A judge that gives its replies in order and keeps what it was shown."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.shown = list(replies), []

    def __call__(self, prompt: str) -> str:
        self.shown.append(prompt)
        return self.replies.pop(0)


def test_a_judge_sees_question_and_answer_and_the_truth_only_where_it_compares():
    prompt = judge_prompt(CLOSED, "whatever {braces} are near")
    assert "Which is nearer?" in prompt
    assert "True answer: the cup" in prompt
    assert "whatever {braces} are near" in prompt
    assert '{"match": 1}' in prompt
    for question, key in ((LENGTH, "metres"), (CLOCK, "hour")):
        prompt = judge_prompt(question, "300 pixels")
        assert question.answer not in prompt
        assert f'{{"{key}": NUMBER}}' in prompt


def test_enormous_answers_are_shown_in_part():
    prompt = judge_prompt(CLOSED, "start " + "x" * 1_000_000 + " end")
    assert len(prompt) < LONGEST_SHOWN + 1_500
    assert "start " in prompt
    assert " end" in prompt


@pytest.mark.parametrize(
    ("reply", "expected"),
    [('{"match": 1}', True), ('```json\n{"match": 0}\n```', False), ("{'match': true}", True), ("1", True), ("No.", False),
     ('I think {"match": 1}', True), ('{"match": 1} or {"match": 0}', None), ("", None), ("perhaps", None),
     ('{"match": 10}', None)],
)  # fmt: skip
def test_verdicts(reply, expected):
    assert read_match(reply) is expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [('{"metres": 1.5}', 1.5), ('{"metres": null}', None), ("0.25", 0.25), ('so {"metres": .5} it is', 0.5), ("1.5 m", None),
     ('{"metres": 1} {"metres": 2}', None), ('{"hour": 3}', None), ('{"metres": "nan"}', None), ("", None)],
)  # fmt: skip
def test_numbers(reply, expected):
    assert read_number(reply, "metres") == expected


@given(st.text(max_size=200))
def test_any_reply_can_be_read_or_not(reply):
    assert read_match(reply) in (True, False, None)
    for question, protocol in ((CLOSED, Choice()), (LENGTH, RGPTBench()), (CLOCK, RGPTBench())):
        score = Judged(protocol, Replies(reply)).score(question, "gibberish")
        assert score.rule == ("judge" if score.parsed else "unreadable")


def test_a_judge_is_asked_only_where_rules_fail():
    judge = Replies('{"match": 1}')
    summary = summarise([CLOSED] * 4, ["the cup", "the pan", "the thing for coffee", " "], Judged(Choice(), judge))
    assert len(judge.shown) == 1
    assert summary.correct == (True, False, True, False)
    assert summary.rules == {"option text": 2, "judge": 1, "unreadable": 1}
    assert summary.figures == {"accuracy": 0.5, "macro_accuracy": 0.5, "judged": 0.25}


def test_a_judge_may_be_asked_about_every_answer():
    judge = Replies('{"match": 0}', "no idea")
    scores = [Judged(Choice(), judge, always=True).score(CLOSED, "the cup") for _ in range(2)]
    assert [(score.correct, score.rule) for score in scores] == [(False, "judge"), (True, "option text")]


@pytest.mark.parametrize(
    ("protocol", "metres", "right"),
    [(RGPTBench(), 2.5, True), (RGPTBench(), 2.6, False), (Bands(), 3.9, True), (QSpatial(tagged=True), 4.0, False)],
)
def test_a_length_that_a_judge_read_is_scored_by_the_protocol(protocol, metres, right):
    score = Judged(protocol, Replies(f'{{"metres": {metres}}}')).score(LENGTH, "as wide as two doors")
    assert (score.correct, score.rule) == (right, "judge")
    assert score.ratio == pytest.approx(metres / 2)


def test_a_direction_that_a_judge_read_is_scored_by_the_protocol():
    judged = Judged(RGPTBench(), Replies('{"hour": 4}', '{"hour": 9}', '{"hour": 0}'))
    scores = [judged.score(CLOCK, "to the right") for _ in range(3)]
    assert [(score.correct, score.parsed) for score in scores] == [(True, True), (False, True), (False, False)]


def test_what_the_protocol_needs_is_checked_without_asking():
    judge = Replies()
    Judged(Choice(), judge).check([CLOSED])
    with pytest.raises(ValueError, match="no options"):
        Judged(Choice(), judge).check([LENGTH])
    assert Judged(RGPTBench(), judge).band == RGPTBench().band


def test_errors_of_a_judge_are_passed_on():
    with pytest.raises(IndexError):
        Judged(Choice(), Replies()).score(CLOSED, "gibberish")
