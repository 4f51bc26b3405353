"""Which of two regions the free text of a model puts at one end of a relation, e.g. which one it calls taller."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from spatial_lightning.evaluation.contrasts import without_denied
from spatial_lightning.evaluation.text import conclusions, final_answer, plain

_MORE, _LESS = r"(?:greater|larger|bigger|more|higher)", r"(?:lesser|smaller|less|lower)"
_AXES: tuple[Mapping[str, str], ...] = (
    {"left": r"left(?:most)?", "right": r"right(?:most)?"},
    {
        "above": r"above|higher|over|on\stop\sof|upper",
        "below": r"below|lower|under|beneath|underneath|not\sas\shigh",
    },
    {
        "front": r"in\sfront\sof|closer|nearer|less\sdistant|not\sas\sfar",
        "behind": r"behind|(?:further|farther)(?:\saway)?|more\sdistant|at\sthe\sback\sof|not\sas\s(?:close|near)",
    },
    {
        "tall": rf"taller|{_MORE}\s(?:in\s)?height|not\sas\sshort",
        "short": rf"shorter|{_LESS}\s(?:in\s)?height|not\sas\stall",
    },
    {
        "wide": rf"wider|broader|{_MORE}\s(?:in\s)?width|not\sas\s(?:thin|narrow)",
        "thin": rf"thinner|narrower|{_LESS}\s(?:in\s)?width|not\sas\swide",
    },
    {
        "big": rf"bigger|larger|{_MORE}\s(?:in\s)?size|not\sas\ssmall",
        "small": rf"smaller|{_LESS}\s(?:in\s)?size|not\sas\s(?:big|large)",
    },
)
OPPOSITES: Mapping[str, str] = MappingProxyType(
    {end: other for axis in _AXES for end, other in zip(axis, reversed(axis), strict=True)}
)
"""The other end of each relation that is understood."""
# A side of the picture is no relation between two regions, but a comparative says one even where it names one region.
_ALONE = ("tall", "short", "wide", "thin", "big", "small")


def _pattern(axis: Mapping[str, str]) -> re.Pattern[str]:
    ends = "|".join(f"(?P<{end}>{words})" for end, words in reversed(tuple(axis.items())))
    return re.compile(rf"\b(?:{ends})\b", re.IGNORECASE)


_ENDS = {end: _pattern(axis) for axis in _AXES for end in axis}
_REGION = re.compile(r"\bregion\s?\[?\s?(\d{1,3})\s?\]?", re.IGNORECASE)
# What these words are put before is what the sentence's subject is compared with.
_OBJECT = re.compile(
    r"\b(?:than|that\sof|between(?:\s(?:the\s)?region\s?\[?\d{1,3}\]?\s(?:and|or))?|compared\s(?:to|with)|relative\sto|of|to|from|over|above|below|under|beneath|underneath|behind)"
    r"\s(?:the\s)?$",
    re.IGNORECASE,
)
_NOT = re.compile(r"\b(?:not|isn't|doesn't|never)\b(?!\sas\b)", re.IGNORECASE)
_CUE = re.compile(r"\b(?:therefore|thus|hence|so|overall|in\sconclusion|answer(?:\sis\b|\s?:))", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?;\n]+")


def regions_in(text: str) -> tuple[str, ...]:
    """Numbers of the regions that ``text`` names as ``Region [k]``, each once, in order."""
    return tuple(dict.fromkeys(match[1] for match in _REGION.finditer(text)))


def bracketed(text: str) -> str:
    """``text`` with regions as the benchmark writes them: ``Region [1]`` for ``region 1``."""
    return _REGION.sub(r"Region [\1]", text)


def read_relation(text: str, end: str, regions: tuple[str, str]) -> str | None:
    """Number of the region that ``text`` puts at ``end`` of a relation; None where that cannot be decided.

    ``Region [1] is shorter than Region [0]`` puts Region [0] at ``tall``, and so does ``Region [1] is not taller``. The last
    conclusion that states the relation counts, else the first sentence that does.

    Args:
        end: one of :data:`OPPOSITES`, e.g. ``tall``.
        regions: the two that were asked about.

    Raises:
        ValueError: an unknown end, or ``text`` is no text.
    """
    if end not in OPPOSITES:
        raise ValueError(f"relation is {end!r}; allowed: {', '.join(OPPOSITES)}")
    text = final_answer(plain(text))
    for piece in _pieces(text):
        if (subject := _subject(piece, end, regions)) is not None:
            return subject
    return None


def _pieces(text: str) -> Iterator[str]:
    for start, stop in conclusions(text, _CUE):
        yield from _SENTENCE.findall(text[start:stop])
    yield from _SENTENCE.findall(text)


def _subject(sentence: str, end: str, regions: tuple[str, str]) -> str | None:
    """The region that one sentence puts at ``end``."""
    if _ENDS[end].search(corrected := without_denied(sentence)) and _REGION.search(corrected):
        sentence = corrected
    ends = {match.lastgroup for match in _ENDS[end].finditer(sentence)}
    named = [(match[1], _is_object(sentence, match.start())) for match in _REGION.finditer(sentence)]
    subjects = [region for region, is_object in named if not is_object]
    if len(ends) != 1 or not subjects or not {region for region, _ in named} <= set(regions):
        return None
    said = ends.pop()
    alone = len({region for region, _ in named}) == 1
    if said is None or (alone and said not in _ALONE):
        return None
    subject = subjects[0]
    other = regions[1] if subject == regions[0] else regions[0]
    if _NOT.search(sentence):
        # "Not taller" is taken as shorter where that was asked; what is merely not shorter may be equal.
        return other if said == end else None
    return subject if said == end else other


def _is_object(sentence: str, at: int) -> bool:
    """Whether what is named at ``at`` is what something else is compared with."""
    return _OBJECT.search(sentence, max(0, at - 48), at) is not None
