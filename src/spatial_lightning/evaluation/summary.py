"""Scores of many answers: per question kind and overall, with format failures apart from wrong answers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spatial_lightning.evaluation.forms import General
from spatial_lightning.evaluation.protocol import Protocol
from spatial_lightning.evaluation.scoring import BANDS, Score
from spatial_lightning.evaluation.statistics import Z95, wilson_interval
from spatial_lightning.records import Question


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

    @property
    def readable_accuracy(self) -> float:
        """Share in [0, 1] of right answers among those that could be read; nan where none could."""
        return self.correct / (self.n - self.unparsed) if self.n > self.unparsed else math.nan


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores of one run: per question kind (in alphabetical order), overall, and question by question (as asked).

    Attributes:
        figures: the protocol's own figures by name, the headline first.
        rules: how many answers each rule decided, the most frequent first; format failures are ``unreadable``.
    """

    kinds: Mapping[str, KindSummary]
    overall: KindSummary
    scores: tuple[Score, ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    rules: Mapping[str, int] = field(default_factory=dict)

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
        """Flat figures for a logger: accuracy overall, macro and per kind, unparsed share, bands of lengths, the protocol's.

        ``readable_accuracy``, among the answers that could be read, is left out where none could.
        """
        flat = {
            "accuracy": self.overall.accuracy,
            "macro_accuracy": self.macro,
            "unparsed": self.overall.unparsed_share,
        }
        if self.overall.unparsed < self.overall.n:
            flat["readable_accuracy"] = self.overall.readable_accuracy
        flat |= {f"accuracy/{name}": kind.accuracy for name, kind in self.kinds.items()}
        flat |= {f"within/{band.replace(' %', '')}": share for band, share in self.overall.bands.items()}
        return {f"{prefix}{name}": value for name, value in (flat | dict(self.figures)).items()}


def summarise(questions: Sequence[Question], answers: Sequence[str], protocol: Protocol | None = None) -> Summary:
    """Score one answer per question, in the same order.

    Args:
        protocol: how answers are scored; None takes each question by its own form, as :class:`General` does.

    Raises:
        ValueError: no questions, more or fewer answers than questions, an answer that is no text, or a question that the
            protocol cannot judge.
    """
    protocol = protocol or General()
    if not questions or len(questions) != len(answers):
        raise ValueError(f"need one answer per question and at least one, got {len(answers)} for {len(questions)}")
    scores = tuple(protocol.score(question, answer) for question, answer in zip(questions, answers, strict=True))
    grouped: dict[str, list[tuple[Question, Score]]] = defaultdict(list)
    for question, score in zip(questions, scores, strict=True):
        grouped[question.kind].append((question, score))
    kinds = {kind: _summary(grouped[kind]) for kind in sorted(grouped)}
    rules = dict(Counter(score.rule for score in scores).most_common())
    overall = _summary(zip(questions, scores, strict=True))
    return Summary(kinds, overall, scores, protocol.figures(questions, scores), rules)


def _summary(scored: Iterable[tuple[Question, Score]]) -> KindSummary:
    pairs = list(scored)
    lengths = [score for question, score in pairs if not question.options and question.value is not None]
    bands = {
        name: sum(score.within(band) for score in lengths) / len(lengths) for name, band in BANDS.items() if lengths
    }
    scores = [score for _, score in pairs]
    return KindSummary(len(scores), sum(s.correct for s in scores), sum(not s.parsed for s in scores), bands)
