"""What is where: lists of the objects in order and descriptions of each, the first thing a model without any sight needs."""

from __future__ import annotations

from spatial_lightning.records import Question
from spatial_lightning.scenes.scene import Scene
from spatial_lightning.synthesis.chains import describe
from spatial_lightning.synthesis.facts import measure
from spatial_lightning.synthesis.statements import say

_ORDERS = (
    ("left to right", "left_right", False),
    ("right to left", "left_right", True),
    ("front to back", "front_behind", False),
    ("back to front", "front_behind", True),
)


def grounding_questions(scene: Scene, *, first_id: int = 0) -> list[Question]:
    """All lists and descriptions of a scene's objects: for training only, no evaluation scores them.

    Kinds are ``left_right_order`` and ``front_behind_order``, answered by the names of all objects in this order, and
    ``description``, answered by the sentence with which a LongCoT describes an object. Objects that no name singles out
    are left out.

    Args:
        first_id: number in the id ``split-scene-number`` of the first question.
    """
    facts = measure(scene)
    named = [(index, name) for index, name in enumerate(facts.names) if name is not None]
    if not named:
        return []
    asked: list[tuple[str, str, str]] = []
    for words, axis, reverse in _ORDERS:
        ordered = sorted(named, key=lambda item: facts.along[axis][item[0]], reverse=reverse)
        asked.append((f"What is there from {words}?", ", ".join(name for _, name in ordered), f"{axis}_order"))
    for index, name in named:
        asked.append((f"Describe the {name}.", say(describe(facts, index, name)) + ".", "description"))
    return [
        Question(f"{scene.split}-{scene.index:06d}-{number}", text, answer, kind)
        for number, (text, answer, kind) in enumerate(asked, start=first_id)
    ]
