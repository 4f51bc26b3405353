"""What the wording of a published spatial question says: its family, the length it asks for, the options it leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping

from spatial_lightning.geometry import to_metres

OTHER = "other"
LENGTHS = ("distance", "horizontal_distance", "vertical_distance", "width", "height")
"""Families whose answer is one length."""

_AXES: Mapping[str, str] = {
    "left_right": r"(?:to|on|at) the (?:left|right)|(?:left|right) side|left of|right of|(?:further|farther|more) (?:left|right)",
    "wide_thin": r"wider|thinner|narrower|(?:greater|lesser|larger|smaller|more|less) width",
    "tall_short": r"taller|shorter|(?:greater|lesser|larger|smaller|more|less) height",
    "big_small": r"bigger|smaller(?! (?:width|height))|larger(?! (?:width|height))|(?:greater|lesser) size",
    "front_behind": r"behind|in front of|closer|nearer|further|farther|(?:more|less) distant|positioned before",
    "above_below": r"above|below|beneath|underneath|higher|lower|over|under",
}
_AXIS = {name: re.compile(rf"\b(?:{words})\b") for name, words in _AXES.items()}
_PREDICATE = re.compile(r"^(?:is|are|does|do|can you confirm)\b")
_CHOICE = re.compile(r"\b(?:which|who)\b")
_DIRECTION = re.compile(r"\bwhere will you find\b|\bo'?clock\b|\bwhat direction\b|\bwhich direction\b")
_DISTANCE = re.compile(r"\bhow (?:far|close|distant)\b|\bdistance\b|\bgap\b|\bhow much space is\b|\bapart\b")
_ACROSS, _UPRIGHT = re.compile(r"\bhorizontal(?:ly)?\b"), re.compile(r"\bvertical(?:ly)?\b|\bvericall\b")
_WIDTH = re.compile(r"\bwide\b|\bwidth\b|\bradius\b")
_HEIGHT = re.compile(r"\btall\b|\bheight\b|\bhow high\b")

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_UNITS: Mapping[str, str] = {
    "kilometre": r"kilomet(?:er|re)s?|km",
    "centimetre": r"centimet(?:er|re)s?|cm",
    "millimetre": r"millimet(?:er|re)s?|mm",
    "decimetre": r"decimet(?:er|re)s?|dm",
    "metre": r"met(?:er|re)s?|m",
    "foot": r"feet|foot|ft",
    # "2 in the picture" is no length.
    "inch": r"inch(?:es)?|in(?=\s*(?:[.,;:)<]|$|(?:wide|tall|high|long|deep|away|apart)\b))",
    "yard": r"yards?|yd",
    "mile": r"miles?",
}
# Areas and speeds are no lengths.
_UNIT = rf"(?:{'|'.join(_UNITS.values())})(?!\w)(?!\s*(?:/|\^|²|³|per\b|squared\b|cubed\b))"
_LENGTH = re.compile(
    rf"(?<![\w.,/-])(?P<number>{_NUMBER})[\s-]*(?P<unit>{_UNIT})"
    rf"(?:(?:\s+and)?\s+(?P<inches>{_NUMBER})[\s-]*(?:inch(?:es)?\b|in(?=[.,;:)]|$)))?",
    re.IGNORECASE,
)
_ANY_LENGTH = re.compile(rf"(?:{_NUMBER})[\s-]*{_UNIT}", re.IGNORECASE)
_RANGE = re.compile(r"(?:\d\s*(?:-|–|~|to|or)|\bbetween\s+[\w.,]+\s*(?:\w+\s+)?and|\d\s+and)\s*$", re.IGNORECASE)

_YES = re.compile(r"(?:yes|correct|indeed|true|that is (?:true|correct)|that's (?:true|correct))\b", re.IGNORECASE)
_NO = re.compile(r"(?:no|incorrect|false|that is (?:false|incorrect)|that's (?:false|incorrect))\b", re.IGNORECASE)
_CONTRARY = re.compile(r"(?:in fact|actually)\b", re.IGNORECASE)
_REGION = re.compile(r"Region \[\d+\]")


def spatial_kind(question: str) -> str:
    """Family of a question by its words, ``other`` where they fit none or several.

    Families are ``distance``, ``horizontal_distance``, ``vertical_distance``, ``width``, ``height``, ``direction``, and of
    comparisons ``left_right``, ``front_behind``, ``above_below``, ``tall_short``, ``wide_thin``, ``big_small``, with
    ``_choice`` behind where the question asks which of two.
    """
    text = question.strip().lower()
    if _DIRECTION.search(text):
        return "direction"
    closed = "" if _PREDICATE.match(text) else "_choice" if _CHOICE.search(text) else None
    if closed is not None:
        axes = [axis for axis, words in _AXIS.items() if words.search(text)]
        return axes[0] + closed if len(axes) == 1 else OTHER
    across, upright = _ACROSS.search(text), _UPRIGHT.search(text)
    if _DISTANCE.search(text):
        return "horizontal_distance" if across else "vertical_distance" if upright else "distance"
    if _WIDTH.search(text) or across:
        return "width"
    return "height" if _HEIGHT.search(text) or upright else OTHER


def one_length(answer: str) -> float | None:
    """The length in metres that an answer states; None where it states none, several or a range.

    Feet with inches are one length. Only digits are read: what is spelled out gives None.
    """
    found = list(_LENGTH.finditer(answer))
    if len(found) != 1 or _RANGE.search(answer[: found[0].start()]):
        return None
    match = found[0]
    if _ANY_LENGTH.search(answer, match.end()) or _ANY_LENGTH.search(answer[: match.start()]):
        return None
    unit = next(name for name, words in _UNITS.items() if re.fullmatch(words, match["unit"], re.IGNORECASE))
    if match["inches"] and unit != "foot":
        return None
    return to_metres(_value(match["number"]), unit) + to_metres(_value(match["inches"] or "0"), "inch")


def settle(kind: str, question: str, answer: str, *, short: bool) -> tuple[str, tuple[str, ...]]:
    """Answer and options of a comparison between regions.

    Args:
        kind: family by :func:`spatial_kind`.
        short: answer with the option itself instead of the published sentence. That sentence keeps its options only where
            it says which is meant; one that opens with ``In fact`` contradicts without saying no.

    Returns:
        The published answer without options where the question leaves none or the answer picks none.
    """
    options: tuple[str, ...] = ()
    truth = None
    if kind.endswith("_choice"):
        options = tuple(dict.fromkeys(_REGION.findall(question)))
        named = set(_REGION.findall(answer))
        if len(options) == 2 and len(named) == 1 and named <= set(options):
            truth = options.index(named.pop())
    elif kind in _AXES:
        options = ("yes", "no")
        truth = 0 if _YES.match(answer) else 1 if _NO.match(answer) or (short and _CONTRARY.match(answer)) else None
    if truth is None:
        return answer, ()
    return (options[truth] if short else answer), options


def _value(number: str) -> float:
    return float(number.replace(",", ""))
