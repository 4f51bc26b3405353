"""Lengths, angles and clock directions read out of the free text of a model."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from spatial_lightning.evaluation.contrasts import denied_at
from spatial_lightning.evaluation.number_words import AND_A_PART, PART, WHOLE, value_of, with_part
from spatial_lightning.evaluation.text import SMALL_NUMBERS, clip, conclusions, final_answer, plain

Kind = Literal["length", "angle", "clock"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured value.

    Attributes:
        kind: ``length``, ``angle`` or ``clock``.
        value: metres, degrees, or the hour of a clock direction in [1, 13): a range of hours gives half hours.
    """

    kind: Kind
    value: float


@dataclass(frozen=True, slots=True)
class _Unit:
    name: str
    kind: Kind
    factor: float
    pattern: str
    parts: tuple[str, ...] = ()


# An abbreviation "in" is an inch only where it cannot be the preposition ("there are 2 in the picture").
_INCH = r"inch(?:es)?|in(?=\s*(?:[.,;:)\]\"]|$|(?:x|by|wide|tall|high|long|deep|thick|away|apart)\b))"
_UNITS = (
    _Unit("km", "length", 1000.0, r"kilomet(?:er|re)s?|km", ("m",)),
    _Unit("cm", "length", 0.01, r"centimet(?:er|re)s?|cms?"),
    _Unit("mm", "length", 0.001, r"millimet(?:er|re)s?|mm"),
    _Unit("dm", "length", 0.1, r"decimet(?:er|re)s?|dm"),
    _Unit("m", "length", 1.0, r"met(?:er|re)s?|(?-i:m)", ("dm", "cm", "mm")),
    _Unit("in", "length", 0.0254, _INCH),
    _Unit("ft", "length", 0.3048, r"feet|foot|ft", ("in",)),
    _Unit("yd", "length", 0.9144, r"yards?|yds?", ("ft", "in")),
    _Unit("mi", "length", 1609.344, r"miles?"),
    _Unit("deg", "angle", 1.0, r"degrees?|deg|°"),
    _Unit("rad", "angle", math.degrees(1.0), r"radians?|rad"),
)
_MARKS = {"'": "ft", '"': "in", "''": "in", "in": "in"}
# Areas, speeds and temperatures are neither lengths nor angles.
_WORD_END = r"(?![\w^])(?!\s*(?:/|per\b|squared\b|cubed\b|celsius\b|fahrenheit\b|[CF]\b))"
_UNIT = rf"(?:(?:{'|'.join(unit.pattern for unit in _UNITS)}){_WORD_END}|''|'|\")"

_DIGITS = (
    r"(?<![\w.,/])(?>\d{1,12}\s+\d{1,3}/\d{1,3}|\d{1,3}/\d{1,3}|\d{1,3}(?:,\d{3}){1,4}(?:\.\d{1,12})?|"
    r"\d{1,12}(?:[.,]\d{1,12})?(?:e[+-]?\d{1,2})?|\.\d{1,12})"
)
_WORDS = (
    r"\b(?>(?:half\s+)?a\s+dozen|a\s+couple(?:\s+of)?|"
    rf"(?:{PART}|third)(?:\s+of)?(?:\s+an?\b)?|{WHOLE}|an?)\b"
)
_COUNTED = {"couple": 2.0, "dozen": 12.0, "half dozen": 6.0}
_NUMBER = rf"(?>(?:{_DIGITS}|{_WORDS})(?:{AND_A_PART})?)"
_HEDGE = r"(?:about|around|approximately|approx\.?|roughly|nearly|almost|maybe|perhaps|up\s+to)\s+"
_MEASURE = re.compile(
    rf"(?:(?P<between>between\s+)?(?P<low>{_NUMBER})\s*(?P<low_unit>{_UNIT})?"
    rf"\s*(?(between)(?:-|to\b|and\b)|(?:-|~|to\b|or\b))\s*(?:{_HEDGE})?)?"
    rf"(?P<number>{_NUMBER})\s*-?\s*(?P<unit>{_UNIT})(?P<more>\s+and\s+a\s+(?:half|quarter)\b)?",
    re.IGNORECASE,
)
_PART = re.compile(rf"\s*,?\s*(?:and\s+)?(?P<number>{_DIGITS})(?:\s*-?\s*(?P<unit>{_UNIT}))?", re.IGNORECASE)
_HOUR = rf"(?:1[0-2]|0?[1-9]|{'|'.join(list(SMALL_NUMBERS)[1:13])})"
_CLOCK = re.compile(
    rf"(?<![\w.,:])(?:(?P<low>{_HOUR})(?:\s*o\s?'?\s?clock)?\s*(?:-|to|or|and)\s*)?"
    rf"(?P<hour>{_HOUR})(?::00)?[\s-]*o\s?'?\s?clock\b",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"\b(?:answer(?:\s+is\b|\s*:)|therefore\b|thus\b|hence\b|in\s+conclusion\b|in\s+total\b)", re.IGNORECASE
)
_BEFORE_ARTICLE = re.compile(rf"(?:{_HEDGE}|\b(?:than|by|least|most|within|just|only)\s+)$", re.IGNORECASE)
_AFTER_ARTICLE = re.compile(r"\s+(?:wide|tall|high|long|deep|thick|away|apart|from|above|below)\b", re.IGNORECASE)
_SCALAR = re.compile(r"\\+scalar\s*\{([^{}]*)\}")
_DISTANCE_UNIT = re.compile(r"\\+distance[\s_\\]*unit\s*\{([^{}]*)\}")


def parse_quantity(text: str, kind: Kind | None = None) -> Quantity | None:
    r"""The quantity that ``text`` states, or None where it states none.

    Digits, fractions and number words are read with metric and imperial units, as are compounds (``5'11"``), ranges
    (their mean), clock directions (``3 o'clock``) and ``\scalar{..} \distance_unit{..}`` of Q-Spatial
    (arXiv:2409.09788). A number without a unit, a number of pixels, an area or a speed is no length. Only what follows
    ``the final answer is`` counts where that is written. Of several statements the first after the last ``therefore``
    or ``answer:`` counts, and without such a cue the first of all: explanations do not replace an answer before them.
    What is denied counts only where nothing else is stated (``not 3 m but 2 m``).

    Args:
        kind: read this kind only; None takes whatever is stated.

    Raises:
        ValueError: ``text`` is no text, e.g. None.
    """
    text = clip(text)
    scalars, units = _SCALAR.findall(text), _DISTANCE_UNIT.findall(text)
    if scalars and units and kind in (None, "length"):
        return _from_scalar(plain(scalars[-1]), plain(units[-1]))
    text = final_answer(plain(text))
    found = sorted([*_measures(text), *_clocks(text)], key=lambda entry: entry[0])
    found = [
        (at, end, quantity)
        for at, end, quantity in found
        if kind in (None, quantity.kind) and math.isfinite(quantity.value)
    ]
    found = [entry for entry in found if not denied_at(text, *entry[:2])] or found
    if not found:
        return None
    starts = [at for at, _, _ in found]
    for start, end in conclusions(text, _CUE):
        first = bisect_left(starts, start)
        if first < len(starts) and starts[first] < end:
            return found[first][2]
    return found[0][2]


def _measures(text: str) -> Iterator[tuple[int, int, Quantity]]:
    position = 0
    while match := _MEASURE.search(text, position):
        if not _plausible(text, match):
            position = match.start("number") + 1
            continue
        unit, position = _unit(match["unit"]), match.end()
        value = _number(match["number"])
        if match["more"]:
            value += 0.5 if match["more"].endswith("half") else 0.25
        value *= unit.factor
        if part := _part(text, match, unit, value):
            value, position = part
        if match["low"]:
            low_unit = _unit(match["low_unit"]) if match["low_unit"] else unit
            if low_unit.kind == unit.kind:
                value = (_number(match["low"]) * low_unit.factor + value) / 2
        yield match.start(), position, Quantity(unit.kind, value)


def _plausible(text: str, match: re.Match[str]) -> bool:
    """Whether number and unit belong together: ``a foot`` may be a body part, ``"Region 2"`` a quotation."""
    number, unit = match["number"].lower(), match["unit"]
    worded = not any(character.isdigit() for character in number)
    if worded and len(unit) <= 2:  # words go with whole words: "a m" and "one in" are no lengths
        return False
    if number in ("a", "an") and unit.lower() in ("foot", "yard", "degree"):
        before = text[max(0, match.start("number") - 24) : match.start("number")]
        return bool(match["more"] or _BEFORE_ARTICLE.search(before) or _AFTER_ARTICLE.match(text, match.end()))
    if unit in ("'", '"', "''"):
        return text.count(unit[0], 0, match.start("number")) % 2 == 0
    return True


def _part(text: str, match: re.Match[str], unit: _Unit, value: float) -> tuple[float, int] | None:
    """Value in metres and end of a compound such as ``5 feet 11 inches``; None where no smaller unit follows."""
    part = _PART.match(text, match.end()) if unit.parts and not match["more"] else None
    if part is None or not math.isfinite(value) or abs(value / unit.factor - round(value / unit.factor)) > 1e-9:
        return None
    if part["unit"]:
        smaller = _unit(part["unit"])
    elif match["unit"] == "'":
        smaller = _unit('"')
    else:
        return None
    extra = _number(part["number"]) * smaller.factor
    if smaller.name not in unit.parts or extra >= unit.factor:
        return None
    return value + extra, part.end()


def _clocks(text: str) -> Iterator[tuple[int, int, Quantity]]:
    for match in _CLOCK.finditer(text):
        hour = float(_hour(match["hour"]))
        if match["low"]:
            low = float(_hour(match["low"]))
            hour = low + ((hour - low) % 12) / 2
            hour = hour - 12 if hour >= 13 else hour
        yield match.start(), match.end(), Quantity("clock", hour)


def _from_scalar(number: str, unit: str) -> Quantity | None:
    values = [_number(match) for match in re.findall(_DIGITS, number)]
    match = re.fullmatch(_UNIT, unit.strip().rstrip("."), re.IGNORECASE)
    if not values or match is None or _unit(match[0]).kind != "length":
        return None
    value = sum(values) / len(values) * _unit(match[0]).factor
    return Quantity("length", value) if math.isfinite(value) else None


def _unit(text: str) -> _Unit:
    """The unit whose pattern ``text`` matches; ``text`` was matched by one of them."""
    name = _MARKS.get(text.lower())
    return next(unit for unit in _UNITS if unit.name == name or re.fullmatch(unit.pattern, text, re.IGNORECASE))


def _hour(text: str) -> int:
    return SMALL_NUMBERS[text.lower()] if text.lower() in SMALL_NUMBERS else int(text)


def _number(text: str) -> float:
    """The value of digits, a fraction or number words; nan where a fraction divides by zero."""
    text = text.lower().strip()
    text, part = with_part(text)
    if part:
        return _number(text) + part
    if "/" in text:
        *whole, fraction = text.split()
        above, below = fraction.split("/")
        return float(whole[0] if whole else 0) + (float(above) / float(below) if float(below) else math.nan)
    if any(character.isdigit() for character in text):
        thousands = re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", text)
        return float(text.replace(",", "") if thousands else text.replace(",", "."))
    counted = " ".join(word for word in text.split() if word not in ("a", "of"))
    return _COUNTED[counted] if counted in _COUNTED else value_of(text)
