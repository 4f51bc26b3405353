"""Protocols by the form of the answers: options, true or false, lengths, the same words, or whatever a question asks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from spatial_lightning.evaluation.choices import extract_choice
from spatial_lightning.evaluation.protocol import (
    Protocol,
    Scored,
    accuracies,
    all_right,
    grouped,
    pairs,
    share,
    tag,
)
from spatial_lightning.evaluation.scoring import (
    BANDS,
    Score,
    score_answer,
    score_choice,
    score_length,
    score_words,
    true_option,
    unreadable,
)
from spatial_lightning.records import Question


@final
@dataclass(frozen=True)
class General(Protocol):
    """Each question by its own form, as :func:`score_answer` does: what training runs use.

    Figures: ``accuracy``, and ``macro_accuracy``, the mean over kinds of questions.
    """

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        return _plain_figures(pairs(questions, scores))

    def _score(self, question: Question, text: str) -> Score:
        return score_answer(question, text)


@final
@dataclass(frozen=True)
class Choice(Protocol):
    """One of the options, by its letter or its words.

    Figures: ``accuracy`` and ``macro_accuracy``, and for each of ``groups`` a ``<tag>_accuracy``: the share of groups all of
    whose questions are right, e.g. the pairs and sets of What'sUp (arXiv:2310.19785).

    Attributes:
        groups: names of the tags whose values name the groups.
    """

    groups: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.groups, str) or not all(isinstance(name, str) for name in self.groups):
            raise ValueError(f"groups is {self.groups!r}; it must be a list of names of tags, e.g. [pair, set]")
        object.__setattr__(self, "groups", tuple(self.groups))

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        scored = pairs(questions, scores)
        own = {f"{name}_accuracy": all_right(scored, _tagged(name)) for name in self.groups if scored}
        return _plain_figures(scored) | own

    def _score(self, question: Question, text: str) -> Score:
        return score_choice(text, _options(question), true_option(question))


@final
@dataclass(frozen=True)
class Truth(Protocol):
    """True or false, yes or no, in any of their usual words.

    Figures: ``accuracy``; ``balanced_accuracy``, the mean of the accuracies on what is true and on what is false, which is
    one half for whoever always says the same; ``said_true``, the share of readable answers that affirm; ``macro_accuracy``.
    """

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        scored = pairs(questions, scores)
        figures = _plain_figures(scored)
        sides = grouped(scored, lambda question: _side(question.answer))
        if len(sides) == 2:
            figures["balanced_accuracy"] = sum(map(share, sides.values())) / 2
        if readable := [score for score in scores if score.parsed]:
            figures["said_true"] = sum(_side(score.said) == "true" for score in readable) / len(readable)
        return figures

    def _score(self, question: Question, text: str) -> Score:
        options = question.options or _TRUE_FALSE
        if len(options) != 2 or set(map(_side, options)) != set(_TRUE_FALSE):
            raise ValueError(
                f"question {question.id!r}: options are {list(options)}; a true-or-false question has two, one that affirms "
                "and one that denies: yes and no, or true and false"
            )
        truth = extract_choice(question.answer, options)
        if truth is None:
            raise ValueError(f"question {question.id!r}: the answer {question.answer!r} says neither true nor false")
        return score_choice(text, options, truth)


@final
@dataclass(frozen=True)
class Bands(Protocol):
    """Lengths, in the terms of SpatialVLM (arXiv:2401.12168): how many are within 50 to 200 % of the truth, and closer.

    Figures: ``within_50_200``, ``within_66.7_150`` and ``within_90_110``, shares of all questions; ``gives_number``, the share
    that states a length at all; and ``within_50_200/1-3 m`` for the true lengths of each bin, lower end included.

    Attributes:
        edges: where bins of true lengths end and the next begin, in metres, ascending.
    """

    edges: Sequence[float] = (1.0, 3.0, 10.0)

    def __post_init__(self) -> None:
        edges = tuple(self.edges)
        if not all(math.isfinite(edge) and edge > 0 for edge in edges) or sorted(set(edges)) != list(edges):
            raise ValueError(
                f"edges are {list(edges)}; they must be lengths in metres above 0, each above the one before"
            )
        object.__setattr__(self, "edges", edges)

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        scored = pairs(questions, scores)
        if not scored:
            return {}
        figures = {
            _within(name): sum(score.within(band) for score in scores) / len(scores) for name, band in BANDS.items()
        }
        figures["gives_number"] = sum(score.parsed for score in scores) / len(scores)
        bins = grouped(scored, self._bin)
        return figures | {f"within_50_200/{name}": share(bins[name]) for name in self._bins() if name in bins}

    def _score(self, question: Question, text: str) -> Score:
        return score_length(question, text)

    def _bins(self) -> Iterator[str]:
        ends = [0.0, *self.edges]
        yield from (f"{low:g}-{high:g} m" for low, high in pairwise(ends))
        yield f"from {ends[-1]:g} m"

    def _bin(self, question: Question) -> str:
        return list(self._bins())[sum((question.value or 0.0) >= edge for edge in self.edges)]


@final
@dataclass(frozen=True)
class Exact(Protocol):
    """The true answer word for word, but for case, articles and punctuation, as CLEVR-Humans and GQA are scored.

    Only what follows ``the final answer is`` counts where that is written; options are not looked at. A word or a phrase is
    asked for: a reply that does not match and is a sentence, or has more than four words, is a format failure. Figures:
    ``accuracy`` and ``macro_accuracy``.
    """

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        return _plain_figures(pairs(questions, scores))

    def _score(self, question: Question, text: str) -> Score:
        score = score_words(question.answer, text)
        is_phrase = len(score.said.split()) <= _PHRASE and not _SENTENCE.search(score.said)
        return score if score.correct or is_phrase else unreadable()


_PHRASE = 4
_SENTENCE = re.compile(r"\b(?:i|is|are|was|were|it|there|has|have|cannot|can)\b")
_TRUE_FALSE = ("true", "false")


def _plain_figures(scored: Sequence[Scored]) -> dict[str, float]:
    if not scored:
        return {}
    kinds = accuracies(scored, lambda question: question.kind).values()
    return {"accuracy": share(scored), "macro_accuracy": sum(kinds) / len(kinds)}


def _options(question: Question) -> tuple[str, ...]:
    if not question.options:
        raise ValueError(
            f"question {question.id!r} has no options to choose from; read it with options, or score it freely"
        )
    return question.options


def _tagged(name: str) -> Callable[[Question], str]:
    return lambda question: tag(question, name)


def _side(text: str) -> str | None:
    """``true`` where a word or a sentence affirms, ``false`` where it denies."""
    index = extract_choice(text, _TRUE_FALSE)
    return None if index is None else _TRUE_FALSE[index]


def _within(band: str) -> str:
    return f"within_{band.removesuffix(' %').replace('-', '_')}"
