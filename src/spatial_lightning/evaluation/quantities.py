"""Lengths, angles and clock directions read out of the free text of a model."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from spatial_lightning.evaluation.contrasts import denied_at
from spatial_lightning.evaluation.number_words import DIGITS, NUMBER, number, signs_kept
from spatial_lightning.evaluation.text import SMALL_NUMBERS, clip, conclusions, final_answer, plain
from spatial_lightning.evaluation.units import HEDGE, UNIT, Kind, Unit, one_form, unit_of


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured value.

    Attributes:
        kind: ``length``, ``angle`` or ``clock``.
        value: metres, degrees, or the hour of a clock direction in [1, 13): ranges and minutes give parts of it.
    """

    kind: Kind
    value: float


_MEASURE = re.compile(
    rf"(?:(?P<between>between\s+)?(?P<low>{NUMBER})\s*(?P<low_unit>{UNIT})?"
    rf"\s*(?(between)(?:-|to\b|and\b)|(?:-|~|to\b|or\b))\s*(?:{HEDGE})?)?"
    rf"(?P<number>{NUMBER})\s*-?\s*(?P<unit>{UNIT})(?P<more>\s+and\s+a\s+(?:half|quarter)\b)?",
    re.IGNORECASE,
)
_PART = re.compile(
    rf"(?P<gap>\.?\s*[,-]?\s*(?:and\s+)?)(?P<number>{DIGITS})(?:\s*-?\s*(?P<unit>{UNIT}))?", re.IGNORECASE
)
_HOUR = rf"(?:1[0-2]|0?[1-9]|{'|'.join(list(SMALL_NUMBERS)[1:13])})"
_TIME = rf"{_HOUR}(?::[0-5]\d)?"
_OCLOCK = r"[\s-]*o\s?'?\s?clock\b"
_CLOCK = re.compile(
    rf"(?<![\w.,:])(?:(?P<low>{_TIME})(?:{_OCLOCK})?\s*(?:-|to|or|and)\s*)?(?P<hour>{_TIME}){_OCLOCK}", re.IGNORECASE
)
_DIAL = re.compile(
    rf"(?<![\w'])(?<!\bo )clock(?:\s+face)?\s+(?:position|direction|hour)\s*(?:is|of|at|[:=-])?\s*(?:{HEDGE})?"
    rf"(?P<hour>{_TIME})(?![\w:]|[.,]\d|{_OCLOCK}|\s*(?:-|to\b|or\b|and\b)\s*{_HOUR}\b|\s*-?\s*{UNIT})",
    re.IGNORECASE,
)
_DIAL_TIME = re.compile(
    r"(?<![\w.,:])(?:(?P<low>(?:1[0-2]|0?[1-9]):[0-5]\d)\s*(?:-|to|or|and)\s*)?(?P<hour>(?:1[0-2]|0?[1-9]):[0-5]\d)"
    rf"(?![\w:]|\s?[ap]\.?m\b|{_OCLOCK})(?P<named>\s+(?:position|direction)\b)?",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"\b(?:answer(?:\s+is\b|\s*:)|therefore\b|thus\b|hence\b|in\s+conclusion\b|in\s+total\b)", re.IGNORECASE
)
_STEP = re.compile(
    rf",\s*so\s+(?=(?:the|it)\b|that(?:'s|\s(?:is|makes|gives|leaves|means))\b|(?:{HEDGE})?\d)|(?:^|(?<=[.!?]\s)|(?<=\n))So\b|"
    # The result of a sum; a mere conversion (1 m = 3.28 ft) has no other sign.
    r"\d[^\n=≈+×÷/-]{0,30}(?:[+×÷/]|\s-\s)[^\n=≈]{0,80}[=≈]"
    rf"(?=\s?(?:{HEDGE})?\d[\d.,]{{0,12}}\s?{UNIT})",
    re.IGNORECASE,
)
_EXPLANATION = re.compile(
    r"\bhere(?:'s|\s+is)\s+(?:how|why|the|my|a)\b|\b(?:reasoning|explanation|rationale|justification|calculation)s?\s?:",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^[-#> ]*(?:(?:the|my|estimated|approximate|approx\.?|overall|total|final|calculated|horizontal|vertical|actual) ){0,3}"
    r"(?:distance|height|width|length|depth|size|thickness|diameter|separation|gap|clearance|estimate|result|angle)\b"
    r"[^\n:=≈]{0,60}[:=≈]",
    re.IGNORECASE | re.MULTILINE,
)
_BEFORE_ARTICLE = re.compile(rf"(?:{HEDGE}|\b(?:than|by|least|most|within|just|only)\s+)$", re.IGNORECASE)
_AFTER_ARTICLE = re.compile(r"\s+(?:wide|tall|high|long|deep|thick|away|apart|from|above|below)\b", re.IGNORECASE)
_SCALAR = re.compile(r"\\+scalar\s*\{([^{}]*)\}")
_DISTANCE_UNIT = re.compile(r"\\+distance[\s_\\]*unit\s*\{([^{}]*)\}")


def parse_quantity(text: str, kind: Kind | None = None) -> Quantity | None:
    r"""The quantity that ``text`` states, or None where it states none.

    Digits, fractions and number words are read with metric and imperial units, as are compounds (``5'11"``), ranges
    (their mean), clock directions (``3 o'clock``), JSON objects with a ``unit``, and
    ``\scalar{..} \distance_unit{..}`` of Q-Spatial (arXiv:2409.09788). A number without a unit, a number of pixels, an
    area or a speed is no length. ``2:00`` is a direction where one is asked for or named, and as a full hour on its own.
    Only what follows ``the final answer is`` counts where that is written. Of several statements the first after the
    last conclusion counts, and without one the first of all: explanations do not replace an answer before them.
    Conclusions are ``therefore`` and ``answer:``; before any explanation of an answer also a clause with ``so``, the
    result of a sum, and a last line that alone is labelled (``Distance: 4 m``). What is denied counts only where nothing
    else is stated (``not 3 m but 2 m``).

    Args:
        kind: read this kind only; None takes whatever is stated.

    Raises:
        ValueError: ``text`` is no text, e.g. None.
    """
    text = signs_kept(clip(text))
    scalars, units = _SCALAR.findall(text), _DISTANCE_UNIT.findall(text)
    if scalars and units and kind in (None, "length"):
        return _from_scalar(plain(scalars[-1]), plain(units[-1]))
    text = one_form(clip(final_answer(plain(text))))  # fractions of one character grow to four
    found = sorted([*_measures(text), *_clocks(text, kind)], key=lambda entry: entry[0])
    found = [
        (at, end, quantity)
        for at, end, quantity in found
        if kind in (None, quantity.kind) and math.isfinite(quantity.value)
    ]
    found = [entry for entry in found if not denied_at(text, *entry[:2])] or found
    if not found:
        return None
    starts = [at for at, _, _ in found]
    explained = _explanation(text, *found[0][:2])
    steps = [span for span in chain(conclusions(text, _STEP), _closing_line(text)) if span[0] <= explained]
    for start, end in sorted([*conclusions(text, _CUE), *steps], reverse=True):
        first = bisect_left(starts, start)
        if first < len(starts) and starts[first] < end:
            return found[first][2]
    return found[0][2]


def _explanation(text: str, start: int, end: int) -> int:
    """Where the explanation of an answer begins at the latest: on the next line where the text opens with the answer."""
    opens = re.search(r"\w", re.sub(HEDGE, "", text[:start][-80:], flags=re.IGNORECASE)) is None
    line = text.find("\n", end) if opens and not re.match(r"\s?[+×÷/=≈-]", text[end : end + 2]) else -1
    match = _EXPLANATION.search(text, end)
    return min(at for at in (line, match.start() if match else -1, len(text)) if at >= 0)


def _closing_line(text: str) -> Iterator[tuple[int, int]]:
    """Span behind the label of the last line, where lines precede it of which none has a label."""
    labels = list(islice(_LABEL.finditer(text), 2))
    if len(labels) == 1 and text[: labels[0].start()].strip() and "\n" not in text[labels[0].end() :].rstrip():
        yield labels[0].end(), len(text)


def _measures(text: str) -> Iterator[tuple[int, int, Quantity]]:
    position, quoted = 0, {mark: _quotations(text, mark) for mark in "'\""}
    while match := _MEASURE.search(text, position):
        if not _plausible(text, match, quoted):
            position = match.start("number") + 1
            continue
        unit, position = unit_of(match["unit"]), match.end()
        value = number(match["number"])
        if match["more"]:
            value += 0.5 if match["more"].endswith("half") else 0.25
        value *= unit.factor
        if part := _part(text, match, unit, value):
            value, position = part
        if match["low"]:
            low_unit = unit_of(match["low_unit"]) if match["low_unit"] else unit
            low = number(match["low"]) * low_unit.factor
            joint = text[match.end("low_unit") : match.start("number")].strip() if match["low_unit"] else ""
            if (
                joint == "-"
                and low_unit.name in ("ft", "yd")
                and unit.name in low_unit.parts
                and value < low_unit.factor
            ):
                value += low  # 5'-11" is no range
            elif low_unit.kind == unit.kind:
                value = (low + value) / 2
        yield match.start(), position, Quantity(unit.kind, value)


def _quotations(text: str, mark: str) -> list[int]:
    """Where quotations open and close in turn; marks of feet and inches behind a digit and apostrophes do neither."""
    turns: list[int] = []
    for match in re.finditer(mark, text):
        before, after = text[max(0, match.start() - 1) : match.start()], text[match.end() : match.end() + 1]
        if len(turns) % 2:
            turn = mark == '"' or not after.isalnum()
        else:
            turn = after.strip() != "" and not (before.isdigit() if mark == '"' else before.isalnum() or before == mark)
        if turn:
            turns.append(match.start())
    return turns


def _plausible(text: str, match: re.Match[str], quoted: dict[str, list[int]]) -> bool:
    """Whether number and unit belong together: ``a foot`` may be a body part, ``"Region 2"`` a quotation."""
    amount, unit = match["number"].lower(), match["unit"]
    worded = not any(character.isdigit() for character in amount)
    if worded and len(unit) <= 2:  # words go with whole words: "a m" and "one in" are no lengths
        return False
    if amount in ("a", "an") and unit.lower() in ("foot", "yard", "degree"):
        if _alone(text, match.start("number"), match.end()):
            return True
        before = text[max(0, match.start("number") - 24) : match.start("number")]
        return bool(match["more"] or _BEFORE_ARTICLE.search(before) or _AFTER_ARTICLE.match(text, match.end()))
    if unit in ("'", '"', "''"):
        return bisect_right(quoted[unit[0]], match.start("number")) % 2 == 0
    return True


def _alone(text: str, start: int, end: int) -> bool:
    return len(text) < 40 and re.search(r"\w", text[:start] + text[end:]) is None


def _part(text: str, match: re.Match[str], unit: Unit, value: float) -> tuple[float, int] | None:
    """Value in metres and end of a compound such as ``5 feet 11 inches``; None where no smaller unit follows."""
    part = _PART.match(text, match.end()) if unit.parts and not match["more"] else None
    if part is None or not math.isfinite(value) or abs(value / unit.factor - round(value / unit.factor)) > 1e-9:
        return None
    if part["unit"]:
        smaller = unit_of(part["unit"])
    elif (match["unit"] == "'" and "." not in part["gap"]) or (unit.name == "ft" and part["gap"] == "-"):
        smaller = unit_of('"')
    else:
        return None
    extra = number(part["number"]) * smaller.factor
    if smaller.name not in unit.parts or extra >= unit.factor:
        return None
    return value + extra, part.end()


def _clocks(text: str, kind: Kind | None) -> Iterator[tuple[int, int, Quantity]]:
    for match in chain(_CLOCK.finditer(text), _DIAL.finditer(text), _DIAL_TIME.finditer(text)):
        hour, groups = _hour(match["hour"]), match.groupdict()
        asked = match.re is not _DIAL_TIME or kind == "clock" or match["named"]
        # On its own 2:00 answers where something is; 12:30 tells the time.
        if not asked and (hour % 1 or not _alone(text, match.start(), match.end())):
            continue
        if groups.get("low"):
            low = _hour(match["low"])
            hour = low + ((hour - low) % 12) / 2
            hour = hour - 12 if hour >= 13 else hour
        yield match.start(), match.end(), Quantity("clock", hour)


def _from_scalar(digits: str, unit: str) -> Quantity | None:
    values = [number(match) for match in re.findall(DIGITS, digits)]
    match = re.fullmatch(UNIT, unit.strip().rstrip("."), re.IGNORECASE)
    if not values or match is None or unit_of(match[0]).kind != "length":
        return None
    value = sum(values) / len(values) * unit_of(match[0]).factor
    return Quantity("length", value) if math.isfinite(value) else None


def _hour(text: str) -> float:
    hour, _, minutes = text.lower().partition(":")
    return (SMALL_NUMBERS[hour] if hour in SMALL_NUMBERS else int(hour)) + int(minutes or 0) / 60
