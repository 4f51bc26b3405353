"""Omni3D-Bench's way of scoring: exact answers, and mean relative accuracy where a ratio or a length is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from spatial_lightning.evaluation.contrasts import denied_at
from spatial_lightning.evaluation.number_words import AND_A_PART, PART, WHOLE, value_of, with_part
from spatial_lightning.evaluation.protocol import Protocol, accuracies, pairs, share
from spatial_lightning.evaluation.scoring import Score, score_choice, score_words, true_option, unreadable
from spatial_lightning.evaluation.text import clip, final_answer, plain
from spatial_lightning.records import Question

TOLERANCES = tuple(step / 20 for step in range(1, 11))
"""Relative errors, 0.05 to 0.5, under each of which an answer is right or not; their mean is the relative accuracy."""
_DIGITS = r"(?:\d{1,12}(?:,\d{3})*(?:\.\d{1,12})?|\.\d{1,12})"
_NUMBER = re.compile(rf"(?<![\w.])([-+]?{_DIGITS})(?![\w]*\d)")
_RATIO = re.compile(rf"(?<![\w.:/])({_DIGITS})\s?[:/]\s?({_DIGITS})(?![\w:/]|\.\d)")
_SPELLED = re.compile(rf"\b(?:(?:{WHOLE}|\d{{1,6}}){AND_A_PART}|{WHOLE}|{PART})\b")


@final
@dataclass(frozen=True)
class Omni3D(Protocol):
    """Omni3D-Bench (VADAR, arXiv:2502.06787); a question's kind is ``numeric_other``, ``numeric_count`` or another.

    A ratio or a length (``numeric_other``, a number without a unit) earns the share of :data:`TOLERANCES` that its relative
    error stays below, and counts as right where it stays below the least; ``3:2`` is 1.5 there. A count has to be exact; other
    answers are matched by option or word for word. Of several numbers that are not denied the last counts.

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
        read = _ratio if _measured(question) else _number
        truth = read(question.answer)
        if truth is None:
            raise ValueError(f"question {question.id!r}: the answer {question.answer!r} is no number")
        if (number := read(text)) is None:
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


def _ratio(text: str) -> float | None:
    """As :func:`_number`, where ``3:2`` and ``3/2`` are one number."""
    return _number(text, _RATIO)


def _number(text: str, ratio: re.Pattern[str] | None = None) -> float | None:
    """The last number of a text, in digits or in words, that it does not deny; None where there is none."""
    said = _SPELLED.sub(_digits, final_answer(plain(clip(text))).lower())
    found: list[tuple[int, int, float]] = []
    for match in ratio.finditer(said) if ratio else ():
        above, below = map(_value, match.groups())
        if below:
            found.append((*match.span(), above / below))
    inside = {at for start, end, _ in found for at in range(start, end)}
    found += [(*match.span(), _value(match[1])) for match in _NUMBER.finditer(said) if match.start() not in inside]
    stated = [entry for entry in found if not denied_at(said, *entry[:2])] or found
    return max(stated)[2] if stated else None


def _digits(match: re.Match[str]) -> str:
    text, part = with_part(match[0])
    return f"{(float(text) if text.isdigit() else value_of(text)) + part:.12g}"


def _value(digits: str) -> float:
    return float(digits.replace(",", ""))
