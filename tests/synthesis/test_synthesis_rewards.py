"""The judge's components stay in range, follow the paper's identities, and survive any text."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatial_lightning.records import Question
from spatial_lightning.scenes import Scene, generate
from spatial_lightning.synthesis.evidence import Evidence, grade_length, grade_percent
from spatial_lightning.synthesis.facts import measure
from spatial_lightning.synthesis.longcot import reasoned_question
from spatial_lightning.synthesis.rewards import Rewards, is_right, score_response, scored_response, spatial_reward
from spatial_lightning.synthesis.spatialvlm import question_set

SCENE = generate(11, 0, difficulty="hard")
FACTS = measure(SCENE)
QUESTIONS = [
    question
    for seed in range(4)
    for question in question_set(SCENE, count=6, rng=np.random.default_rng(seed), style="reasoned")
]


def assert_in_range(rewards: Rewards) -> None:
    for name in Rewards.__dataclass_fields__:
        assert 0 <= getattr(rewards, name) <= (4 if name.startswith("spatial") else 1), name
    for segment in (rewards.description, rewards.reasoning):
        assert all(0 <= value <= 4 for value in segment.values())
        assert sum(segment.values()) <= 8
    assert 0 <= rewards.total <= 16


@given(st.text(max_size=400))
def test_any_text_is_scored(text: str) -> None:
    assert_in_range(score_response(text, FACTS, QUESTIONS[0]))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(QUESTIONS), st.data())
def test_mangled_chains_are_scored(question: Question, data: st.DataObject) -> None:
    text = question.answer
    for _ in range(data.draw(st.integers(1, 4))):
        start, stop, place = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 3)))
        insert = data.draw(
            st.sampled_from(["", text[start:stop], " ", ".", "9" * 30, "1e999 ", "</description>", "-", "é"])
        )
        text = text[:start] + insert + text[stop:place] + text[place:]
    rewards = score_response(text, FACTS, question)
    assert_in_range(rewards)
    assert rewards.total <= score_response(question.answer, FACTS, question).total + 4


def test_nothing_said_earns_nothing() -> None:
    for text in ("", "I do not know.", "<description></description><reasoning></reasoning>", "yes", "\x00" * 50):
        assert score_response(text, FACTS, QUESTIONS[0]).total == 0


def test_the_order_of_scoring_does_not_matter() -> None:
    first = [score_response(q.answer, SCENE, q) for q in QUESTIONS]
    again = [score_response(q.answer, FACTS, q) for q in reversed(QUESTIONS)]
    assert first == again[::-1]


def test_true_statements_of_every_weight() -> None:
    for (hedged, wu), (asked, wc) in product(((False, 1.0), (True, 0.8)), ((True, 1.0), (False, 0.8))):
        evidence = [Evidence(1.0, asked, hedged)] * 5
        assert spatial_reward(evidence) == pytest.approx(4 * wu * wc)
        assert spatial_reward(evidence, aggregate="weighted") == pytest.approx(4)
    assert spatial_reward([Evidence(1.0, False, True)] * 3) == pytest.approx(2.56)
    assert spatial_reward([]) == 0


@given(st.lists(st.builds(Evidence, st.floats(0, 1), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_spatial_rewards_are_bounded_and_monotone(evidence: list[Evidence]) -> None:
    better = [Evidence(min(1.0, e.value + 0.1), e.asked, e.hedged) for e in evidence]
    for aggregate in ("mean", "weighted"):
        assert 0 <= spatial_reward(evidence, aggregate=aggregate) <= spatial_reward(better, aggregate=aggregate) <= 4


def test_hedged_auxiliary_text_reaches_the_published_bound() -> None:
    question = next(q for q in QUESTIONS if q.kind.startswith(("tall", "wide", "big")))
    # A question about sizes makes every place in the description auxiliary.
    described = question.answer.split("</description>")[0]
    hedged = described.replace("% down", "% down probably") + "</description>"
    assert hedged.count("probably") == 2
    assert score_response(hedged, FACTS, question).spatial_description == pytest.approx(2.56)


def test_totals_of_the_published_example() -> None:
    # arXiv:2506.21656 Fig. 3, descriptive / spatial / reasoning: 3.4 / 3.5 / 2.8 and 3.8 / 7.6 / 3.8.
    negative = Rewards(1, 1, 1, 0.4, 0.7, 0.7, 0.7, 0.7, 1.5, 2.0)
    positive = Rewards(1, 1, 1, 0.8, 1, 1, 1, 0.8, 3.8, 3.8)
    assert negative.total == pytest.approx(9.7)
    assert positive.total == pytest.approx(15.2)


@pytest.mark.parametrize(
    ("edit", "component"),
    [
        ((r" deep\.", " deep. The moon shines."), "appropriateness"),
        ((r"Step 2:", "Step 7:"), "logical_coherence"),
        ((r"Step 1: [^.]*\.\d [^.]*\. ", ""), "rule_application"),
        ((r"The final answer is .*</reasoning>", "</reasoning>"), "conclusion_validity"),
    ],
)
def test_each_component_notices_its_fault(edit: tuple[str, str], component: str) -> None:
    for question in QUESTIONS:
        broken = re.sub(edit[0], edit[1], question.answer, count=1)
        assert broken != question.answer
        whole, hurt = (score_response(text, FACTS, question) for text in (question.answer, broken))
        assert getattr(hurt, component) < getattr(whole, component) == 1


def test_an_object_left_out_is_incomplete() -> None:
    question = next(q for q in QUESTIONS if q.options)
    cut = re.sub(r"<description>[^.]*\.\d [^.]*\. ?", "<description>", question.answer, count=1)
    assert score_response(cut, FACTS, question).completeness == 0.5


@pytest.mark.parametrize("mentions", ["a pink teapot", "a {name}, a {name}"])
def test_invented_and_doubled_objects_do_not_exist(mentions: str) -> None:
    question = QUESTIONS[0]
    described = question.answer.split("</description>")[0]
    name = next(item.name for item in SCENE.objects if f"{item.color} {item.shape}" not in described)
    too_many = question.answer.replace("</description>", f" Also visible: {mentions.format(name=name)}.</description>")
    honest = question.answer.replace("</description>", f" Also visible: a {name}.</description>")
    assert score_response(too_many, FACTS, question).existence < 1
    assert score_response(honest, FACTS, question).existence == 1


@given(st.floats(0.1, 30), st.floats(-40, 40), st.floats(0, 10))
def test_grades_fall_with_the_error(true: float, error: float, more: float) -> None:
    further = error + more if error >= 0 else error - more
    assert 0 <= grade_length(true + further, true) <= grade_length(true + error, true) <= 1
    assert 0 <= grade_percent(true + further, true) <= grade_percent(true + error, true) <= 1
    assert grade_length(true, true) == grade_percent(true, true) == 1
    assert grade_length(true * 2 + 1, true) == 0


@pytest.mark.parametrize(
    ("final", "right"),
    [
        ("11.0 meters", True),
        ("11.3 meters", True),
        ("10 meters", False),
        ("1100 cm", True),
        ("36 feet", True),
        ("eleven", False),
    ],
)
def test_final_lengths(final: str, right: bool) -> None:
    question = Question("q", "How far?", "11.0 meters", "distance", value=11.0)
    assert is_right(final, question) is right


def test_final_options() -> None:
    question = Question("q", "Which?", "red cube", "left_right_choice", options=("red cube", "blue sphere"))
    assert is_right("red cube", question)
    assert is_right("the red cube.", question)
    assert not is_right("blue sphere", question)
    assert not is_right("red cube or blue sphere", question)


def test_responses_are_cut_and_scored(procedural: list[Scene]) -> None:
    for scene in procedural:
        question = reasoned_question(scene, rng=np.random.default_rng(0))
        assert question is not None
        response = scored_response(question.answer, question, scene)
        assert [segment.name for segment in response.segments] == ["description", "reasoning"]
        assert [set(segment.rewards or {}) for segment in response.segments] == [{"vc", "sp"}, {"lc", "sp"}]


def test_foreign_questions_are_scored() -> None:
    foreign = Question("q", "Is Region [0] behind the teapot?", "yes", "front_predicate", options=("yes", "no"))
    assert_in_range(score_response(QUESTIONS[0].answer, FACTS, foreign))
    assert score_response("The final answer is yes.", FACTS, foreign).conclusion_validity == 1
