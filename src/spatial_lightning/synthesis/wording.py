"""How questions are worded: a few short templates per kind, with words shared between the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from spatial_lightning.records import Question
from spatial_lightning.synthesis.facts import SIZE_AXES
from spatial_lightning.synthesis.plans import CHOICE, CLASSIFY, PREDICATE, QUANTITY, Plan, pick, split_kind
from spatial_lightning.synthesis.rounding import say_length

WORDINGS = ("plain", "varied")
REASONED_SUFFIX = " Explain step by step."

RELATIONS: Mapping[str, str] = MappingProxyType(
    {
        "left": "left of",
        "right": "right of",
        "front": "in front of",
        "behind": "behind",
        "above": "above",
        "below": "below",
        "taller": "taller than",
        "shorter": "shorter than",
        "wider": "wider than",
        "thinner": "thinner than",
        "bigger": "bigger than",
        "smaller": "smaller than",
    }
)
"""How a pole is said between two objects."""

_EXTREMES = {
    "left": "further left",
    "right": "further right",
    "front": "further in front",
    "behind": "further behind",
    "above": "higher up",
    "below": "lower down",
}
_PLACE_PREDICATE = (
    "Is the {a} {relation} the {b}?",
    "Does the {a} lie {relation} the {b}?",
    "Would you say the {a} is {relation} the {b}?",
)
_SIZE_PREDICATE = (_PLACE_PREDICATE[0], "Does the {a} look {relation} the {b}?", _PLACE_PREDICATE[2])
_CHOICE = (
    "Which is {extreme}, the {first} or the {second}?",
    "Of the {first} and the {second}, which is {extreme}?",
    "Tell me which is {extreme}, the {first} or the {second}.",
)
_CLASSIFY = (
    "Is the {a} {one} or {other} the {b}?",
    "Which holds, the {a} is {one} or {other} the {b}?",
    "Seen from here, is the {a} {one} or {other} the {b}?",
)
_QUANTITY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "distance": (
            "How far apart are the {a} and the {b}?",
            "What is the distance between the {a} and the {b}?",
            "How far is the {a} from the {b}?",
        ),
        "horizontal_distance": (
            "What is the horizontal distance between the {a} and the {b}?",
            "How far apart on the ground are the {a} and the {b}?",
            "How far is the {a} from the {b} on the ground?",
        ),
        "vertical_distance": (
            "What is the vertical distance between the {a} and the {b}?",
            "How far apart in height are the {a} and the {b}?",
        ),
        "left_right_offset": (
            "How far {relation} the {b} is the {a}?",
            "How many meters {relation} the {b} is the {a}?",
        ),
        "width": ("How wide is the {a}?", "What is the width of the {a}?"),
        "height": ("How tall is the {a}?", "What is the height of the {a}?"),
        "camera_distance": (
            "How far is the {a} from the camera?",
            "What is the distance between the camera and the {a}?",
        ),
    }
)


def templates(kind: str, form: str) -> tuple[str, ...]:
    """Wordings of a kind of question, the plain one first."""
    if form == QUANTITY:
        return _QUANTITY["left_right_offset" if kind.endswith("_offset") else kind]
    predicate = _SIZE_PREDICATE if split_kind(kind)[0] in SIZE_AXES else _PLACE_PREDICATE
    return {PREDICATE: predicate, CHOICE: _CHOICE, CLASSIFY: _CLASSIFY}[form]


def ask(
    plan: Plan, identifier: str, rng: np.random.Generator, *, rounding: str = "decimal", wording: str = "plain"
) -> Question:
    """Put a plan into words, with the short true answer.

    Args:
        identifier: id of the question.
        rounding: how lengths are said, see :func:`~spatial_lightning.synthesis.rounding.say_length`.
        wording: ``plain`` always uses the first template of a kind, ``varied`` draws one.

    Raises:
        ValueError: unknown wording or rounding.
    """
    if wording not in WORDINGS:
        raise ValueError(f"wording is {wording!r}; allowed: {', '.join(WORDINGS)}")
    choices = templates(plan.kind, plan.form)
    template = choices[0] if wording == "plain" else pick(rng, choices)
    words = {"a": plan.names[0], "b": plan.names[-1], "relation": RELATIONS.get(plan.pole, "")}
    if plan.form == CHOICE:
        words |= {"first": plan.names[0], "second": plan.names[1], "extreme": _EXTREMES.get(plan.pole, plan.pole)}
    if plan.form == CLASSIFY:
        one, other = (RELATIONS[option] for option in plan.options)
        # "taller or shorter than" and "left or right of", but "in front of or behind".
        shared = one.split()[-1] == other.split()[-1]
        words |= {"one": one.rsplit(" ", 1)[0] if shared and " " in one else one, "other": other}
    answer = plan.answer if plan.value is None else say_length(plan.value, rng, rounding)
    return Question(identifier, template.format_map(words), answer, plan.kind, plan.options, plan.value)
