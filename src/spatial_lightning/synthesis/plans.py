"""What to ask of a scene: SpatialVLM's question kinds, how often each is drawn, and questions as data, unworded."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from spatial_lightning.synthesis.facts import AXES, SceneFacts

Item = TypeVar("Item")

PREDICATE, CHOICE, CLASSIFY, QUANTITY = "predicate", "choice", "classify", "quantity"


@dataclass(frozen=True, slots=True)
class Poles:
    """The two ends of an axis: ``low`` for the object with less of it, ``high`` for the one with more."""

    low: str
    high: str

    def other(self, pole: str) -> str:
        """The opposite end."""
        return self.low if pole == self.high else self.high


POLES: Mapping[str, Poles] = MappingProxyType(
    {
        "left_right": Poles("left", "right"),
        "front_behind": Poles("front", "behind"),
        "above_below": Poles("below", "above"),
        "tall_short": Poles("shorter", "taller"),
        "wide_thin": Poles("thinner", "wider"),
        "big_small": Poles("smaller", "bigger"),
    }
)

WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "left_right": 8,
        "front_behind": 6,
        "above_below": 8,
        "tall_short": 4,
        "wide_thin": 4,
        "big_small": 2,
        "left_right_choice": 4,
        "front_behind_choice": 4,
        "above_below_choice": 4,
        "tall_short_choice": 2,
        "wide_thin_choice": 2,
        "big_small_choice": 2,
        "left_right_classify": 3,
        "front_behind_classify": 2,
        "above_below_classify": 3,
        "tall_short_classify": 2,
        "wide_thin_classify": 2,
        "big_small_classify": 1,
        "distance": 4,
        "horizontal_distance": 2,
        "vertical_distance": 2,
        "left_right_offset": 2,
        "front_behind_offset": 2,
        "width": 1,
        "height": 1,
        "camera_distance": 2,
    }
)
"""Weight of each kind; the sums of SpatialVLM's weights of the same kinds (arXiv:2401.12168 App. A, canonical frame).

``camera_distance`` is an addition of this project. Kinds that need a second object's surface (gap) are left out.
"""

Kinds = Mapping[str, float] | Iterable[str] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One question as data.

    Attributes:
        kind: a key of :data:`WEIGHTS`.
        axis: what is compared, one of ``facts.AXES``; empty for distances.
        form: predicate, choice, classify or quantity.
        a, b: object indices; ``b`` is None where one object is asked about.
        names: what the objects are called.
        pole: the pole a predicate, choice or offset asks for; empty otherwise.
        answer: canonical answer of a closed question; empty for a quantity.
        options: allowed answers of a closed question, in the order in which they are spoken.
        value: true length in metres of a quantity.
        relation: the pole at which ``a`` lies as seen from ``b``; empty for distances.
    """

    kind: str
    axis: str
    form: str
    a: int
    b: int | None
    names: tuple[str, ...]
    pole: str = ""
    answer: str = ""
    options: tuple[str, ...] = ()
    value: float | None = None
    relation: str = ""


def kind_weights(kinds: Kinds) -> dict[str, float]:
    """Weight of each kind to draw: all of them by default, a list keeps the default weights, a mapping sets them.

    Raises:
        ValueError: an unknown kind, a negative weight, or nothing left to draw.
    """
    chosen = WEIGHTS if kinds is None else kinds
    if isinstance(chosen, str):
        chosen = (chosen,)
    weights = {kind: float(chosen[kind]) if isinstance(chosen, Mapping) else WEIGHTS.get(kind, 0) for kind in chosen}
    for kind, weight in weights.items():
        if kind not in WEIGHTS:
            close = difflib.get_close_matches(kind, WEIGHTS, n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(close)}?" if close else f"allowed: {', '.join(WEIGHTS)}"
            raise ValueError(f"question kind is {kind!r}; {hint}")
        if weight < 0:
            raise ValueError(f"weight of question kind {kind!r} is {weight}; it must be at least 0")
    weights = {kind: weight for kind, weight in weights.items() if weight > 0}
    if not weights:
        raise ValueError("no question kind has a weight above 0; name at least one kind")
    return weights


def split_kind(kind: str) -> tuple[str, str]:
    """Axis and form of a kind; the axis is empty for distances between points."""
    if kind in AXES:
        return kind, PREDICATE
    for suffix, form in (("_choice", CHOICE), ("_classify", CLASSIFY), ("_offset", QUANTITY)):
        if kind.endswith(suffix):
            return kind.removesuffix(suffix), form
    return {"width": "wide_thin", "height": "tall_short"}.get(kind, ""), QUANTITY


class Planner:
    """Draws questions about one scene; every kind it offers has at least one unambiguous question."""

    def __init__(self, facts: SceneFacts, kinds: Kinds = None) -> None:
        self.facts = facts
        self._pairs = {axis: facts.clear_pairs(axis) for axis in AXES}
        self._named = [i for i, name in enumerate(facts.names) if name is not None]
        weights = {kind: weight for kind, weight in kind_weights(kinds).items() if self._candidates(kind)}
        self.kinds = tuple(weights)
        self._cumulative = np.cumsum(list(weights.values())).tolist()

    def draw(self, rng: np.random.Generator) -> Plan | None:
        """One question of a kind drawn by weight; None where the scene allows no question at all."""
        if not self.kinds:
            return None
        mark = rng.random() * self._cumulative[-1]
        kind = next(kind for kind, upper in zip(self.kinds, self._cumulative, strict=True) if mark < upper)
        return self.draw_kind(kind, rng)

    def draw_kind(self, kind: str, rng: np.random.Generator) -> Plan:
        """One question of this kind, which must be one of ``kinds``."""
        picked = pick(rng, self._candidates(kind))
        axis, form = split_kind(kind)
        if isinstance(picked, int):
            return self._one_object(kind, axis, picked)
        a, b = picked if coin(rng) else picked[::-1]
        if form == QUANTITY:
            return self._two_object_quantity(kind, axis, a, b)
        return self._closed(kind, axis, form, a, b, rng)

    def _candidates(self, kind: str) -> list[int] | list[tuple[int, int]]:
        match kind:
            case "camera_distance":
                return self._named
            case "width" | "height":
                return [i for i, name in enumerate(self.facts.sizeless_names) if name is not None]
            case "vertical_distance":
                return self._pairs["above_below"]
            case "distance" | "horizontal_distance":
                return [(a, b) for n, a in enumerate(self._named) for b in self._named[n + 1 :]]
            case _:
                return self._pairs[split_kind(kind)[0]]

    def _one_object(self, kind: str, axis: str, a: int) -> Plan:
        name = self.facts.name(a, axis)
        assert name is not None
        value = self.facts.camera_distance(a) if kind == "camera_distance" else self.facts.along[axis][a]
        return Plan(kind, axis, QUANTITY, a, None, (name,), value=value)

    def _two_object_quantity(self, kind: str, axis: str, a: int, b: int) -> Plan:
        measures: Mapping[str, Callable[[int, int], float]] = {
            "distance": self.facts.distance,
            "horizontal_distance": self.facts.horizontal_distance,
            "vertical_distance": lambda a, b: abs(self.facts.offset("above_below", a, b)),
        }
        names = self._names(axis, a, b)
        if kind in measures:
            return Plan(kind, axis, QUANTITY, a, b, names, value=measures[kind](a, b))
        relation = self._relation(axis, a, b)
        value = abs(self.facts.offset(axis, a, b))
        return Plan(kind, axis, QUANTITY, a, b, names, pole=relation, value=value, relation=relation)

    def _closed(self, kind: str, axis: str, form: str, a: int, b: int, rng: np.random.Generator) -> Plan:
        names, poles, relation = self._names(axis, a, b), POLES[axis], self._relation(axis, a, b)
        pole = poles.high if coin(rng) else poles.low
        match form:
            case "predicate":
                answer, options = "yes" if relation == pole else "no", ("yes", "no")
            case "choice":
                answer, options = names[0] if relation == pole else names[1], names
            case _:
                answer, options, pole = relation, (poles.low, poles.high), ""
        if form != CHOICE and coin(rng):
            options = options[::-1]
        return Plan(kind, axis, form, a, b, names, pole, answer, options, relation=relation)

    def _names(self, axis: str, a: int, b: int) -> tuple[str, str]:
        first, second = self.facts.name(a, axis), self.facts.name(b, axis)
        assert first is not None
        assert second is not None
        return first, second

    def _relation(self, axis: str, a: int, b: int) -> str:
        return POLES[axis].low if self.facts.offset(axis, a, b) > 0 else POLES[axis].high


def coin(rng: np.random.Generator) -> bool:
    """A fair coin."""
    return rng.random() < 0.5


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of the items, each as likely."""
    return items[int(rng.random() * len(items))]
