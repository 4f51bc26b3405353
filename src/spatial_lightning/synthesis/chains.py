"""LongCoT answers (arXiv:2506.21656): describe what matters, reason in steps from measured facts, conclude."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from spatial_lightning.records import Question
from spatial_lightning.synthesis.facts import SceneFacts
from spatial_lightning.synthesis.plans import POLES, QUANTITY, WEIGHTS, Kinds, Plan, kind_weights, split_kind
from spatial_lightning.synthesis.statements import (
    Also,
    Coordinate,
    Final,
    Length,
    Offset,
    Relation,
    Root,
    Seen,
    Statement,
    say,
)
from spatial_lightning.synthesis.wording import REASONED_SUFFIX, ask

OTHERS = 2
DISTANCES: Mapping[str, tuple[str, ...]] = {
    "distance": ("left_right", "front_behind", "above_below"),
    "horizontal_distance": ("left_right", "front_behind"),
    "camera_distance": ("left_right", "above_below", "depth"),
}
"""Axes whose offsets Pythagoras combines, by kind of quantity."""

REASONED_KINDS = tuple(kind for kind in WEIGHTS if split_kind(kind)[1] != QUANTITY or kind in DISTANCES)
"""Kinds that are answered by a chain; the others are read off directly."""

_COORDINATE_POLES = {
    "front_behind": "deep",
    "above_below": "high",
    "tall_short": "tall",
    "wide_thin": "wide",
    "big_small": "large",
}


@dataclass(frozen=True, slots=True)
class Chain:
    """A response as statements: what is described, the numbered steps, what is concluded, and the final answer."""

    described: tuple[Seen | Also, ...]
    steps: tuple[Statement, ...]
    conclusion: Relation | Length
    final: str

    @property
    def text(self) -> str:
        """The response in the training wrapper of arXiv:2506.21656."""
        description = " ".join(say(statement) + "." for statement in self.described)
        steps = " ".join(f"Step {n}: {_sentence(statement)}." for n, statement in enumerate(self.steps, start=1))
        conclusion = f"In Conclusion, {say(self.conclusion)}. {say(Final(self.final))}."
        return f"<description>{description}</description><reasoning>{steps} {conclusion}</reasoning>"


def _sentence(statement: Statement) -> str:
    return f"So {say(statement)}" if isinstance(statement, Relation) else say(statement)


def reasoned_kinds(kinds: Kinds) -> dict[str, float]:
    """Weights of those of the kinds that are answered by a chain.

    Raises:
        ValueError: an unknown kind, or none that is answered by a chain.
    """
    weights = {kind: weight for kind, weight in kind_weights(kinds).items() if kind in REASONED_KINDS}
    if not weights:
        raise ValueError(
            f"none of these question kinds is answered with reasoning; choose from {', '.join(REASONED_KINDS)}"
        )
    return weights


def build_chain(facts: SceneFacts, plan: Plan, rng: np.random.Generator, *, others: int = OTHERS) -> Chain:
    """The true chain for a plan; up to ``others`` objects that were not asked about are named as well."""
    asked = [plan.a] if plan.b is None else [plan.a, plan.b]
    described: list[Seen | Also] = [describe(facts, index, name) for index, name in zip(asked, plan.names, strict=True)]
    rest = [i for i, name in enumerate(facts.names) if name is not None and i not in asked]
    if rest and others:
        chosen = sorted(rng.permutation(len(rest))[:others].tolist())
        described.append(Also(tuple(facts.names[rest[i]] or "" for i in chosen)))
    if plan.kind in DISTANCES:
        steps, root = _measured_distance(facts, plan)
        return Chain(tuple(described), steps, Length(root), f"{root:.1f} meters")
    a, b = plan.names
    relation = Relation(a, plan.relation, b)
    measured = (coordinate(facts, plan.axis, plan.a, a), coordinate(facts, plan.axis, asked[1], b))
    return Chain(tuple(described), (*measured, relation), relation, plan.answer)


def is_explainable(facts: SceneFacts, plan: Plan) -> bool:
    """Whether the numbers as displayed, with one decimal, lead to the right answer.

    Rounding may turn 1.65 m into 1.7 m and Pythagoras then into a neighbouring tenth; such plans are not asked with
    reasoning, so that every chain is right to the last digit.
    """
    if plan.kind not in REASONED_KINDS:
        return False
    if plan.value is not None:
        _, root = _measured_distance(facts, plan)
        return f"{root:.1f}" == f"{plan.value:.1f}"
    assert plan.b is not None
    a, b = (signed(coordinate(facts, plan.axis, index, "")) for index in (plan.a, plan.b))
    return a != b and (a < b) == (facts.offset(plan.axis, plan.a, plan.b) > 0)


def explain(
    facts: SceneFacts,
    plan: Plan,
    identifier: str,
    rng: np.random.Generator,
    *,
    wording: str = "plain",
    others: int = OTHERS,
) -> Question:
    """The reasoned form of a plan: the question asks for an explanation and the answer is the true chain.

    Raises:
        ValueError: a plan that :func:`is_explainable` rejects.
    """
    if not is_explainable(facts, plan):
        raise ValueError(
            f"a {plan.kind!r} question about {' and '.join(plan.names)} cannot be explained with one decimal; "
            "draw another one (is_explainable tells in advance)"
        )
    return reasoned(build_chain(facts, plan, rng, others=others), plan, identifier, rng, wording=wording)


def reasoned(
    chain: Chain, plan: Plan, identifier: str, rng: np.random.Generator, *, wording: str = "plain"
) -> Question:
    """The question of a plan, asked for an explanation, with this chain as its answer."""
    question = ask(plan, identifier, rng, wording=wording)
    return replace(question, text=question.text + REASONED_SUFFIX, answer=chain.text, style="reasoned")


def coordinate(facts: SceneFacts, axis: str, index: int, name: str) -> Coordinate:
    """What the steps measure of one object to compare it along ``axis``, to one decimal of a metre.

    Left and right are measured from the optical axis, front and behind by depth, above and below from the ground to the
    underside.
    """
    if axis == "left_right":
        value = _tenth(facts.camera[index][0])
        return Coordinate(name, "right" if value >= 0 else "left", abs(value))
    value = facts.camera[index][2] if axis == "front_behind" else facts.along[axis][index]
    return Coordinate(name, _COORDINATE_POLES[axis], _tenth(value))


def signed(measured: Coordinate) -> float:
    """The coordinate as a number that grows towards the high pole of its axis, metres."""
    return -measured.value if measured.pole in ("left", "below") else measured.value


def describe(facts: SceneFacts, index: int, name: str) -> Seen:
    """How a chain describes an object: size and material, place in the picture in whole percent, depth to one decimal."""
    item, (column, row) = facts.scene.objects[index], facts.image[index]
    return Seen(name, (item.size, item.material), float(round(column)), float(round(row)), _tenth(item.depth))


def root_of(terms: tuple[float, ...]) -> Root:
    """Pythagoras as a person writes it down: every intermediate result with one decimal."""
    squares = tuple(_tenth(term * term) for term in terms)
    total = _tenth(sum(squares))
    return Root(terms, squares, total, _tenth(math.sqrt(total)))


def _measured_distance(facts: SceneFacts, plan: Plan) -> tuple[tuple[Statement, ...], float]:
    measured = _from_camera(facts, plan) if plan.b is None else _between(facts, plan)
    root = root_of(tuple(statement.value for statement in measured))
    return (*measured, root), root.root


def _from_camera(facts: SceneFacts, plan: Plan) -> tuple[Coordinate, ...]:
    right, down, forward = (_tenth(value) for value in facts.camera[plan.a])
    name = plan.names[0]
    return (
        Coordinate(name, "right" if right >= 0 else "left", abs(right)),
        Coordinate(name, "below" if down > 0 else "above", abs(down)),
        Coordinate(name, "deep", forward),
    )


def _between(facts: SceneFacts, plan: Plan) -> tuple[Offset, ...]:
    assert plan.b is not None
    offsets = [_tenth(facts.center_offset(axis, plan.a, plan.b)) for axis in DISTANCES[plan.kind]]
    a, b = plan.names
    return tuple(
        Offset(b, POLES[axis].high if offset >= 0 else POLES[axis].low, a, abs(offset))
        for axis, offset in zip(DISTANCES[plan.kind], offsets, strict=True)
    )


def _tenth(value: float) -> float:
    return float(f"{value:.1f}") + 0.0
