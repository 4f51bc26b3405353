"""Families, lengths and options by wording, held against the categories of SpatialRGPT-Bench and the evaluation's own parser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spatial_lightning.data.corpora.wording import LENGTHS, OTHER, one_length, settle, spatial_kind
from spatial_lightning.evaluation.quantities import parse_quantity
from spatial_lightning.evaluation.scoring import score_answer, true_option
from spatial_lightning.records import Question

POLES = {
    "left_right": ("left", "right"),
    "front_behind": ("front", "behind"),
    "above_below": ("above", "below"),
    "tall_short": ("tall", "short"),
    "wide_thin": ("wide", "thin"),
    "big_small": ("big", "small"),
}


@pytest.fixture(scope="module")
def published(shared_data: Path) -> list[dict[str, Any]]:
    lines = (shared_data / "spatialrgpt_bench" / "questions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def family(category: str) -> str:
    """What a published category is called here."""
    if category == "direction":
        return category
    subject, _, form = category.rpartition("_")
    if form == "data":
        return subject
    return next(name for name, poles in POLES.items() if subject in poles) + ("_choice" if form == "choice" else "")


def test_every_published_question_is_of_its_category(published: list[dict[str, Any]]) -> None:
    assert len(published) == 948
    wrong = [row for row in published if spatial_kind(row["question"]) != family(row["qa_category"])]
    assert not wrong


def test_published_lengths_are_read_as_the_evaluation_reads_them(published: list[dict[str, Any]]) -> None:
    for row in published:
        length = one_length(row["ground_truth"])
        if family(row["qa_category"]) in LENGTHS:
            said = parse_quantity(row["ground_truth"], "length")
            assert said is not None
            assert length == pytest.approx(said.value, rel=1e-12)
        else:
            assert length is None


@pytest.mark.parametrize("short", [False, True])
def test_options_of_published_comparisons_agree_with_their_answers(
    published: list[dict[str, Any]], short: bool
) -> None:
    settled = compared = 0
    for row in published:
        kind, truth = spatial_kind(row["question"]), row["ground_truth"]
        answer, options = settle(kind, row["question"], truth, short=short)
        compared += row["qa_type"] == "qualitative"
        settled += bool(options)
        if not options:
            assert answer == truth
            continue
        question = Question("q", row["question"], answer, kind, options)
        picked = options[true_option(question)]
        assert score_answer(question, answer).correct
        expected = settle(kind, row["question"], truth, short=True)[0]
        assert picked == expected
        if kind.endswith("_choice"):
            assert picked in truth
        elif truth.split()[0].strip(",.") in ("Yes", "Correct", "Indeed"):
            assert picked == "yes"
    assert settled == compared if short else 0.85 * compared < settled < compared


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("3.09 meters", 3.09),
        ("It is 5 feet 11 inches tall.", 1.8034),
        ("5 ft and 11 in.", 1.8034),
        ("about 1,200 mm away", 1.2),
        ("a 6-foot pole", 1.8288),
        ("12.5cm", 0.125),
        (".5 m", 0.5),
        ("exactly 6 in", 0.1524),
        ("0 meters", 0.0),
        ("2-3 meters", None),
        ("2 – 3 meters", None),
        ("2 or 3 feet", None),
        ("between 2 and 3 meters", None),
        ("between 2 meters and 3 meters", None),
        ("9 feet (2.74 m)", None),
        ("1 1/2 feet", None),
        ("1 and a half meters", None),
        ("two meters", None),
        ("4 square meters", None),
        ("3 m²", None),
        ("3 m/s", None),
        ("2.4 meters per second", None),
        ("2 meters 3 inches", None),
        ("there are 2 in the picture", None),
        ("at 3 o'clock", None),
        ("Region [2] is far.", None),
        ("", None),
    ],
)
def test_only_a_single_stated_length_is_read(text: str, metres: float | None) -> None:
    assert one_length(text) == (metres if metres is None else pytest.approx(metres))


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("What is the distance between the red couch and the lamp?", "distance"),
        ("How wide is the wooden table?", "width"),
        ("Is the tall lamp to the left of the couch from the viewer's perspective?", "left_right"),
        ("Which is closer, the man in red or the small dog?", "front_behind_choice"),
        ("What is the color of the couch?", OTHER),
        ("Is the cup bigger and taller than the bowl?", OTHER),
        ("Is there a cup?", OTHER),
    ],
)
def test_questions_about_named_objects_have_a_family_too(question: str, kind: str) -> None:
    assert spatial_kind(question) == kind


def test_answers_that_pick_nothing_leave_no_options() -> None:
    choice = "Which is taller, Region [0] or Region [1]?"
    both = "Region [0] and Region [1] are alike."
    assert settle("tall_short_choice", choice, both, short=True) == (both, ())
    beyond = "Region [2] is taller."
    assert settle("tall_short_choice", choice, beyond, short=True) == (beyond, ())
    contrary = "In fact, Region [0] may be shorter."
    asked = "Is Region [0] taller than Region [1]?"
    assert settle("tall_short", asked, contrary, short=False) == (contrary, ())
    assert settle("tall_short", asked, contrary, short=True) == ("no", ("yes", "no"))
    assert settle("distance", "How far?", "Yes, 3 meters.", short=True) == ("Yes, 3 meters.", ())
