"""Whether one free-text answer to a question is right, wrong, or not an answer of the kind that was asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spatial_lightning.evaluation.choices import extract_choice, read_choice
from spatial_lightning.evaluation.quantities import Quantity, parse_quantity
from spatial_lightning.evaluation.text import SMALL_NUMBERS, final_answer, plain
from spatial_lightning.records import Question

# Shares of the true length within which an answer counts, ends included (arXiv:2401.12168); the first is `correct`.
BANDS = {"50-200 %": (0.5, 2.0), "66.7-150 %": (2 / 3, 1.5), "90-110 %": (0.9, 1.1)}


UNREADABLE = "unreadable"
"""The rule of every format failure."""


@dataclass(frozen=True, slots=True)
class Score:
    """The verdict on one answer.

    Attributes:
        correct: right; for a length, within the band of the protocol, 50 to 200 % of the truth unless it says otherwise.
        parsed: whether an answer of the asked kind was found; a format failure is never correct.
        ratio: predicted over true length, 0 or more (inf where the truth is 0 and the answer is not); None for other
            kinds of question and for format failures.
        rule: name of the rule that decided, e.g. ``option letter`` or ``length within 50-200 %``; ``unreadable`` for a
            format failure.
        said: what was read out of the answer, in short, e.g. ``1.5 m``; empty for a format failure.
    """

    correct: bool
    parsed: bool
    ratio: float | None = None
    rule: str = ""
    said: str = ""

    def within(self, band: tuple[float, float]) -> bool:
        """Whether the ratio lies in ``band``, ends included."""
        return self.ratio is not None and band[0] * (1 - 1e-9) <= self.ratio <= band[1] * (1 + 1e-9)


def score_answer(question: Question, text: str) -> Score:
    """Judge ``text`` as an answer to ``question``.

    A question with options is a choice; one with a value, a length. Otherwise the true answer says what is asked for: a
    clock direction is right within one hour and an angle within 30 degrees, the same tolerance (SpatialRGPT-Bench,
    arXiv:2406.01584); anything else has to be the true answer word for word, but for case, articles and punctuation.

    Raises:
        ValueError: the question's own answer is none of its options, or its value is no length; ``text`` is no text.
    """
    if question.options:
        return score_choice(text, question.options, true_option(question))
    if question.value is not None:
        return score_length(question, text)
    truth = parse_quantity(question.answer)
    if truth is not None and truth.kind != "length":
        return score_direction(truth, text)
    return score_words(question.answer, text)


def unreadable() -> Score:
    """The verdict on an answer of another kind than was asked for."""
    return Score(False, False, rule=UNREADABLE)


def score_choice(text: str, options: Sequence[str], truth: int) -> Score:
    """Whether ``text`` picks the option of index ``truth``."""
    pick = read_choice(text, options)
    return unreadable() if pick is None else Score(pick.index == truth, True, None, pick.rule, options[pick.index])


def score_length(
    question: Question, text: str, band: tuple[float, float] = BANDS["50-200 %"], rule: str = "length within 50-200 %"
) -> Score:
    """Whether ``text`` states a length within ``band``, in shares of the true one, ends included.

    Raises:
        ValueError: the question has no true length in metres.
    """
    truth = question.value
    if truth is None or not math.isfinite(truth) or truth < 0:
        raise ValueError(f"question {question.id!r}: value is {truth}; allowed: a length in metres, 0 or more")
    if (said := parse_quantity(text, "length")) is None:
        return unreadable()
    ratio = said.value / truth if truth else (math.inf if said.value else 1.0)
    score = Score(False, True, ratio, rule, f"{said.value:.4g} m")
    return replace(score, correct=score.within(band))


def score_direction(truth: Quantity, text: str) -> Score:
    """Whether ``text`` states a clock direction within an hour of ``truth``, or an angle within 30 degrees."""
    if (said := parse_quantity(text, truth.kind)) is None:
        return unreadable()
    clock = truth.kind == "clock"
    circle, tolerance = (12, 1) if clock else (360, 30)
    apart = abs(said.value - truth.value) % circle
    rule, unit = ("clock within 1 h", "o'clock") if clock else ("angle within 30 degrees", "degrees")
    return Score(min(apart, circle - apart) <= tolerance, True, None, rule, f"{said.value:.4g} {unit}")


def score_words(truth: str, text: str) -> Score:
    """Whether ``text`` is ``truth`` word for word, but for case, articles and punctuation."""
    said = _words(text)
    return Score(said == _words(truth), True, None, "same words", " ".join(said)[:80]) if said else unreadable()


def true_option(question: Question) -> int:
    """Index of the true option of a closed question; the answer may be the option itself or a sentence that picks it.

    Raises:
        ValueError: the answer picks none of the options.
    """
    if question.answer in question.options:
        return question.options.index(question.answer)
    if (index := extract_choice(question.answer, question.options)) is None:
        raise ValueError(
            f"question {question.id!r}: the answer {question.answer!r} picks none of the options "
            f"{list(question.options)}; make the answer one of them"
        )
    return index


def _words(text: str) -> list[str]:
    words = re.findall(r"\w+", final_answer(plain(text)).lower())
    return [str(SMALL_NUMBERS.get(word, word)) for word in words if word not in ("a", "an", "the")]
