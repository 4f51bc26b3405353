"""What a chain of thought states: statements as data, and the sentence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from spatial_lightning.synthesis.plans import POLES
from spatial_lightning.synthesis.wording import RELATIONS

POLE_AXIS: Mapping[str, str] = MappingProxyType(
    {pole: axis for axis, poles in POLES.items() for pole in (poles.low, poles.high)}
)
"""The axis on which a pole such as ``left`` or ``taller`` lies."""

HEDGES = frozenset(
    {"about", "approximately", "roughly", "around", "nearly", "almost"}
    | {"possibly", "perhaps", "maybe", "probably", "likely", "apparently", "seemingly"}
)
"""Words that make a statement less than certain."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An object, its attributes and its place: percent of the width and height, metres along the optical axis."""

    name: str
    attributes: tuple[str, ...]
    column: float | None = None
    row: float | None = None
    depth: float | None = None
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Also:
    """Further objects that are visible."""

    names: tuple[str, ...]
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One measured number of one object, metres.

    Attributes:
        pole: ``left``, ``right``, ``above`` or ``below`` of the image centre, in which case ``value`` is the distance
            from the optical axis; otherwise ``deep``, ``tall``, ``wide``, ``large`` or ``high`` (its underside).
    """

    name: str
    pole: str
    value: float
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Offset:
    """``name`` lies ``value`` metres in direction ``pole`` of ``other``."""

    name: str
    pole: str
    other: str
    value: float
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """``name`` is ``pole`` of (or ``pole`` than) ``other``."""

    name: str
    pole: str
    other: str
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """Pythagoras written out: terms, their squares, the sum and its root, all as displayed."""

    terms: tuple[float, ...]
    squares: tuple[float, ...]
    total: float
    root: float
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Length:
    """The distance that was asked for, metres."""

    value: float
    hedged: bool = False


@dataclass(frozen=True, slots=True)
class Final:
    """The final answer, as said."""

    answer: str
    hedged: bool = False


Statement = Seen | Also | Coordinate | Offset | Relation | Root | Length | Final

DIMENSIONS: Mapping[str, str] = MappingProxyType(
    {"deep": "deep", "tall": "tall", "wide": "wide", "large": "in size", "high": "off the ground"}
)
"""How the poles that are plain dimensions are said."""


def say(statement: Statement) -> str:
    """The sentence for a statement, without full stop; hedged statements are only read, never written."""
    match statement:
        case Seen(name, attributes, column, row, depth):
            place = f", {column:.0f}% across, {row:.0f}% down, {depth:.1f} meters deep" if column is not None else ""
            return f"The {name} is {' and '.join(attributes)}{place}"
        case Also(names):
            return "Also visible: " + ", ".join(f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names)
        case Coordinate(name, pole, value):
            where = DIMENSIONS.get(pole) or f"{RELATIONS[pole]} center"
            return f"The {name} is {value:.1f} meters {where}"
        case Offset(name, pole, other, value):
            return f"The {name} is {value:.1f} meters {RELATIONS[pole]} the {other}"
        case Relation(name, pole, other):
            return f"the {name} is {RELATIONS[pole]} the {other}"
        case Root(terms, squares, total, root):
            products = " + ".join(f"{term:.1f} * {term:.1f}" for term in terms)
            added = " + ".join(f"{square:.1f}" for square in squares)
            return f"{products} = {added} = {total:.1f}, whose root is {root:.1f}"
        case Length(value):
            return f"the distance is {value:.1f} meters"
        case Final(answer):
            return f"The final answer is {answer}"
