"""Controlled errors: one thing wrong in an otherwise true chain, so that a reward gap has exactly one cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from spatial_lightning.synthesis.chains import DISTANCES, Chain
from spatial_lightning.synthesis.facts import SceneFacts
from spatial_lightning.synthesis.plans import POLES, QUANTITY, Plan, coin, pick
from spatial_lightning.synthesis.statements import POLE_AXIS, Also, Length, Relation, Root, Seen

COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
SHAPES = ("cube", "sphere", "cylinder")
MATERIALS = ("rubber", "metal")
SIZES = ("large", "small")

ERRORS: Mapping[str, float] = MappingProxyType(
    {"attribute": 1, "existence": 1, "position": 1, "relation": 2, "arithmetic": 1, "conclusion": 1.5}
)
"""Errors and how often each is drawn.

``attribute``, ``existence`` and ``position`` change the description only. ``relation`` (closed questions) and
``arithmetic`` (distances) change the reasoning only, and the conclusion follows from the wrong step, as it does when a
model errs.
``conclusion`` is the hard negative of arXiv:2506.21656 App. D: nothing but the final value differs.
"""


def applicable(error: str, plan: Plan) -> bool:
    """Whether this error can be made in the chain for this plan."""
    if error not in ERRORS:
        raise ValueError(f"error is {error!r}; allowed: {', '.join(ERRORS)}")
    return {"relation": plan.form != QUANTITY, "arithmetic": plan.kind in DISTANCES}.get(error, True)


def corrupt(chain: Chain, plan: Plan, facts: SceneFacts, error: str, rng: np.random.Generator) -> Chain:
    """The chain with one error in it.

    Raises:
        ValueError: an unknown error, or one that does not apply to the plan.
    """
    if not applicable(error, plan):
        raise ValueError(f"error {error!r} does not apply to a {plan.kind!r} question")
    corruptions: Mapping[str, Callable[[], Chain]] = {
        "attribute": lambda: _wrong_attribute(chain, facts, rng),
        "existence": lambda: _wrong_existence(chain, facts, rng),
        "position": lambda: _wrong_position(chain, rng),
        "relation": lambda: _wrong_relation(chain, plan),
        "arithmetic": lambda: _wrong_sum(chain, rng),
        "conclusion": lambda: replace(chain, final=_wrong_final(plan, rng)),
    }
    return corruptions[error]()


def _wrong_attribute(chain: Chain, facts: SceneFacts, rng: np.random.Generator) -> Chain:
    index, seen = _pick_seen(chain, rng)
    which = int(rng.random() * len(seen.attributes))
    true = seen.attributes[which]
    known = (SIZES, MATERIALS)[which]
    present = {(item.size, item.material)[which] for item in facts.scene.objects}
    wrong = pick(rng, sorted((present | set(known)) - {true}))
    attributes = tuple(wrong if n == which else value for n, value in enumerate(seen.attributes))
    return _with_described(chain, index, replace(seen, attributes=attributes))


def _wrong_existence(chain: Chain, facts: SceneFacts, rng: np.random.Generator) -> Chain:
    there = {(item.color, item.shape) for item in facts.scene.objects}
    absent = [f"{color} {shape}" for color in COLORS for shape in SHAPES if (color, shape) not in there]
    invented = pick(rng, absent)
    last = chain.described[-1]
    if not isinstance(last, Also):
        return replace(chain, described=(*chain.described, Also((invented,))))
    where = int(rng.random() * len(last.names))
    names = tuple(invented if n == where else name for n, name in enumerate(last.names))
    return _with_described(chain, len(chain.described) - 1, Also(names))


def _wrong_position(chain: Chain, rng: np.random.Generator) -> Chain:
    index, seen = _pick_seen(chain, rng)
    assert seen.column is not None
    assert seen.row is not None
    assert seen.depth is not None
    match pick(rng, ("column", "row", "depth")):
        case "column":
            wrong = replace(seen, column=_far_percent(seen.column, rng))
        case "row":
            wrong = replace(seen, row=_far_percent(seen.row, rng))
        case _:
            factor = 1 + (0.3 + 0.3 * rng.random()) * (1 if coin(rng) else -1)
            wrong = replace(seen, depth=round(seen.depth * factor, 1))
    return _with_described(chain, index, wrong)


def _wrong_relation(chain: Chain, plan: Plan) -> Chain:
    def flip(relation: Relation) -> Relation:
        return replace(relation, pole=POLES[POLE_AXIS[relation.pole]].other(relation.pole))

    assert isinstance(chain.conclusion, Relation)
    steps = tuple(flip(step) if isinstance(step, Relation) else step for step in chain.steps)
    return replace(chain, steps=steps, conclusion=flip(chain.conclusion), final=_other_option(plan))


def _wrong_sum(chain: Chain, rng: np.random.Generator) -> Chain:
    root = chain.steps[-1]
    assert isinstance(root, Root)
    wrong = _other_length(root.root, rng)
    bad = replace(root, total=round(wrong * wrong, 1), root=wrong)
    return replace(chain, steps=(*chain.steps[:-1], bad), conclusion=Length(wrong), final=f"{wrong:.1f} meters")


def _wrong_final(plan: Plan, rng: np.random.Generator) -> str:
    if plan.value is None:
        return _other_option(plan)
    return f"{_other_length(plan.value, rng):.1f} meters"


def _other_option(plan: Plan) -> str:
    return next(option for option in plan.options if option != plan.answer)


def _other_length(length: float, rng: np.random.Generator) -> float:
    """A length to one decimal that is 10 to 30 % off and by at least 0.3 m: wrong, yet not absurd."""
    shift = max(0.3, (0.1 + 0.2 * rng.random()) * length)
    down = coin(rng) and length - shift >= 0.1
    return round(length - shift if down else length + shift, 1)


def _far_percent(percent: float, rng: np.random.Generator) -> float:
    """A place on the same line of the picture at least a quarter of it away."""
    allowed = [p for p in range(2, 99) if abs(p - percent) >= 25]
    return float(pick(rng, allowed))


def _pick_seen(chain: Chain, rng: np.random.Generator) -> tuple[int, Seen]:
    found = [(n, statement) for n, statement in enumerate(chain.described) if isinstance(statement, Seen)]
    return pick(rng, found)


def _with_described(chain: Chain, index: int, statement: Seen | Also) -> Chain:
    described = tuple(statement if n == index else old for n, old in enumerate(chain.described))
    return replace(chain, described=described)
