"""Units of length and angle, and the forms in which models write them: words, marks, TeX, JSON and Chinese."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from spatial_lightning.evaluation.number_words import DIGITS, written_out

Kind = Literal["length", "angle", "clock"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: ``factor`` metres or degrees, and the smaller units that compounds add to it (``5 feet 11 inches``)."""

    name: str
    kind: Kind
    factor: float
    pattern: str
    parts: tuple[str, ...] = ()


HEDGE = r"(?:about|around|approximately|approx\.?|roughly|nearly|almost|maybe|perhaps|up\s+to)\s+"
"""Pattern of a word that makes a number an estimate."""
# An abbreviation "in" is an inch only where it cannot be the preposition ("there are 2 in the picture").
_INCH = (
    r"inch(?:es)?|in(?=\s*(?:[.,;:)\]\"]|$|"
    r"(?:x|by|wide|tall|high|long|deep|thick|away|apart|from|above|below|across|off|or\s+so)\b|"
    rf"(?:\(\s?|-\s?|(?:to|and|or)\s+)(?:{HEDGE})?\d[\d.,/]*[\s-]*(?:in|inch(?:es)?|f(?:ee|oo)?t|[cm]?m)\b))"
)
_UNITS = (
    Unit("km", "length", 1000.0, r"kilomet(?:er|re)s?|km", ("m",)),
    Unit("cm", "length", 0.01, r"centimet(?:er|re)s?|centimètres?|centímetros?|cms?"),
    Unit("mm", "length", 0.001, r"millimet(?:er|re)s?|mm"),
    Unit("dm", "length", 0.1, r"decimet(?:er|re)s?|dm"),
    Unit("m", "length", 1.0, r"met(?:er|re)s?|mètres?|metros|(?-i:m)", ("dm", "cm", "mm")),
    Unit("in", "length", 0.0254, _INCH),
    Unit("ft", "length", 0.3048, r"feet|foot|ft", ("in",)),
    Unit("yd", "length", 0.9144, r"yards?|yds?", ("ft", "in")),
    Unit("mi", "length", 1609.344, r"miles?"),
    Unit("deg", "angle", 1.0, r"degrees?|deg|°"),
    Unit("rad", "angle", math.degrees(1.0), r"radians?|rad"),
)
_MARKS = {"'": "ft", '"': "in", "''": "in", "in": "in"}
# Areas, speeds and temperatures are neither lengths nor angles.
_WORD_END = r"(?![\w^])(?!\s*(?:/|per\b|squared\b|cubed\b|celsius\b|fahrenheit\b|[CF]\b))"
# "Region 2's cup" has no foot mark, 5'x6' has two.
UNIT = rf"(?:(?:{'|'.join(unit.pattern for unit in _UNITS)}){_WORD_END}|''|'(?!(?!x\s?\d)[^\W\d_])|\")"
"""Pattern of a unit; :func:`unit_of` tells which."""
_OBJECT = re.compile(r"\{[^{}]{1,400}\}")
_TEX_UNIT = re.compile(r"\\(?:SI|qty)\s?(?:\[[^\[\]]{0,40}\])?\s?\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}")
_BRACKETS = re.compile(
    rf"(^|[:=≈]|\b(?:is|be|{HEDGE}))\s?[(\[]\s?({DIGITS})\s?[)\]](?=\s?[a-z°])(?=\s?{UNIT})", re.IGNORECASE
)
# Compounds written as one word: 3ft6in, 1m20cm.
_GLUED = re.compile(rf"(?<=\d)(\s?(?:ft|feet|yd|m))(?=\d{{1,3}}(?:\.\d{{1,3}})?\s?{UNIT})", re.IGNORECASE)
_CHINESE = {
    **{"千米": "km", "公里": "km", "厘米": "cm", "公分": "cm", "毫米": "mm", "分米": "dm", "米": "m", "公尺": "m"},
    **{"英尺": "ft", "英寸": "inch", "度": "deg"},
}
_CHINESE_UNIT = re.compile(rf"(?<=\d)\s?(?:{'|'.join(_CHINESE)})|(?<=[一-鿿])(?=\d)")


@lru_cache(maxsize=1024)
def unit_of(text: str) -> Unit:
    """The unit whose pattern ``text`` matches; ``text`` was matched by one of them."""
    name = _MARKS.get(text.lower())
    return next(unit for unit in _UNITS if unit.name == name or re.fullmatch(unit.pattern, text, re.IGNORECASE))


def one_form(text: str) -> str:
    """Plain ``text`` with numbers and units as the patterns here have them."""
    text = _TEX_UNIT.sub(lambda match: match[1] + " " + match[2].replace("\\", ""), text)
    text = _OBJECT.sub(_from_object, text)
    text = _CHINESE_UNIT.sub(lambda match: f"{_CHINESE.get(match[0].strip(), '')} ", written_out(text))
    return _GLUED.sub(r"\1 ", _BRACKETS.sub(r"\1 \2", text))


def _from_object(match: re.Match[str]) -> str:
    """``2.5 m`` of a JSON object with one number and a unit; any other text in braces as it is."""
    try:
        entries = {str(name).lower(): entry for name, entry in json.loads(match[0]).items()}
    except ValueError:
        return match[0]
    unit = entries.get("unit", entries.get("units"))
    numbers = [entry for entry in entries.values() if type(entry) in (int, float)]
    return f" {numbers[0]} {unit} " if isinstance(unit, str) and len(numbers) == 1 else match[0]
