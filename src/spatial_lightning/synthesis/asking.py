"""Draws questions for tool use about a scene, with every way to answer each of them from the tools' readings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from spatial_lightning.records import Question
from spatial_lightning.scenes.shading import COLORS
from spatial_lightning.scenes.shapes import SHAPES
from spatial_lightning.synthesis.facts import SceneFacts
from spatial_lightning.synthesis.plans import pick
from spatial_lightning.synthesis.tasks import ATTRIBUTES, TESTS, Argument, Claim, Task, belonging, compare, said
from spatial_lightning.synthesis.tools import DEPTH, SEGMENT, TOP_DOWN, Readings

YES_NO = ("yes", "no")
KINDS = ("count", "exist", "more", "left_right", "front_behind", "taller_shorter", "nearest", "nearest_to")

_PHRASES: Mapping[str, str] = MappingProxyType(
    {
        "left": "left of",
        "right": "right of",
        "front": "in front of",
        "behind": "behind",
        "taller": "taller than",
        "shorter": "shorter than",
    }
)
_POLES = {"left_right": ("left", "right"), "front_behind": ("front", "behind"), "taller_shorter": ("taller", "shorter")}
_LEAST_COLUMNS, _LEAST_METRES, _LEAST_RATIO = 3, 0.3, 1.15
_PATIENCE = 30


def scene_tasks(
    facts: SceneFacts,
    readings: Readings,
    *,
    count: int,
    rng: np.random.Generator,
    kinds: Sequence[str] = KINDS,
) -> list[Task]:
    """Up to ``count`` different tasks about a scene; fewer tasks are the first of more from the same ``rng`` state.

    Nothing is asked that the tools' rounded readings leave open or that two of them would answer differently. Yes and no
    are equally likely. A scene in which some object has no name of its own gives no task.

    Raises:
        ValueError: an unknown kind.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"question kind is {sorted(unknown)[0]!r}; allowed for tool use: {', '.join(KINDS)}")
    if any(name is None for name in facts.names):
        return []
    asker = _Asker(facts, readings)
    tasks: dict[str, Task] = {}
    misses = 0
    while len(tasks) < count and misses < _PATIENCE:
        kind = pick(rng, tuple(kinds))
        drawn = asker.draw(kind, rng)
        misses += 1
        if drawn is not None and drawn[0] not in tasks:
            text, answer, options, rule, subjects, arguments = drawn
            identity = f"{facts.scene.split}-{facts.scene.index:06d}-t{len(tasks)}"
            question = Question(identity, text, answer, kind, options)
            tasks[text] = Task(question, rule, subjects, arguments, tuple(asker.names), tuple(asker.groups))
            misses = 0
    return list(tasks.values())


_Drawn = tuple[str, str, tuple[str, ...], str, tuple[str, ...], tuple[Argument, ...]]


class _Asker:
    """Draws questions about one scene."""

    def __init__(self, facts: SceneFacts, readings: Readings) -> None:
        self.facts, self.readings = facts, readings
        self.names = [name for name in facts.names if name is not None]
        self.groups = {
            **{f"{shape}s": shape for shape in SHAPES},
            **{f"{color} objects": color for color in COLORS},
        }

    def draw(self, kind: str, rng: np.random.Generator) -> _Drawn | None:
        """One question; None where the drawn one cannot be asked."""
        if kind in _POLES:
            return self._compare_objects(kind, rng)
        if kind == "more":
            return self._compare_groups(rng)
        if kind in ("nearest", "nearest_to"):
            return self._nearest(kind, rng)
        return self._members(kind, rng)

    def _having(self, *words: str) -> list[str]:
        return [name for name, own in zip(self.names, self.facts.words, strict=True) if own.issuperset(words)]

    def _members(self, kind: str, rng: np.random.Generator) -> _Drawn | None:
        """How many there are of a group, or whether there is one of a colour and shape."""
        everything = [(color, shape) for color in COLORS for shape in SHAPES]
        if kind == "count":
            wanted = rng.random() >= 0.2
            groups = [(word,) for word in self.groups.values() if bool(self._having(word)) == wanted]
            text = "How many {} are there?"
        else:
            wanted = rng.random() < 0.5
            groups = [pair for pair in everything if bool(self._having(*pair)) == wanted]
            if (
                not wanted
            ):  # half-true ones are harder: the colour is there with another shape, or the shape in another colour
                groups = [pair for pair in groups if any(self._having(word) for word in pair)]
            text = "Is there a {}?"
        if not groups:
            return None
        words = pick(rng, groups)
        spoken = (
            next(name for name, word in self.groups.items() if word == words[0]) if len(words) == 1 else " ".join(words)
        )
        members = self._having(*words)
        others = sorted({tuple(self._having(word)) for word in self.groups.values()} - {tuple(members)})
        decoys = tuple((_belong(other), belonging(kind, len(other))) for other in others)
        argument = Argument(frozenset({SEGMENT}), _belong(members), decoys)
        options = YES_NO if kind == "exist" else ()
        return text.format(spoken), belonging(kind, len(members)), options, kind, (), (argument,)

    def _compare_groups(self, rng: np.random.Generator) -> _Drawn | None:
        """Whether there are more of one group than of another."""
        sizes = {name: len(self._having(word)) for name, word in self.groups.items()}
        wanted = rng.random() < 0.5
        present = [name for name, size in sizes.items() if size]
        pairs = [(a, b) for a in present for b in present if a != b and (sizes[a] > sizes[b]) == wanted]
        if not pairs:
            return None
        a, b = pick(rng, pairs)
        claims = (Claim(a, sizes[a]), Claim(b, sizes[b]))
        decoys = tuple(
            ((Claim(a, sizes[a]), Claim(c, size)), compare("more", sizes[a], size))
            for c, size in sizes.items()
            if size and c not in (a, b)
        )
        argument = Argument(frozenset({SEGMENT}), claims, decoys)
        return f"Are there more {a} than {b}?", said(wanted), YES_NO, "more", (a, b), (argument,)

    def _compare_objects(self, kind: str, rng: np.random.Generator) -> _Drawn | None:
        """Whether one object is, e.g., left of another, as all tools that show it agree."""
        pole = pick(rng, _POLES[kind])
        wanted = rng.random() < 0.5
        measured = self._measured(kind)
        pairs = [
            (a, b)
            for a in self.names
            for b in self.names
            if a != b
            and all(_is_clear(tools, of[a], of[b]) for tools, of in measured)
            and all(TESTS[pole](of[a].value or 0, of[b].value or 0) == wanted for _, of in measured)
        ]
        if not pairs:
            return None
        a, b = pick(rng, pairs)
        arguments = tuple(
            Argument(
                tools,
                (of[a], of[b]),
                tuple(
                    ((of[c], of[d]), compare(pole, of[c].value or 0, of[d].value or 0))
                    for c, d in ((a, other) if keep else (other, b) for other in self.names for keep in (True, False))
                    if c != d and (c, d) != (a, b)
                ),
            )
            for tools, of in measured
        )
        return f"Is the {a} {_PHRASES[pole]} the {b}?", said(wanted), YES_NO, pole, (a, b), arguments

    def _measured(self, kind: str) -> list[tuple[frozenset[str], dict[str, Claim]]]:
        """What each sufficient set of tools says of each object, as claims."""
        segment, depth, top_down = (self.readings[tool] for tool in (SEGMENT, DEPTH, TOP_DOWN))
        if kind == "taller_shorter":
            work = {name: f"{segment[name][1]:g}*{depth[name][0]:g}" for name in self.names}
            value = {name: float(round(segment[name][1] * depth[name][0])) for name in self.names}
            return [(frozenset({SEGMENT, DEPTH}), {name: Claim(name, value[name], work[name]) for name in self.names})]
        plain, component = (SEGMENT, 0) if kind == "left_right" else (DEPTH, 1)
        first = segment if kind == "left_right" else depth
        return [
            (frozenset({plain}), {name: Claim(name, first[name][0]) for name in self.names}),
            (frozenset({TOP_DOWN}), {name: Claim(name, top_down[name][component]) for name in self.names}),
        ]

    def _nearest(self, kind: str, rng: np.random.Generator) -> _Drawn | None:
        """The colour or shape of what is nearest to the camera or to an object."""
        attribute = pick(rng, tuple(ATTRIBUTES))
        if kind == "nearest":
            of = {name: self.readings[DEPTH][name][0] for name in self.names}
            tool, place = DEPTH, "the camera"
        else:
            middle = pick(rng, self.names)
            places = self.readings[TOP_DOWN]
            of = {name: round(math.dist(places[name], places[middle]), 1) for name in self.names if name != middle}
            tool, place = TOP_DOWN, f"the {middle}"
        ranked = sorted(of, key=lambda name: of[name])
        if len(ranked) < 2 or of[ranked[1]] - of[ranked[0]] < _LEAST_METRES:
            return None
        answers = {name: next(word for word in name.split() if word in ATTRIBUTES[attribute]) for name in ranked}
        decoys = tuple(((Claim(name, of[name]),), answers[name]) for name in ranked[1:])
        argument = Argument(frozenset({tool}), (Claim(ranked[0], of[ranked[0]]),), decoys)
        text = f"What {attribute} is the object nearest to {place}?"
        return text, answers[ranked[0]], ATTRIBUTES[attribute], attribute, (), (argument,)


def _is_clear(tools: frozenset[str], one: Claim, other: Claim) -> bool:
    """Whether two numbers differ by more than rounding and doubt."""
    a, b = one.value or 0.0, other.value or 0.0
    if one.work:
        return max(a, b) >= _LEAST_RATIO * min(a, b)
    return abs(a - b) >= (_LEAST_COLUMNS if tools == {SEGMENT} else _LEAST_METRES)


def _belong(names: Sequence[str]) -> tuple[Claim, ...]:
    return tuple(Claim(name) for name in names)
