"""Summaries, the baseline that never looks, and the table that a reader sees."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_lightning.evaluation.metrics import (
    BANDS,
    figures_table,
    majority_answers,
    majority_baseline,
    summarise,
    table,
)
from spatial_lightning.evaluation.statistics import wilson_interval
from spatial_lightning.records import Question


def closed(answer, options=("left", "right"), kind="left_right"):
    return Question(f"{kind}-{answer}", "Which?", answer, kind, options)


def length(value, kind="distance"):
    return Question(f"{kind}-{value}", "How far?", f"{value} meters", kind, value=value)


def opened(answer, kind="shape"):
    return Question(f"{kind}-{answer}", "What?", answer, kind)


MIXED = [closed("left"), closed("right"), closed("right"), length(1.0), length(8.0), opened("cube")]


def test_counts_by_kind_and_overall():
    summary = summarise(MIXED, ["left", "left", "dunno", "1.2 m", "1 m", "cube"])
    assert list(summary.kinds) == ["distance", "left_right", "shape"]
    left_right = summary.kinds["left_right"]
    assert (left_right.n, left_right.correct, left_right.unparsed) == (3, 1, 1)
    assert left_right.interval == wilson_interval(1, 3)
    assert summary.correct == (True, False, False, True, False, True)
    assert summary.overall.accuracy == pytest.approx(3 / 6)
    assert summary.macro == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert summary.macro_interval[0] < summary.macro < summary.macro_interval[1]
    assert summary.overall.bands == {"50-200 %": 0.5, "66.7-150 %": 0.5, "90-110 %": 0.0}
    assert left_right.bands == {}
    metrics = summary.metrics("val/")
    assert metrics["val/accuracy/distance"] == pytest.approx(0.5)
    assert metrics["val/within/90-110"] == 0
    assert metrics["val/unparsed"] == pytest.approx(1 / 6)


@given(
    st.randoms(use_true_random=False),
    st.lists(st.sampled_from(["left", "right", "1 m", "9 m", "cube", "?"]), min_size=6, max_size=6),
)
def test_order_changes_nothing_and_kinds_add_up(shuffler, answers):
    summary = summarise(MIXED, answers)
    pairs = list(zip(MIXED, answers, strict=True))
    shuffler.shuffle(pairs)
    shuffled = summarise(*map(list, zip(*pairs, strict=True)))
    assert (shuffled.kinds, shuffled.overall) == (summary.kinds, summary.overall)
    assert sum(kind.n for kind in summary.kinds.values()) == summary.overall.n == 6
    assert sum(kind.correct for kind in summary.kinds.values()) == summary.overall.correct == sum(summary.correct)


def test_wrong_numbers_of_answers_are_refused():
    with pytest.raises(ValueError, match="got 1 for 6"):
        summarise(MIXED, ["left"])
    with pytest.raises(ValueError, match="at least one"):
        summarise([], [])


@given(st.lists(st.sampled_from(["left", "right"]), min_size=1, max_size=30))
def test_the_baseline_of_two_words_is_the_more_frequent_one(truths):
    questions = [closed(truth) for truth in truths]
    expected = max(truths.count("left"), truths.count("right")) / len(truths)
    assert majority_baseline(questions, questions).overall.accuracy == pytest.approx(expected)


def test_object_names_are_guessed_by_position():
    names = [f"{colour} {shape}" for colour in ("red", "blue", "green") for shape in ("cube", "ball", "cone")]
    rng = random.Random(0)
    train, test = [], []
    for index in range(120):
        first, second = rng.sample(names, 2)
        truth = second if index % 4 else first
        (train if index < 80 else test).append(closed(truth, (first, second), "taller_choice"))
    assert majority_baseline(train, test).overall.accuracy == pytest.approx(0.75)
    assert majority_answers(train, test) == [question.options[1] for question in test]


def test_each_common_set_of_options_has_a_constant_of_its_own():
    questions = [closed("yes", ("yes", "no"))] * 6 + [closed("no", ("yes", "no"))] * 2 + [closed("left")] * 3
    assert majority_answers(questions, questions) == ["yes"] * 8 + ["left"] * 3
    rare = [closed("up", ("up", "down"))]
    assert majority_answers(questions * 10, rare) == [""], (
        "a set that training hardly has gets no answer of another set"
    )


def test_the_baseline_learns_from_training_questions_only():
    train, test = [closed("left")] * 3 + [closed("right")], [closed("right")] * 5
    assert majority_baseline(train, test).overall.accuracy == 0
    assert majority_baseline(train, test).overall.unparsed == 0


@given(st.lists(st.floats(0.02, 60), min_size=1, max_size=40))
def test_no_constant_length_beats_the_baseline_on_its_own_training_questions(values):
    questions = [length(value) for value in values]
    best = majority_baseline(questions, questions).overall.correct
    for constant in (*values, *(value / 2 for value in values), *(2 * value for value in values)):
        inside = sum(0.5 * value * 1.0001 <= constant <= 2 * value * 0.9999 for value in values)
        assert best >= inside


def test_zero_lengths_are_guessed_where_they_prevail():
    questions = [length(0.0), length(0.0), length(3.0)]
    assert majority_baseline(questions, questions).overall.correct == 2


def test_other_kinds_get_their_most_frequent_answer_and_unseen_kinds_none():
    train = [opened("cube"), opened("cube"), opened("ball")]
    assert majority_answers(train, [opened("ball"), opened("x", "colour"), closed("left")]) == ["cube", "", ""]


def test_the_table_shows_every_kind_every_run_and_the_bands():
    baseline = majority_baseline(MIXED, MIXED)
    after = summarise(MIXED, ["left", "right", "?", "1 m", "8 m", "cube"])
    text = table({"majority baseline": baseline, "warm start": after, "fDPO": after})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line]
    assert rows[0] == ["question kind", "n", "majority baseline", "warm start", "fDPO"]
    assert [row[0] for row in rows[2:7]] == ["distance", "left_right", "shape", "overall", "macro"]
    low, high = (100 * bound for bound in after.overall.interval)
    assert rows[5] == ["overall", "6", rows[5][2], *[f"83.3 [{low:.1f}, {high:.1f}], 17 % unreadable"] * 2]
    assert [row[0] for row in rows[7:]] == ["length within", ":------------", *BANDS]
    assert {len(line) for line in text.split("\n\n")[0].splitlines()} == {len(text.splitlines()[0])}


def test_a_table_without_lengths_has_no_bands():
    assert "within" not in table({"a": summarise([closed("left")], ["left"])})


def test_columns_about_other_questions_are_refused():
    one, two = summarise([closed("left")], ["left"]), summarise(MIXED, ["left"] * 6)
    with pytest.raises(ValueError, match=r"column 'b' answers other questions: .*'distance': 2"):
        table({"a": one, "b": two})
    with pytest.raises(ValueError, match="at least one column"):
        table({})


def test_format_failures_are_apart_from_wrong_answers():
    summary = summarise(MIXED, ["left", "left", "dunno", "1.2 m", "hm", ""])
    assert summary.overall.unparsed_share == pytest.approx(3 / 6)
    assert summary.overall.readable_accuracy == pytest.approx(2 / 3)
    assert summary.kinds["left_right"].readable_accuracy == pytest.approx(1 / 2)
    assert summary.metrics()["readable_accuracy"] == pytest.approx(2 / 3)
    assert summary.rules == {"unreadable": 3, "option text": 2, "length within 50-200 %": 1}


def test_figures_in_a_table_headline_first_then_format_failures():
    columns = {
        "before": summarise(MIXED, [""] * 6),
        "after": summarise(MIXED, ["left", "right", "?", "1 m", "8 m", "cube"]),
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in figures_table(columns).splitlines()]
    assert [row[0] for row in rows] == [
        "figure", ":-------------------", "accuracy", "macro_accuracy", "unreadable", "right among readable"
    ]  # fmt: skip
    assert rows[2] == ["accuracy", "0.0", "83.3"]
    assert rows[4:] == [["unreadable", "100.0", "16.7"], ["right among readable", "-", "100.0"]]
    with pytest.raises(ValueError, match="at least one column"):
        figures_table({})


def test_a_missing_answer_is_refused_in_words():
    with pytest.raises(ValueError, match="question 'left_right-left': the answer is None"):
        summarise([closed("left")], [None])
