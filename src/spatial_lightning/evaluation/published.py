"""Protocols of single benchmarks: SpatialRGPT-Bench, Q-Spatial, CV-Bench and 3DSRBench, with the figures they publish."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from spatial_lightning.evaluation.quantities import parse_quantity
from spatial_lightning.evaluation.relations import OPPOSITES, bracketed, read_relation, regions_in
from spatial_lightning.evaluation.scoring import (
    Score,
    score_choice,
    score_direction,
    score_length,
    true_option,
    unreadable,
)
from spatial_lightning.evaluation.text import clip, plain
from spatial_lightning.records import Question

_FAMILIES = ("below_above", "left_right", "big_small", "tall_short", "wide_thin", "behind_front")
_FAMILY = {end: family for family in _FAMILIES for end in family.split("_")}
_CONTRARY = re.compile(r"(?:in fact|actually)\b", re.IGNORECASE)
_ANSWERED = re.compile(r"\banswer(?:\sis\b|\s?:)", re.IGNORECASE)
_YES_NO = ("yes", "no")


@final
@dataclass(frozen=True)
class RGPTBench(Protocol):
    """SpatialRGPT-Bench (arXiv:2406.01584); a question's kind is its published category, e.g. ``height_data``.

    Lengths are right within 25 % of the truth and directions within one hour of the clock. Comparisons of two regions are
    matched by what they mean, where the benchmark asks a language model: by yes or no, by the region that is named, or by
    the relation that is stated (``Region [1] is shorter than Region [0]`` affirms that Region [0] is taller). An answer that
    cannot be read is wrong.

    Figures: ``qualitative_accuracy`` and ``quantitative_accuracy`` over all questions of their type, as the published
    averages are; ``<family>_accuracy`` of the six published pairs of comparisons (``below_above``, ...) and of the quantities
    (``distance``, ...); ``<family>_abs_rel``, the mean of |p - g| / (g + 1e-4) over the lengths that were read.
    """

    @property
    def band(self) -> tuple[float, float]:
        """See :attr:`Protocol.band`."""
        return 0.75, 1.25

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        scored = pairs(questions, scores)
        types = grouped(scored, lambda question: "quantitative" if _quantity(question) else "qualitative")
        figures = {f"{name}_accuracy": share(types[name]) for name in ("qualitative", "quantitative") if name in types}
        lengths = grouped(
            [own for own in scored if own[0].kind.endswith("_data") and own[1].ratio is not None], _family
        )
        errors = {f"{family}_abs_rel": _abs_rel(own) for family, own in lengths.items()}
        return figures | dict(sorted(accuracies(scored, _family).items())) | dict(sorted(errors.items()))

    def _score(self, question: Question, text: str) -> Score:
        if question.kind.endswith("_data"):
            return score_length(question, text, self.band, "length within 25 %")
        if question.kind == "direction":
            truth = parse_quantity(question.answer, "clock")
            if truth is None:
                raise ValueError(f"question {question.id!r}: {question.answer!r} states no clock direction")
            return score_direction(truth, text)
        return _score_comparison(question, text)


@final
@dataclass(frozen=True)
class QSpatial(Protocol):
    r"""Q-Spatial (arXiv:2409.09788): a length is right where it is off by less than a factor of two, max(p/g, g/p) < 2.

    Figures: ``within_factor_2`` and ``within_factor_1.5``, shares of all questions, factors themselves excluded; an answer
    without a length is wrong.

    Attributes:
        tagged: read ``\scalar{..} \distance_unit{..}`` only, as published; otherwise lengths in plain words as well.
    """

    tagged: bool = False

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        return {
            f"within_factor_{factor:g}": sum(_within_factor(score, factor) for _, score in scored) / len(scored)
            for scored in [pairs(questions, scores)]
            for factor in (2.0, 1.5)
            if scored
        }

    def _score(self, question: Question, text: str) -> Score:
        score = score_length(question, text, rule="length within factor 2")
        if self.tagged and not ("\\scalar" in (own := clip(text)) and "\\distance" in own):
            return unreadable()
        return replace(score, correct=_within_factor(score, 2.0))


@final
@dataclass(frozen=True)
class CVBench(Protocol):
    """CV-Bench (arXiv:2406.16860): the mean of 2D (ADE20K and COCO, each half) and 3D (Omni3D).

    Needs the tag ``source`` on every question: ``ADE20K``, ``COCO`` or ``Omni3D``. Figures: ``combined_accuracy``, where all
    three sources were asked about; ``<source>_accuracy``; ``accuracy``, the plain share.
    """

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        scored = pairs(questions, scores)
        own = accuracies(scored, lambda question: _source(question))
        figures = {}
        if len(own) == len(_SOURCES):
            flat = (own["ADE20K_accuracy"] + own["COCO_accuracy"]) / 2
            figures = {"combined_accuracy": (flat + own["Omni3D_accuracy"]) / 2}
        return figures | own | ({"accuracy": share(scored)} if scored else {})

    def _score(self, question: Question, text: str) -> Score:
        return score_choice(text, question.options, true_option(question))


@final
@dataclass(frozen=True)
class ThreeDSR(Protocol):
    """3DSRBench (arXiv:2412.07825): questions come mirrored (``flip``) and with their options turned round (``1``, ...).

    Needs the tags ``base``, the same for all forms of a question, and ``variant``: empty, ``flip``, ``1``, ..., ``flip-1``, ...
    Figures: ``vanilla_accuracy`` by row; ``flip_accuracy``, where a row and its mirror image have to be right;
    ``circular_accuracy``, where all turns of a question have to be, mirrored ones apart; ``flip_circular_accuracy``, where all
    its forms have to be; ``<group>_accuracy`` by row for height, location, orientation and multi_object, by a question's kind.
    """

    def figures(self, questions: Sequence[Question], scores: Sequence[Score]) -> dict[str, float]:
        """See :meth:`Protocol.figures`."""
        scored = pairs(questions, scores)
        if not scored:
            return {}
        return {
            "vanilla_accuracy": share(scored),
            "flip_accuracy": all_right(scored, lambda question: "/".join(_form(question)[::2])),
            "circular_accuracy": all_right(scored, lambda question: "/".join(_form(question)[:2])),
            "flip_circular_accuracy": all_right(scored, lambda question: _form(question)[0]),
        } | accuracies(scored, _group)

    def _score(self, question: Question, text: str) -> Score:
        return score_choice(text, question.options, true_option(question))


_SOURCES = ("ADE20K", "COCO", "Omni3D")
_GROUPS = ("height", "location", "orientation", "multi_object")


def _source(question: Question) -> str:
    source = tag(question, "source")
    if source not in _SOURCES:
        raise ValueError(f"question {question.id!r}: source is {source!r}; allowed: {', '.join(_SOURCES)}")
    return source


def _group(question: Question) -> str | None:
    return next((group for group in _GROUPS if question.kind.startswith(group)), None)


def _form(question: Question) -> tuple[str, str, str]:
    """Base, whether mirrored (``flip`` or nothing), and which turn of the options (its number or nothing)."""
    variant = tag(question, "variant")
    match = re.fullmatch(r"(flip)?-?(\d*)", variant)
    if match is None:
        raise ValueError(f"question {question.id!r}: variant is {variant!r}; allowed: '', flip, 1, 2, ..., flip-1, ...")
    return tag(question, "base"), match[1] or "", match[2]


def _within_factor(score: Score, factor: float) -> bool:
    """Whether a length is off by less than ``factor``, which itself is too much."""
    return bool(score.ratio) and 1 / factor * (1 + 1e-9) < (score.ratio or 0) < factor * (1 - 1e-9)


def _abs_rel(scored: Sequence[Scored]) -> float:
    """Mean of |p - g| / (g + 1e-4), lengths in metres."""
    errors = []
    for question, score in scored:
        truth = question.value or 0.0
        errors.append(abs((score.ratio or 0.0) - 1) * truth / (truth + 1e-4))
    return math.fsum(errors) / len(errors)


def _quantity(question: Question) -> bool:
    return question.kind.endswith("_data") or question.kind == "direction"


def _family(question: Question) -> str | None:
    if _quantity(question):
        return question.kind.removesuffix("_data")
    return _FAMILY.get(question.kind.split("_")[0])


def _score_comparison(question: Question, text: str) -> Score:
    """The verdict on which of two regions, or whether the first, is at the end of a relation that the kind names."""
    end, _, form = question.kind.partition("_")
    regions = regions_in(question.text)
    if end not in OPPOSITES or form not in ("predicate", "choice"):
        raise ValueError(f"question {question.id!r}: {question.kind!r} is no category of SpatialRGPT-Bench")
    options = question.options or (
        _YES_NO if form == "predicate" else tuple(f"Region [{region}]" for region in regions)
    )
    truth = (
        options.index(question.answer) if question.answer in options else _pick(question.answer, options, end, regions)
    )
    if truth is None and form == "predicate" and _CONTRARY.match(plain(question.answer).strip()):
        truth = 1
    if truth is None:
        raise ValueError(f"question {question.id!r}: the answer {question.answer!r} picks none of {list(options)}")
    # "Region [0] is shorter than Region [1]" names the shorter one first even where the taller one was asked for; but an
    # answer that is called so, and a yes or no, outweigh what is said to explain them.
    explicit = form == "predicate" or _ANSWERED.search(plain(text))
    said = None if explicit else _by_relation(text, options, end, regions)
    if said is None and (score := score_choice(bracketed(text), options, truth)).parsed:
        return score
    said = _by_relation(text, options, end, regions) if said is None else said
    return unreadable() if said is None else Score(said == truth, True, None, "same relation", options[said])


def _pick(text: str, options: Sequence[str], end: str, regions: Sequence[str]) -> int | None:
    pick = extract_choice(text, options)
    return _by_relation(text, options, end, regions) if pick is None else pick


def _by_relation(text: str, options: Sequence[str], end: str, regions: Sequence[str]) -> int | None:
    """Index of the option that a stated relation amounts to: yes where the first region is at the end, or that region."""
    if len(regions) != 2 or len(options) != 2 or (said := read_relation(text, end, (regions[0], regions[1]))) is None:
        return None
    if tuple(options) == _YES_NO:
        return 0 if said == regions[0] else 1
    return next((index for index, option in enumerate(options) if regions_in(option) == (said,)), None)
