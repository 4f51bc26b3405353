"""Whether reasoning holds together: each inference against what was stated before it, never against the scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from spatial_lightning.synthesis.chains import DISTANCES
from spatial_lightning.synthesis.evidence import AXIS_OF, Asked, resolve
from spatial_lightning.synthesis.facts import SceneFacts
from spatial_lightning.synthesis.grammar import Parsed
from spatial_lightning.synthesis.plans import POLES, split_kind
from spatial_lightning.synthesis.statements import Coordinate, Length, Offset, Relation, Root, Statement

_HALF_TENTH = 0.05 + 1e-6


def coherence(parsed: Parsed) -> float:
    """Logical coherence in [0, 1]: the share of checks that pass; 0 where nothing is inferred.

    Checked are the numbering of the steps, every relation against the measurements of its two objects, every line of
    arithmetic, and every distance against the root before it.
    """
    ledger = _Ledger()
    checks = [parsed.steps == tuple(range(1, len(parsed.steps) + 1))] if parsed.steps else []
    inferred = False
    for statement in parsed.reasoning:
        found = ledger.check(statement)
        inferred = inferred or bool(found)
        checks += found
        ledger.add(statement)
    return sum(checks) / len(checks) if inferred else 0.0


def rule_application(reasoning: Sequence[Statement], kind: str, asked: Asked, facts: SceneFacts) -> float:
    """Correct rule application in [0, 1]: the share of the parts of the rule for this kind of question that are there.

    A comparison needs the same measurement of both objects and the relation between them; a distance needs the offsets
    along its axes and Pythagoras over as many terms; any other length needs the measurement that is asked for. Whether
    the parts are true is judged elsewhere.
    """
    if kind in DISTANCES:
        parts = _distance_parts(reasoning, kind, asked, facts)
    else:
        axis = split_kind(kind)[0]
        measured = {resolve(s.name, facts) for s in reasoning if isinstance(s, Coordinate) and AXIS_OF[s.pole] == axis}
        parts = [index in measured for index in asked.objects]
        if len(asked.objects) != 1:
            parts.append(any(_relates(s, axis, asked, facts) for s in reasoning))
    return sum(parts) / len(parts) if parts else 0.0


def _distance_parts(reasoning: Sequence[Statement], kind: str, asked: Asked, facts: SceneFacts) -> list[bool]:
    axes = ["front_behind" if axis == "depth" else axis for axis in DISTANCES[kind]]
    found = {
        AXIS_OF[s.pole]
        for s in reasoning
        if (isinstance(s, Offset) and len(asked.objects) == 2 and _pair(s, facts) == set(asked.objects))
        or (isinstance(s, Coordinate) and len(asked.objects) == 1 and resolve(s.name, facts) in asked.objects)
    }
    combined = any(isinstance(s, Root) and len(s.terms) == len(axes) for s in reasoning)
    return [*(axis in found for axis in axes), combined]


def _relates(statement: Statement, axis: str, asked: Asked, facts: SceneFacts) -> bool:
    if not isinstance(statement, Relation | Offset) or AXIS_OF[statement.pole] != axis:
        return False
    return len(asked.objects) == 2 and _pair(statement, facts) == set(asked.objects)


def _pair(statement: Relation | Offset, facts: SceneFacts) -> set[int | None]:
    return {resolve(statement.name, facts), resolve(statement.other, facts)}


@dataclass
class _Ledger:
    """What the reasoning has stated so far."""

    measured: dict[tuple[str, str], float] = field(default_factory=dict)
    amounts: list[float] = field(default_factory=list)
    roots: list[float] = field(default_factory=list)

    def add(self, statement: Statement) -> None:
        match statement:
            case Coordinate(name, pole, value):
                self.measured[name, _scale(pole)] = -value if pole in ("left", "below") else value
                self.amounts.append(value)
            case Offset(_, _, _, value):
                self.amounts.append(value)
            case Root(root=root):
                self.roots.append(root)

    def check(self, statement: Statement) -> list[bool]:
        match statement:
            case Relation(name, pole, other):
                return [self._follows(name, pole, other)]
            case Root(terms, squares, total, root):
                known = all(any(abs(term - amount) < 1e-6 for amount in self.amounts) for term in terms)
                squared = len(terms) == len(squares) and all(
                    abs(square - term * term) <= _HALF_TENTH for term, square in zip(terms, squares, strict=False)
                )
                summed = abs(total - sum(squares)) <= _HALF_TENTH
                return [known, squared, summed, abs(root - math.sqrt(total)) <= _HALF_TENTH]
            case Length(value):
                return [bool(self.roots) and abs(value - self.roots[-1]) <= _HALF_TENTH]
            case _:
                return []

    def _follows(self, name: str, pole: str, other: str) -> bool:
        axis = AXIS_OF[pole]
        scale = _COMPARED[axis]
        a, b = self.measured.get((name, scale)), self.measured.get((other, scale))
        if a is None or b is None or a == b:
            return False
        return (a > b) == (pole == POLES[axis].high)


_COMPARED = {
    "left_right": "sideways",
    "front_behind": "deep",
    "above_below": "high",
    "tall_short": "tall",
    "wide_thin": "wide",
    "big_small": "large",
}


def _scale(pole: str) -> str:
    return {"left": "sideways", "right": "sideways", "above": "upright", "below": "upright"}.get(pole, pole)
