"""From text back to statements: reads chains of thought, whoever wrote them, and never fails on what it cannot read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spatial_lightning.geometry import to_metres
from spatial_lightning.records import DESCRIPTION, REASONING, Segment
from spatial_lightning.synthesis.rounding import UNIT_PATTERN
from spatial_lightning.synthesis.statements import (
    DIMENSIONS,
    HEDGES,
    Also,
    Coordinate,
    Final,
    Length,
    Offset,
    Relation,
    Root,
    Seen,
    Statement,
)
from spatial_lightning.synthesis.wording import RELATIONS

_POLE = {phrase: pole for pole, phrase in RELATIONS.items()} | {phrase: pole for pole, phrase in DIMENSIONS.items()}
_NAME = r"[a-z]+(?: [a-z]+){0,4}?"
_NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
_LENGTH = rf"({_NUMBER}) ?({UNIT_PATTERN})"
_PHRASE = "|".join(RELATIONS.values())

_HEDGE = re.compile(rf"\b(?:{'|'.join(sorted(HEDGES))})\b")
_STEP = re.compile(r"(?:#+ ?)?step (\d{1,3}) ?[:.,] ?")
_OPENING = re.compile(r"(?:in conclusion,? |so,? |therefore,? |thus,? )")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n+")
_TAG = re.compile(r"</?(?:description|reasoning)>", re.IGNORECASE)
_HEADING = re.compile(r"###[ \t]*description\b[ \t]*:?", re.IGNORECASE)
_STEP_STOP = re.compile(r"(step \d{1,3})\.(?=\s)", re.IGNORECASE)

_FINAL = re.compile(r"the final answer is:? (.{1,80})")
_RELATION = re.compile(rf"the ({_NAME}) is ({_PHRASE}) the ({_NAME})")
_OFFSET = re.compile(rf"the ({_NAME}) is {_LENGTH} ({_PHRASE}) the ({_NAME})")
_COORDINATE = re.compile(
    rf"the ({_NAME}) is {_LENGTH} (?:(left of|right of|above|below) cent(?:er|re)|({'|'.join(DIMENSIONS.values())}))"
)
_DISTANCE = re.compile(rf"the distance is {_LENGTH}")
_ROOT = re.compile(
    rf"({_NUMBER} \* {_NUMBER}(?: \+ {_NUMBER} \* {_NUMBER}){{0,4}}) = ({_NUMBER}(?: \+ {_NUMBER}){{0,4}}) = "
    rf"({_NUMBER}), whose root is ({_NUMBER})"
)
_SEEN = re.compile(rf"the ({_NAME}) is ([a-z]+(?: and [a-z]+){{0,4}})((?:, [^,]{{1,30}}){{0,4}})")
_PLACE = re.compile(rf"({_NUMBER})% (across|down)|{_LENGTH} deep")
_ALSO = re.compile(rf"also visible: ((?:an? {_NAME}(?:, |$))+)")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A response as far as the grammar understands it.

    Attributes:
        description, reasoning: statements in the order of the text; the final answer is not among them.
        description_sentences: number of sentences in the description, understood or not.
        reasoning_sentences: number of sentences in the reasoning, understood or not.
        steps: numbers of the steps, in the order of the text.
        final: what follows the last "The final answer is"; None where nothing does.
    """

    description: tuple[Statement, ...]
    reasoning: tuple[Statement, ...]
    description_sentences: int
    reasoning_sentences: int
    steps: tuple[int, ...]
    final: str | None


def segments(text: str) -> tuple[Segment, ...]:
    """Cut a response in description and reasoning; the spans tile the text.

    The description ends with ``</description>``, or where the section after ``### Description`` begins; everything
    after it, conclusion included, is reasoning (arXiv:2506.21656). Text without a description is all reasoning.
    """
    end = _description_end(text)
    spans = ((DESCRIPTION, 0, end), (REASONING, end, len(text)))
    return tuple(Segment(name, start, stop) for name, start, stop in spans if stop > start)


def parse_response(text: str) -> Parsed:
    """Read a response; sentences outside the grammar are counted and otherwise ignored."""
    end = _description_end(text)
    described = _sentences(text[:end])
    reasoned = _sentences(text[end:])
    steps: list[int] = []
    reasoning: list[Statement] = []
    final: str | None = None
    for sentence in reasoned:
        found = _STEP.match(sentence)
        if found:
            steps.append(int(found[1]))
            sentence = sentence[found.end() :]
        statement = parse_statement(sentence)
        if isinstance(statement, Final):
            final = statement.answer
        elif statement is not None:
            reasoning.append(statement)
    seen = (parse_statement(sentence) for sentence in described)
    description = tuple(statement for statement in seen if isinstance(statement, Seen | Also))
    return Parsed(description, tuple(reasoning), len(described), len(reasoned), tuple(steps), final)


def parse_statement(sentence: str) -> Statement | None:
    """The statement in one sentence (step number and full stop removed); None where the grammar has none."""
    plain, hedges = _HEDGE.subn("", sentence.lower())
    hedged = hedges > 0
    plain = " ".join(plain.split()).replace(" ,", ",").lstrip(", ")
    opening = _OPENING.match(plain)
    if opening:
        plain = plain[opening.end() :]
    if found := _FINAL.fullmatch(plain):
        return Final(found[1].strip(), hedged)
    if found := _RELATION.fullmatch(plain):
        return Relation(found[1], _POLE[found[2]], found[3], hedged)
    if found := _COORDINATE.fullmatch(plain):
        return Coordinate(found[1], _POLE[found[4] or found[5]], _metres(found[2], found[3]), hedged)
    if found := _OFFSET.fullmatch(plain):
        return Offset(found[1], _POLE[found[4]], found[5], _metres(found[2], found[3]), hedged)
    if found := _DISTANCE.fullmatch(plain):
        return Length(_metres(found[1], found[2]), hedged)
    if found := _ROOT.fullmatch(plain):
        terms = tuple(float(product.split(" * ")[0]) for product in found[1].split(" + "))
        squares = tuple(float(square) for square in found[2].split(" + "))
        return Root(terms, squares, float(found[3]), float(found[4]), hedged)
    if found := _ALSO.fullmatch(plain):
        return Also(tuple(item.split(" ", 1)[1] for item in found[1].split(", ")), hedged)
    if found := _SEEN.fullmatch(plain):
        return _seen(found[1], found[2], found[3], hedged)
    return None


def _seen(name: str, attributes: str, places: str, hedged: bool) -> Seen | None:
    values: dict[str, float] = {}
    for part in places.split(", ")[1:]:
        found = _PLACE.fullmatch(part)
        if not found:
            return None
        if found[2]:
            values["column" if found[2] == "across" else "row"] = float(found[1])
        else:
            values["depth"] = _metres(found[3], found[4])
    return Seen(name, tuple(attributes.split(" and ")), hedged=hedged, **values)


def _sentences(text: str) -> list[str]:
    plain = _STEP_STOP.sub(r"\1:", _HEADING.sub(" ", _TAG.sub(" ", text)))
    pieces = (" ".join(piece.lower().split()) for piece in _SENTENCE_END.split(plain))
    return [piece for piece in pieces if piece]


def _description_end(text: str) -> int:
    closing = text.lower().find("</description>")
    if closing >= 0:
        return closing + len("</description>")
    heading = _HEADING.match(text.lstrip())
    if not heading:
        return 0
    start = len(text) - len(text.lstrip()) + heading.end()
    following = text.find("###", start)
    return following if following >= 0 else len(text)


def _metres(number: str, unit: str) -> float:
    return to_metres(float(number), unit)
