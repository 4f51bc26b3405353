"""Reasoned questions and preference pairs of a scene, scored by the geometric judge (arXiv:2506.21656 App. D)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spatial_lightning.records import PreferencePair, Question
from spatial_lightning.scenes.scene import Scene
from spatial_lightning.synthesis.chains import OTHERS, build_chain, explain, is_explainable, reasoned, reasoned_kinds
from spatial_lightning.synthesis.errors import ERRORS, applicable, corrupt
from spatial_lightning.synthesis.facts import MARGIN, SceneFacts, measure
from spatial_lightning.synthesis.plans import Kinds, Plan, Planner
from spatial_lightning.synthesis.rewards import MEAN, scored_response

_PATIENCE = 30


def reasoned_question(
    scene: Scene,
    *,
    rng: np.random.Generator,
    kinds: Kinds = None,
    wording: str = "plain",
    others: int = OTHERS,
    margin: float = MARGIN,
    number: int = 0,
) -> Question | None:
    """One question about a scene with its LongCoT answer; None where the scene allows none.

    Args:
        kinds: names or weights by name; kinds without a chain (``width``, ...) are ignored.
        others: how many objects that are not asked about the description names.
        margin: metres, see :func:`~spatial_lightning.synthesis.facts.measure`.
        number: last part of the id.
    """
    facts = measure(scene, margin=margin)
    plan = _draw(facts, Planner(facts, reasoned_kinds(kinds)), rng, None)
    if plan is None:
        return None
    return explain(facts, plan, f"{scene.split}-{scene.index:06d}-{number}", rng, wording=wording, others=others)


def preference_pairs(
    scene: Scene,
    *,
    count: int,
    rng: np.random.Generator,
    errors: Mapping[str, float] | None = None,
    kinds: Kinds = None,
    wording: str = "plain",
    others: int = OTHERS,
    margin: float = MARGIN,
    aggregate: str = MEAN,
) -> list[PreferencePair]:
    """Up to ``count`` different preference pairs of a scene: the true chain against the same chain with one error.

    Both responses are cut in segments that tile the text and scored by the geometric judge, so a reward gap is exact
    and has one cause: errors of the description leave the reasoning untouched (gap 0 there), errors of the reasoning
    leave the description untouched, and a hard negative (``conclusion``) differs in the final value alone, with gaps
    (0, 1).

    Args:
        errors: weight by error, a subset of ``errors.ERRORS``.
        kinds: question kinds, names or weights by name; kinds without a chain are ignored.
        aggregate: how the judge averages spatial statements, ``mean`` or ``weighted``.

    Raises:
        ValueError: an unknown error or kind, or no error with a weight above 0.
    """
    weights = _error_weights(errors)
    facts = measure(scene, margin=margin)
    planner = Planner(facts, reasoned_kinds(kinds))
    pairs: list[PreferencePair] = []
    drawn: set[tuple[str, str]] = set()
    misses = 0
    while len(pairs) < count and misses < _PATIENCE:
        misses += 1
        error = _draw_error(weights, rng)
        plan = _draw(facts, planner, rng, error)
        if plan is None:
            continue
        identifier = f"{scene.split}-{scene.index:06d}-p{len(pairs)}"
        pair = _pair(facts, plan, error, identifier, rng, wording, others, aggregate)
        key = (pair.question.text, pair.rejected.text)
        if key not in drawn:
            drawn.add(key)
            pairs.append(pair)
            misses = 0
    return pairs


def preference_pair(
    scene: Scene, *, rng: np.random.Generator, error: str | None = None, **options: Any
) -> PreferencePair | None:
    """One preference pair, with a given error or one drawn by weight; None where the scene allows none.

    Further keywords are those of :func:`preference_pairs`.
    """
    if error is not None:
        options["errors"] = {error: 1.0}
    return next(iter(preference_pairs(scene, count=1, rng=rng, **options)), None)


def _pair(
    facts: SceneFacts,
    plan: Plan,
    error: str,
    identifier: str,
    rng: np.random.Generator,
    wording: str,
    others: int,
    aggregate: str,
) -> PreferencePair:
    chain = build_chain(facts, plan, rng, others=others)
    question = reasoned(chain, plan, identifier, rng, wording=wording)
    wrong = corrupt(chain, plan, facts, error, rng)
    chosen, rejected = (
        scored_response(text, question, facts, aggregate=aggregate) for text in (question.answer, wrong.text)
    )
    return PreferencePair(identifier, (facts.scene.image,), question, chosen, rejected, error)


def _draw(facts: SceneFacts, planner: Planner, rng: np.random.Generator, error: str | None) -> Plan | None:
    for _ in range(_PATIENCE):
        plan = planner.draw(rng)
        if plan is None:
            return None
        if (error is None or applicable(error, plan)) and is_explainable(facts, plan):
            return plan
    return None


def _error_weights(errors: Mapping[str, float] | None) -> dict[str, float]:
    weights = dict(ERRORS if errors is None else errors)
    for error, weight in weights.items():
        if error not in ERRORS:
            raise ValueError(f"error is {error!r}; allowed: {', '.join(ERRORS)}")
        if weight < 0:
            raise ValueError(f"weight of error {error!r} is {weight}; it must be at least 0")
    weights = {error: weight for error, weight in weights.items() if weight > 0}
    if not weights:
        raise ValueError("no error has a weight above 0; name at least one")
    return weights


def _draw_error(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    mark = rng.random() * sum(weights.values())
    for error, weight in weights.items():
        mark -= weight
        if mark < 0:
            return error
    return next(reversed(list(weights)))
