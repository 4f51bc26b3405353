"""How true each statement is: statements of a response compared with the exact scene, each to a value in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from spatial_lightning.geometry import RELATION_MARGIN
from spatial_lightning.records import Question
from spatial_lightning.synthesis.facts import DIRECTION_AXES, SceneFacts
from spatial_lightning.synthesis.plans import POLES, split_kind
from spatial_lightning.synthesis.statements import (
    POLE_AXIS,
    Also,
    Coordinate,
    Length,
    Offset,
    Relation,
    Seen,
    Statement,
)

LENGTH_TOLERANCE = 0.12
"""Metres within which a stated length is fully true: one decimal, and the accuracy of CLEVR's own pixel coordinates."""
LENGTH_RELATIVE_TOLERANCE = 0.05
PERCENT_TOLERANCE = 2.0
PERCENT_LIMIT = 20.0

_DISTANCE = "distance"
_DISTANCE_AXES = {
    "distance": {*DIRECTION_AXES, _DISTANCE},
    "horizontal_distance": {"left_right", "front_behind", _DISTANCE},
    "vertical_distance": {"above_below", _DISTANCE},
    "camera_distance": {*DIRECTION_AXES, _DISTANCE},
}
AXIS_OF: Mapping[str, str] = MappingProxyType(
    {
        **POLE_AXIS,
        "deep": "front_behind",
        "high": "above_below",
        "tall": "tall_short",
        "wide": "wide_thin",
        "large": "big_small",
    }
)
"""The axis of every pole a statement can have."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One spatial statement, judged.

    Attributes:
        value: how true it is, in [0, 1].
        asked: whether it concerns what the question asks; auxiliary otherwise.
        hedged: whether it was stated with reservation.
    """

    value: float
    asked: bool
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question is about: the objects it names, the axes on which its answer rests, a true length in metres."""

    objects: tuple[int, ...]
    axes: frozenset[str]
    length: float | None = None

    @classmethod
    def of(cls, question: Question, facts: SceneFacts) -> Asked:
        """Read the objects from the question's text and the axes from its kind."""
        return cls(
            _objects_in(question.text.lower(), facts),
            frozenset(_DISTANCE_AXES.get(question.kind, {split_kind(question.kind)[0]})),
            question.value,
        )

    def concerns(self, axis: str, *objects: int | None) -> bool:
        """Whether a statement about these objects along this axis bears on the answer."""
        return axis in self.axes and all(index in self.objects for index in objects)


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a description says is there.

    Attributes:
        exists: 1 for every mentioned object that exists, 0 for every other; two mentions need two objects.
        attributes: 1 for every stated attribute that is true, 0 for every other.
        described: objects whose attributes are stated.
    """

    exists: tuple[float, ...]
    attributes: tuple[float, ...]
    described: frozenset[int]


def resolve(name: str, facts: SceneFacts) -> int | None:
    """The object a name means: the only one that has all of its words; None where there is none, or several."""
    found = _matching(name, facts)
    return found[0] if len(found) == 1 else None


def judge_mentions(description: Sequence[Statement], facts: SceneFacts) -> Mentions:
    """Which of the mentioned objects and attributes exist in the scene."""
    seen = [statement for statement in description if isinstance(statement, Seen)]
    also = [name for statement in description if isinstance(statement, Also) for name in statement.names]
    free = set(range(len(facts.words)))
    exists: list[float] = []
    for name in (*(statement.name for statement in seen), *also):
        match = next((index for index in _matching(name, facts) if index in free), None)
        exists.append(float(match is not None))
        free.discard(-1 if match is None else match)
    attributes: list[float] = []
    described: set[int] = set()
    for statement in seen:
        index = resolve(statement.name, facts)
        words = frozenset() if index is None else facts.words[index]
        attributes += [float(attribute in words) for attribute in statement.attributes]
        if index is not None and statement.attributes:
            described.add(index)
    return Mentions(tuple(exists), tuple(attributes), frozenset(described))


def judge(statement: Statement, facts: SceneFacts, asked: Asked) -> list[Evidence]:
    """The spatial statements in one sentence, judged; a place in the picture counts as three.

    Lengths are fully true within 0.12 m or 5 % and lose value in proportion up to 0.5 m or 50 %; places in the picture
    within 2 % and up to 20 % of its width or height; relations are true or false.
    """
    match statement:
        case Seen():
            return _judge_place(statement, facts, asked)
        case Coordinate(name, pole, value, hedged):
            index = resolve(name, facts)
            axis = AXIS_OF[pole]
            true = 0.0 if index is None else grade_length(_signed(pole, value), _coordinate(facts, pole, index))
            return [Evidence(true, asked.concerns(axis, index), hedged)]
        case Offset(name, pole, other, value, hedged):
            return [_judge_pair(name, pole, other, value, hedged, facts, asked)]
        case Relation(name, pole, other, hedged):
            return [_judge_pair(name, pole, other, None, hedged, facts, asked)]
        case Length(value, hedged):
            true = 0.0 if asked.length is None else grade_length(value, asked.length)
            return [Evidence(true, _DISTANCE in asked.axes, hedged)]
        case _:
            return []


def grade_length(stated: float, true: float) -> float:
    """How true a stated length (metres, signed along its axis) is, in [0, 1]."""
    full = max(LENGTH_TOLERANCE, LENGTH_RELATIVE_TOLERANCE * abs(true))
    none = max(0.5, 0.5 * abs(true))
    return _ramp(abs(stated - true), full, none)


def grade_percent(stated: float, true: float) -> float:
    """How true a stated place in percent of the picture is, in [0, 1]."""
    return _ramp(abs(stated - true), PERCENT_TOLERANCE, PERCENT_LIMIT)


def _judge_place(seen: Seen, facts: SceneFacts, asked: Asked) -> list[Evidence]:
    index = resolve(seen.name, facts)
    places = (("left_right", seen.column), ("above_below", seen.row), ("front_behind", seen.depth))
    evidence: list[Evidence] = []
    for axis, stated in places:
        if stated is None:
            continue
        if index is None:
            value = 0.0
        elif axis == "front_behind":
            value = grade_length(stated, facts.camera[index][2])
        else:
            value = grade_percent(stated, facts.image[index][0 if axis == "left_right" else 1])
        evidence.append(Evidence(value, asked.concerns(axis, index), seen.hedged))
    return evidence


def _judge_pair(
    name: str, pole: str, other: str, stated: float | None, hedged: bool, facts: SceneFacts, asked: Asked
) -> Evidence:
    a, b, axis = resolve(name, facts), resolve(other, facts), AXIS_OF[pole]
    if a is None or b is None or a == b:
        return Evidence(0.0, False, hedged)
    if stated is None:
        value = float(holds(facts, a, pole, b))
    else:
        offset = facts.center_offset(axis, b, a) if axis in DIRECTION_AXES else facts.offset(axis, b, a)
        value = grade_length(stated, offset if pole == POLES[axis].high else -offset)
    return Evidence(value, asked.concerns(axis, a, b), hedged)


def holds(facts: SceneFacts, a: int, pole: str, b: int) -> bool:
    """Whether ``a`` is ``pole`` of (or than) ``b``: by CLEVR's 0.2 m for directions, a clear difference for sizes."""
    axis = AXIS_OF[pole]
    more = facts.offset(axis, b, a) if pole == POLES[axis].high else facts.offset(axis, a, b)
    return more > RELATION_MARGIN if axis in DIRECTION_AXES else more > 0 and facts.is_clear(axis, a, b)


def _objects_in(text: str, facts: SceneFacts) -> tuple[int, ...]:
    words = [word.strip(".,?!") for word in text.split()]
    found: list[int] = []
    for start, word in enumerate(words):
        if word != "the":
            continue
        # Longest name first: "large red cube" may be one object while "red cube" is two.
        names = (" ".join(words[start + 1 : start + 1 + length]) for length in (4, 3, 2, 1))
        index = next((i for i in (resolve(name, facts) for name in names if name) if i is not None), None)
        if index is not None and index not in found:
            found.append(index)
    return tuple(found)


def _matching(name: str, facts: SceneFacts) -> list[int]:
    words = frozenset(name.split())
    return [index for index, known in enumerate(facts.words) if words <= known]


def _coordinate(facts: SceneFacts, pole: str, index: int) -> float:
    x, y, depth = facts.camera[index]
    match pole:
        case "left" | "right":
            return x
        case "above" | "below":
            return -y
        case "deep":
            return depth
        case _:
            return facts.along[AXIS_OF[pole]][index]


def _signed(pole: str, value: float) -> float:
    return -value if pole in ("left", "below") else value


def _ramp(error: float, full: float, none: float) -> float:
    return 1.0 if error <= full else max(0.0, (none - error) / (none - full))
