"""Question sets in SpatialVLM's kinds (arXiv:2401.12168 App. A), answered from the exact geometry of a scene."""

from __future__ import annotations

import numpy as np

from spatial_lightning.records import Question
from spatial_lightning.scenes.scene import Scene
from spatial_lightning.synthesis.chains import OTHERS, explain, is_explainable, reasoned_kinds
from spatial_lightning.synthesis.facts import MARGIN, measure
from spatial_lightning.synthesis.plans import Kinds, Planner
from spatial_lightning.synthesis.wording import ask

STYLES = ("direct", "reasoned")
_PATIENCE = 40


def question_set(
    scene: Scene,
    *,
    count: int,
    rng: np.random.Generator,
    kinds: Kinds = None,
    rounding: str = "decimal",
    wording: str = "plain",
    style: str = "direct",
    margin: float = MARGIN,
    others: int = OTHERS,
    first_id: int = 0,
) -> list[Question]:
    """Up to ``count`` different questions about a scene with their true answers, the same for the same ``rng`` state.

    Closed questions are balanced: "yes" and "no" are equally likely whatever the scene, and so are the two orders in
    which options and objects are spoken. Objects that no name singles out are not asked about, nor are pairs that
    differ by less than ``margin`` along the asked direction (15 % for sizes); such a scene may give fewer questions.

    Args:
        kinds: names to draw from, or weight by name; all of ``plans.WEIGHTS`` by default.
        rounding: ``none``, ``decimal``, ``human``, ``srgpt`` or ``vqas``; reasoned answers always use one decimal.
        wording: ``plain`` or ``varied``.
        style: ``direct`` for short answers, ``reasoned`` for a description, numbered steps and a conclusion.
        margin: metres, at least 0.2.
        others: how many objects that are not asked about a reasoned answer names.
        first_id: number in the id ``split-scene-number`` of the first question.

    Raises:
        ValueError: a count below 0, or an unknown kind, rounding, wording or style.
    """
    if count < 0:
        raise ValueError(f"count is {count}; it must be at least 0")
    if style not in STYLES:
        raise ValueError(f"style is {style!r}; allowed: {', '.join(STYLES)}")
    if count == 0:
        return []
    facts = measure(scene, margin=margin)
    planner = Planner(facts, reasoned_kinds(kinds) if style == "reasoned" else kinds)
    questions: list[Question] = []
    asked: set[str] = set()
    misses = 0
    while len(questions) < count and misses < _PATIENCE:
        plan = planner.draw(rng)
        if plan is None:
            break
        identifier = f"{scene.split}-{scene.index:06d}-{first_id + len(questions)}"
        misses += 1
        if style == "reasoned":
            if not is_explainable(facts, plan):
                continue
            question = explain(facts, plan, identifier, rng, wording=wording, others=others)
        else:
            question = ask(plan, identifier, rng, rounding=rounding, wording=wording)
        if question.text not in asked:
            asked.add(question.text)
            questions.append(question)
            misses = 0
    return questions
