"""Omni3D-Bench's way of scoring: exact answers, and mean relative accuracy where a ratio or a length is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from spatial_lightning.evaluation.protocol import Protocol, accuracies, pairs, share
from spatial_lightning.evaluation.scoring import Score, score_choice, score_words, true_option, unreadable
from spatial_lightning.evaluation.text import SMALL_NUMBERS, clip, final_answer, plain
from spatial_lightning.records import Question

TOLERANCES = tuple(step / 20 for step in range(1, 11))
"""Relative errors, 0.05 to 0.5, under each of which an answer is right or not; their mean is the relative accuracy."""
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,12}(?:,\d{3})*(?:\.\d{1,12})?|\.\d{1,12})(?![\w]*\d)")


@final
@dataclass(frozen=True)
class Omni3D(Protocol):
    """Omni3D-Bench (VADAR, arXiv:2502.06787); a question's kind is ``numeric_other``, ``numeric_count`` or another.

    A ratio or a length (``numeric_other``, a number without a unit) earns the share of :data:`TOLERANCES` that its relative
    error stays below, and counts as right where it stays below the least. A count has to be exact; other answers are matched
    by option or word for word. Of several numbers the last counts.

    Figures: ``accuracy``, the plain share; ``numeric_other_mra``, the mean relative accuracy; ``<kind>_accuracy``.
    """

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        scored = pairs(questions, scores)
        figures = {"accuracy": share(scored)} if scored else {}
        measured = [relative_accuracy(score.ratio) for question, score in scored if _measured(question)]
        if measured:
            figures["numeric_other_mra"] = sum(measured) / len(measured)
        return figures | dict(sorted(accuracies(scored, lambda question: question.kind).items()))

    def _score(self, question: Question, text: str) -> Score:
        if question.options:
            return score_choice(text, question.options, true_option(question))
        if not question.kind.startswith("numeric"):
            return score_words(question.answer, text)
        truth = _number(question.answer)
        if truth is None:
            raise ValueError(f"question {question.id!r}: the answer {question.answer!r} is no number")
        if (number := _number(text)) is None:
            return unreadable()
        if not _measured(question):
            return Score(number == truth, True, None, "same number", f"{number:g}")
        ratio = number / truth if truth else (1.0 if number == 0 else float("inf"))
        return Score(relative_accuracy(ratio) == 1, True, ratio, "number within 5 %", f"{number:g}")


def relative_accuracy(ratio: float | None) -> float:
    """Share of :data:`TOLERANCES`, in [0, 1], above the relative error of a predicted over a true value; 0 for no answer."""
    if ratio is None:
        return 0.0
    return sum(abs(ratio - 1) < tolerance * (1 - 1e-9) for tolerance in TOLERANCES) / len(TOLERANCES)


def _measured(question: Question) -> bool:
    return question.kind == "numeric_other"


def _number(text: str) -> float | None:
    """The last number of a text, in digits or as a word up to nineteen; None where there is none."""
    said = final_answer(plain(clip(text))).lower()
    said = re.sub(r"[a-z]+", lambda word: str(SMALL_NUMBERS.get(word[0], word[0])), said)
    found = _NUMBER.findall(said)
    return float(found[-1].replace(",", "")) if found else None
