"""Scores of many answers: per question kind and overall, beside the best answer that ignores the image, as a table."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spatial_lightning.evaluation.scoring import BANDS, Score, score_answer, true_option
from spatial_lightning.evaluation.statistics import Z95, wilson_interval
from spatial_lightning.records import Question

__all__ = [
    "BANDS",
    "KindSummary",
    "Score",
    "Summary",
    "majority_answers",
    "majority_baseline",
    "score_answer",
    "summarise",
    "table",
]


@dataclass(frozen=True, slots=True)
class KindSummary:
    """Scores of one group of questions.

    Attributes:
        n, correct, unparsed: counts of questions, right answers and format failures (never right).
        bands: per band of :data:`BANDS` the share of all lengths asked for that were answered within it, in [0, 1];
            empty where no length was asked for.
    """

    n: int
    correct: int
    unparsed: int
    bands: Mapping[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share of right answers in [0, 1], format failures counted as wrong; nan where nothing was asked."""
        return self.correct / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the accuracy."""
        return wilson_interval(self.correct, self.n)

    @property
    def unparsed_share(self) -> float:
        """Share of format failures in [0, 1]; nan where nothing was asked."""
        return self.unparsed / self.n if self.n else math.nan


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores of one run: per question kind (in alphabetical order), overall, and question by question (as asked)."""

    kinds: Mapping[str, KindSummary]
    overall: KindSummary
    scores: tuple[Score, ...]

    @property
    def macro(self) -> float:
        """Mean of the kinds' accuracies: every kind counts the same, however many questions it has."""
        return sum(kind.accuracy for kind in self.kinds.values()) / len(self.kinds)

    @property
    def macro_interval(self) -> tuple[float, float]:
        """95 % interval of :attr:`macro`: normal, with each kind's variance from two added successes and failures."""
        smoothed = [((kind.correct + 2) / (kind.n + 4), kind.n + 4) for kind in self.kinds.values()]
        half = Z95 * math.sqrt(sum(share * (1 - share) / n for share, n in smoothed)) / len(self.kinds)
        return max(0.0, self.macro - half), min(1.0, self.macro + half)

    @property
    def correct(self) -> tuple[bool, ...]:
        """Whether each answer was right, in the order asked; what a paired comparison needs."""
        return tuple(score.correct for score in self.scores)

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Flat figures for a logger: accuracy overall, macro and per kind, unparsed share, and the bands of lengths."""
        flat = {
            "accuracy": self.overall.accuracy,
            "macro_accuracy": self.macro,
            "unparsed": self.overall.unparsed_share,
        }
        flat |= {f"accuracy/{name}": kind.accuracy for name, kind in self.kinds.items()}
        flat |= {f"within/{band.replace(' %', '')}": share for band, share in self.overall.bands.items()}
        return {f"{prefix}{name}": value for name, value in flat.items()}


def summarise(questions: Sequence[Question], answers: Sequence[str]) -> Summary:
    """Score one answer per question, in the same order.

    Raises:
        ValueError: no questions, or more or fewer answers than questions.
    """
    if not questions or len(questions) != len(answers):
        raise ValueError(f"need one answer per question and at least one, got {len(answers)} for {len(questions)}")
    scores = tuple(score_answer(question, answer) for question, answer in zip(questions, answers, strict=True))
    grouped: dict[str, list[tuple[Question, Score]]] = defaultdict(list)
    for question, score in zip(questions, scores, strict=True):
        grouped[question.kind].append((question, score))
    kinds = {kind: _summary(grouped[kind]) for kind in sorted(grouped)}
    return Summary(kinds, _summary(zip(questions, scores, strict=True)), scores)


def _summary(scored: Iterable[tuple[Question, Score]]) -> KindSummary:
    pairs = list(scored)
    lengths = [score for question, score in pairs if _is_length(question)]
    bands = {
        name: sum(score.within(band) for score in lengths) / len(lengths) for name, band in BANDS.items() if lengths
    }
    scores = [score for _, score in pairs]
    return KindSummary(len(scores), sum(s.correct for s in scores), sum(not s.parsed for s in scores), bands)


def majority_baseline(train_questions: Sequence[Question], eval_questions: Sequence[Question]) -> Summary:
    """What answering without looking scores on ``eval_questions``; see :func:`majority_answers`."""
    return summarise(eval_questions, majority_answers(train_questions, eval_questions))


def majority_answers(train_questions: Sequence[Question], eval_questions: Sequence[Question]) -> list[str]:
    """The best constant answer of each question kind, learned on the training questions only.

    Closed questions: the option text, or the position among the options, that is most often right (the position where
    the options are names that change from question to question). Lengths: the constant that lies within 50 to 200 % of
    the most training values. Others: the most frequent answer. A kind without training questions gets no answer.

    Raises:
        ValueError: a closed training or evaluation question whose answer is none of its options.
    """
    seen: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for question in train_questions:
        seen[question.kind, _form(question)].append(question)
    constants = {key: _CONSTANTS[key[1]](questions) for key, questions in seen.items()}
    answers = []
    for question in eval_questions:
        constant = constants.get((question.kind, _form(question)), "")
        if isinstance(constant, int):
            constant = question.options[constant] if constant < len(question.options) else ""
        answers.append(constant)
    return answers


def _is_length(question: Question) -> bool:
    return not question.options and question.value is not None


def _form(question: Question) -> str:
    return "closed" if question.options else "length" if _is_length(question) else "open"


def _best_option(questions: Sequence[Question]) -> str | int:
    truths = [true_option(question) for question in questions]
    texts = Counter(question.options[truth] for question, truth in zip(questions, truths, strict=True))
    (text, right_texts), (position, right_positions) = texts.most_common(1)[0], Counter(truths).most_common(1)[0]
    return text if right_texts >= right_positions else position


def _best_length(questions: Sequence[Question]) -> str:
    """The constant with the most values within a factor of two of it: the middle of the fullest two octaves."""
    values = [question.value for question in questions if question.value is not None]
    octaves = np.sort(np.log2([value for value in values if value > 0]))
    if 2 * len(octaves) < len(values):
        return "0 meters"
    ends = np.searchsorted(octaves, octaves + 2, side="right")
    start = int(np.argmax(ends - np.arange(len(octaves))))
    return f"{2 ** ((octaves[start] + octaves[ends[start] - 1]) / 2):.6f} meters"


def _best_text(questions: Sequence[Question]) -> str:
    return Counter(question.answer for question in questions).most_common(1)[0][0]


_CONSTANTS = {"closed": _best_option, "length": _best_length, "open": _best_text}


def table(columns: Mapping[str, Summary]) -> str:
    """Markdown table of runs on the same questions: one row per kind, then all questions and the mean over kinds.

    A cell reads ``accuracy % [95 % interval]``, with the share of format failures where there were any. Runs that were
    asked for lengths get a second table with the share of answers within each band of :data:`BANDS`.

    Args:
        columns: summaries by name, in order, e.g. majority baseline, warm start, after.

    Raises:
        ValueError: no columns, or columns with other kinds or numbers of questions.
    """
    if not columns:
        raise ValueError("a table needs at least one column")
    first = next(iter(columns.values()))
    sizes = {name: kind.n for name, kind in first.kinds.items()}
    for column, summary in columns.items():
        if (other := {name: kind.n for name, kind in summary.kinds.items()}) != sizes:
            raise ValueError(f"column {column!r} answers other questions: {other}; the first column answers {sizes}")
    rows = [["question kind", "n", *columns]]
    rows += [[name, str(n), *(_cell(s.kinds[name]) for s in columns.values())] for name, n in sizes.items()]
    rows += [["overall", str(first.overall.n), *(_cell(summary.overall) for summary in columns.values())]]
    rows += [["macro", "", *(_percent(summary.macro, summary.macro_interval) for summary in columns.values())]]
    text = _markdown(rows)
    if first.overall.bands:
        bands = [["length within", *columns]]
        bands += [[band, *(f"{100 * s.overall.bands[band]:.1f}" for s in columns.values())] for band in BANDS]
        text += "\n" + _markdown(bands)
    return text


def _cell(kind: KindSummary) -> str:
    unparsed = f", {100 * kind.unparsed_share:.0f} % unreadable" if kind.unparsed else ""
    return _percent(kind.accuracy, kind.interval) + unparsed


def _percent(share: float, interval: tuple[float, float]) -> str:
    return f"{100 * share:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    # Names to the left, figures to the right.
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])
