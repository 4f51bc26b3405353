"""What a way of scoring is: one verdict an answer, and the figures of a benchmark out of many verdicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence

from spatial_lightning.evaluation.scoring import BANDS, Score
from spatial_lightning.records import Question

Scored = tuple[Question, Score]


class Protocol(ABC):
    """How a benchmark reads answers and adds them up; final leaves are frozen dataclasses, named by ``_target_``."""

    def score(self, question: Question, text: str) -> Score:
        """Judge ``text`` as an answer to ``question``; any text gives a verdict.

        Raises:
            ValueError: ``text`` is no text, or the question is none that this protocol can judge.
        """
        if not isinstance(text, str):
            raise ValueError(
                f"question {question.id!r}: the answer is {text!r}; it must be text, and '' where a model said nothing"
            )
        return self._score(question, text)

    def check(self, questions: Sequence[Question]) -> None:
        """Refuse questions that cannot be judged, before any model is asked, by judging their own true answers.

        Raises:
            ValueError: a question without what the protocol needs: a true option, a length, a tag.
        """
        self.figures(questions, [self.score(question, question.answer) for question in questions])

    @property
    def band(self) -> tuple[float, float]:
        """Shares of the true length within which an answer counts as right."""
        return BANDS["50-200 %"]

    @abstractmethod
    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """The benchmark's own figures by name, the headline first; shares in [0, 1] unless the name says otherwise.

        A figure about questions of which there are none is left out.

        Raises:
            ValueError: a question without the tag that a figure groups by.
        """

    @abstractmethod
    def _score(self, question: Question, text: str) -> Score:
        """The verdict on a text."""


def pairs(questions: Sequence[Question], scores: Sequence[Score]) -> list[Scored]:
    """Each question with its verdict.

    Raises:
        ValueError: as many of one as of the other there are not.
    """
    if len(questions) != len(scores):
        raise ValueError(f"need one score per question, got {len(scores)} for {len(questions)}")
    return list(zip(questions, scores, strict=True))


def share(scored: Sequence[Scored]) -> float:
    """Share of right answers, of one or more."""
    return sum(score.correct for _, score in scored) / len(scored)


def grouped(scored: Sequence[Scored], key: Callable[[Question], str | None]) -> dict[str, list[Scored]]:
    """Verdicts by ``key``, in order of appearance; questions whose key is None are left out."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for question, score in scored:
        if (name := key(question)) is not None:
            groups[name].append((question, score))
    return dict(groups)


def accuracies(scored: Sequence[Scored], key: Callable[[Question], str | None]) -> dict[str, float]:
    """``<key>_accuracy`` of every group."""
    return {f"{name}_accuracy": share(own) for name, own in grouped(scored, key).items()}


def all_right(scored: Sequence[Scored], key: Callable[[Question], str | None]) -> float:
    """Share of groups all of whose questions are right, of one group or more."""
    groups = grouped(scored, key).values()
    return sum(all(score.correct for _, score in group) for group in groups) / len(groups)


def tag(question: Question, name: str) -> str:
    """A fact about a question by which its benchmark groups it.

    Raises:
        ValueError: the question has no such tag.
    """
    if (value := question.tags.get(name)) is None:
        given = ", ".join(question.tags) or "none"
        raise ValueError(
            f"question {question.id!r} has no tag {name!r}, by which this protocol groups; its tags: {given}. Read the "
            "benchmark with the reader made for it, or choose another protocol"
        )
    return value
