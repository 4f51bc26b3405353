"""Chains of thought are true and well formed; preference pairs differ in one thing, and the rewards say in which."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import oracle
import pytest

from spatial_lightning.records import DESCRIPTION, REASONING, PreferencePair
from spatial_lightning.scenes import Scene
from spatial_lightning.synthesis.chains import DISTANCES, REASONED_KINDS, build_chain, explain, is_explainable
from spatial_lightning.synthesis.errors import ERRORS, applicable, corrupt
from spatial_lightning.synthesis.facts import measure
from spatial_lightning.synthesis.grammar import parse_response
from spatial_lightning.synthesis.longcot import preference_pair, preference_pairs, reasoned_question
from spatial_lightning.synthesis.plans import Planner
from spatial_lightning.synthesis.rewards import score_response
from spatial_lightning.synthesis.rounding import read_length
from spatial_lightning.synthesis.spatialvlm import question_set

DESCRIPTION_ERRORS = ("attribute", "existence", "position")
REASONING_ERRORS = ("relation", "arithmetic")


def all_pairs(scenes: list[Scene], count: int = 12, **options) -> list[tuple[Scene, PreferencePair]]:
    return [
        (scene, pair)
        for number, scene in enumerate(scenes)
        for pair in preference_pairs(scene, count=count, rng=np.random.default_rng(number), **options)
    ]


def part(pair: PreferencePair, which: str, name: str) -> str:
    response = getattr(pair, which)
    return next(response.text[s.start : s.end] for s in response.segments if s.name == name)


def test_chains_end_with_the_true_answer(scenes: list[Scene]) -> None:
    for number, scene in enumerate(scenes):
        rng = np.random.default_rng(number)
        questions = question_set(scene, count=20, rng=rng, style="reasoned", wording="varied")
        assert questions
        for question in questions:
            final = parse_response(question.answer).final
            assert final is not None
            if question.options:
                assert final == oracle.closed_answer(question, scene)
            else:
                true = oracle.true_length(question, scene)
                assert question.value == pytest.approx(true, abs=1e-6)
                assert read_length(final) == pytest.approx(true, abs=0.05 + 1e-9)


def test_a_true_chain_is_perfect(scenes: list[Scene]) -> None:
    pairs = all_pairs(scenes)
    assert pairs
    for scene, pair in pairs:
        rewards = score_response(pair.chosen.text, scene, pair.question)
        assert rewards.visual_consistency == pytest.approx(4)
        assert rewards.logical_consistency == pytest.approx(4)
        assert rewards.spatial_reasoning == pytest.approx(4)
        asked = {"front_behind": 1, "left_right": 1, "above_below": 1, "horizontal_distance": 2}.get(
            pair.question.kind.removesuffix("_choice").removesuffix("_classify"), 3 if pair.question.value else 0
        )
        assert rewards.spatial_description == pytest.approx(4 * (asked + 0.8 * (3 - asked)) / 3)
        weighted = score_response(pair.chosen.text, scene, pair.question, aggregate="weighted")
        assert weighted.total == pytest.approx(16)


def test_chains_read_back_as_they_were_built(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(0)
    for scene in scenes:
        facts = measure(scene)
        planner = Planner(facts, REASONED_KINDS)
        for _ in range(10):
            plan = planner.draw(rng)
            assert plan is not None
            if is_explainable(facts, plan):
                chain = build_chain(facts, plan, rng)
                parsed = parse_response(chain.text)
                assert parsed.description == chain.described
                assert parsed.reasoning == (*chain.steps, chain.conclusion)
                assert parsed.final == chain.final
                assert parsed.description_sentences == len(chain.described)


def test_chosen_beats_rejected(scenes: list[Scene]) -> None:
    for scene, pair in all_pairs(scenes):
        chosen, rejected = (score_response(r.text, scene, pair.question) for r in (pair.chosen, pair.rejected))
        assert chosen.total > rejected.total + 0.1, pair
        assert pair.question.answer == pair.chosen.text
        assert pair.question.style == "reasoned"
        assert pair.question.text.endswith("Explain step by step.")


def test_each_error_stays_in_its_segment(scenes: list[Scene]) -> None:
    seen = set()
    for _, pair in all_pairs(scenes, count=30):
        seen.add(pair.error)
        gap = pair.reward_gap
        assert gap is not None
        if pair.error in DESCRIPTION_ERRORS:
            assert part(pair, "chosen", REASONING) == part(pair, "rejected", REASONING)
            assert gap[0] > 0.1
            assert gap[1] == 0
        else:
            assert part(pair, "chosen", DESCRIPTION) == part(pair, "rejected", DESCRIPTION)
            assert gap[0] == 0
            assert gap[1] >= 1
    assert seen == set(ERRORS)


def test_gaps_are_exact(scenes: list[Scene]) -> None:
    for scene, pair in all_pairs(scenes, count=30):
        gap = pair.reward_gap
        assert gap is not None
        described = 1 if pair.question.kind == "camera_distance" else 2
        chosen, rejected = (score_response(r.text, scene, pair.question) for r in (pair.chosen, pair.rejected))
        match pair.error:
            case "attribute":
                # One of two attributes of each described object.
                assert gap == (pytest.approx(1 / (2 * described)), 0)
            case "existence":
                mentions = described + len(parse_response(pair.rejected.text).description[-1].names)  # type: ignore[union-attr]
                assert gap == (pytest.approx(1 / mentions), 0)
            case "position":
                assert gap[0] == pytest.approx(chosen.spatial_description - rejected.spatial_description)
                assert gap[0] <= 4 / (3 * described) + 1e-9
            case "relation":
                # Step and conclusion contradict the scene (2 of 4 facts) and the measurements (2 of 3 checks).
                assert gap == (0, pytest.approx(2 / 4 + 2 / 3 + 1 + 4 * 2 / 4))
            case "arithmetic":
                lost = chosen.factual_consistency - rejected.factual_consistency
                terms = len(DISTANCES[pair.question.kind])
                assert lost <= 1 / (terms + 1) + 1e-9
                assert chosen.logical_coherence - rejected.logical_coherence == pytest.approx(1 / 6)
                assert gap == (0, pytest.approx(lost + 1 / 6 + 1 + 4 * lost))
            case "conclusion":
                assert gap == (0.0, 1.0)


def test_hard_negatives_differ_in_the_final_value_alone(scenes: list[Scene]) -> None:
    for _, pair in all_pairs(scenes, errors={"conclusion": 1.0}):
        chosen, rejected = pair.chosen.text, pair.rejected.text
        marker = "The final answer is "
        assert chosen.split(marker)[0] == rejected.split(marker)[0]
        wrong = parse_response(rejected).final
        assert wrong is not None
        if pair.question.options:
            assert wrong in pair.question.options
        else:
            assert pair.question.value is not None
            stated = read_length(wrong)
            assert stated is not None
            assert abs(stated - pair.question.value) / pair.question.value > 0.05
            assert abs(stated - pair.question.value) < max(0.3, 0.3 * pair.question.value) + 0.1 + 1e-9


def test_errors_follow_their_weights(procedural: list[Scene]) -> None:
    scene = procedural[-1]
    rngs = [np.random.default_rng(seed) for seed in range(400)]
    weights = {"attribute": 1.0, "conclusion": 3.0}
    drawn = Counter(pair.error for rng in rngs for pair in preference_pairs(scene, count=1, rng=rng, errors=weights))
    assert set(drawn) == set(weights)
    assert drawn["conclusion"] / 400 == pytest.approx(0.75, abs=0.09)


def test_pairs_differ(procedural: list[Scene]) -> None:
    pairs = preference_pairs(procedural[-1], count=40, rng=np.random.default_rng(0))
    assert len({(pair.question.text, pair.rejected.text) for pair in pairs}) == len(pairs) == 40
    assert len({pair.id for pair in pairs}) == 40


def test_same_seed_same_pair(procedural: list[Scene]) -> None:
    first, again, other = (preference_pair(procedural[3], rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_chains_are_short(procedural: list[Scene]) -> None:
    pairs = [pair for _, pair in all_pairs(procedural)]
    lengths = [len(pair.chosen.text.split()) for pair in pairs]
    assert max(lengths) <= 120
    assert np.mean(lengths) <= 95
    bare = [len(pair.chosen.text.split()) for _, pair in all_pairs(procedural, others=0)]
    assert np.mean(bare) < np.mean(lengths)


def test_arithmetic_shown_is_right(scenes: list[Scene]) -> None:
    checked = 0
    for number, scene in enumerate(scenes):
        rng = np.random.default_rng(number)
        for question in question_set(scene, count=5, rng=rng, style="reasoned", kinds=list(DISTANCES)):
            root = parse_response(question.answer).reasoning[-2]
            assert sum(root.squares) == pytest.approx(root.total, abs=1e-6)  # type: ignore[union-attr]
            assert root.total**0.5 == pytest.approx(root.root, abs=0.05 + 1e-9)  # type: ignore[union-attr]
            checked += 1
    assert checked


def test_a_plan_that_rounds_badly_is_refused(procedural: list[Scene]) -> None:
    facts = measure(procedural[-1])
    planner = Planner(facts, ["distance"])
    rng = np.random.default_rng(0)
    plans = [planner.draw(rng) for _ in range(300)]
    bad = next(plan for plan in plans if plan is not None and not is_explainable(facts, plan))
    with pytest.raises(ValueError, match="cannot be explained with one decimal"):
        explain(facts, bad, "x", rng)


def test_errors_apply_where_they_can(procedural: list[Scene]) -> None:
    facts, rng = measure(procedural[-1]), np.random.default_rng(0)
    plan = Planner(facts, ["left_right"]).draw(rng)
    assert plan is not None
    assert not applicable("arithmetic", plan)
    with pytest.raises(ValueError, match="does not apply"):
        corrupt(build_chain(facts, plan, rng), plan, facts, "arithmetic", rng)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"errors": {"typo": 1.0}}, "allowed: attribute, existence"),
        ({"errors": {"relation": -1.0}}, "at least 0"),
        ({"errors": {"relation": 0.0}}, "no error has a weight above 0"),
        ({"kinds": ["width", "height"]}, "answered with reasoning"),
        ({"aggregate": "median"}, "allowed: mean, weighted"),
    ],
)
def test_bad_options_are_refused(procedural: list[Scene], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preference_pairs(procedural[-1], count=2, rng=np.random.default_rng(0), **options)


def test_an_empty_scene_gives_nothing(procedural: list[Scene]) -> None:
    empty = replace(procedural[0], objects=())
    assert preference_pairs(empty, count=3, rng=np.random.default_rng(0)) == []
    assert preference_pair(empty, rng=np.random.default_rng(0)) is None
    assert reasoned_question(empty, rng=np.random.default_rng(0)) is None


def test_an_error_that_no_question_admits_gives_nothing(procedural: list[Scene]) -> None:
    rng = np.random.default_rng(0)
    assert preference_pairs(procedural[-1], count=3, rng=rng, kinds=["distance"], errors={"relation": 1.0}) == []
