"""Questions are true, unambiguous, balanced, short and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import oracle
import pytest

from spatial_lightning.records import Question
from spatial_lightning.scenes import Scene, generate
from spatial_lightning.synthesis.facts import SIZE_AXES, measure
from spatial_lightning.synthesis.plans import WEIGHTS, kind_weights, split_kind
from spatial_lightning.synthesis.rounding import read_length
from spatial_lightning.synthesis.spatialvlm import question_set

DIRECTIONS = [kind for kind in WEIGHTS if kind.startswith(("left_right", "front_behind")) and "offset" not in kind]


def many(scenes: list[Scene], count: int = 60, **options) -> list[tuple[Scene, Question]]:
    return [
        (scene, question)
        for number, scene in enumerate(scenes)
        for question in question_set(scene, count=count, rng=np.random.default_rng(number), **options)
    ]


@pytest.mark.parametrize("wording", ["plain", "varied"])
def test_closed_answers_are_true(scenes: list[Scene], wording: str) -> None:
    closed = [(scene, question) for scene, question in many(scenes, wording=wording) if question.options]
    assert closed
    for scene, question in closed:
        assert question.answer in question.options
        assert question.answer == oracle.closed_answer(question, scene), question


@pytest.mark.parametrize("wording", ["plain", "varied"])
def test_lengths_are_true(scenes: list[Scene], wording: str) -> None:
    quantities = [(scene, question) for scene, question in many(scenes, wording=wording) if not question.options]
    assert quantities
    for scene, question in quantities:
        assert question.value == pytest.approx(oracle.true_length(question, scene), abs=1e-6), question
        assert question.value is not None
        assert read_length(question.answer) == pytest.approx(question.value, abs=0.05 + 1e-9)


def test_every_kind_occurs(procedural: list[Scene], raised: Scene) -> None:
    found = {question.kind for _, question in many([*procedural, raised], count=200)}
    assert found == set(WEIGHTS)


def test_nothing_on_the_ground_is_above_or_below(clevr: list[Scene]) -> None:
    assert not [q for _, q in many(clevr) if q.kind.startswith(("above_below", "vertical"))]


def test_directions_are_clear_by_the_margin(scenes: list[Scene]) -> None:
    for scene, question in many(scenes, kinds=DIRECTIONS, margin=0.8):
        a, b = oracle.objects_in(question.text, scene)
        direction = "left" if question.kind.startswith("left") else "behind"
        assert abs(scene.offset(a, b, direction)) >= 0.8


def test_size_questions_do_not_name_sizes(scenes: list[Scene]) -> None:
    for scene, question in many(scenes):
        if split_kind(question.kind)[0] in SIZE_AXES:
            sizes = {item.size for item in scene.objects}
            assert not sizes & set(question.text.replace("?", "").split()), question.text


def test_hidden_objects_are_not_asked_about(procedural: list[Scene]) -> None:
    scene = procedural[-1]
    objects = (replace(scene.objects[0], visible_fraction=0.05), *scene.objects[1:])
    hidden = replace(scene, objects=objects)
    assert any(0 in oracle.objects_in(q.text, scene) for _, q in many([scene]))
    assert not any(0 in oracle.objects_in(q.text, hidden) for _, q in many([hidden]))


@pytest.fixture(scope="module")
def crowd(procedural: list[Scene]) -> list[Question]:
    rngs = [np.random.default_rng(seed) for seed in range(60)]
    return [q for rng in rngs for scene in procedural for q in question_set(scene, count=8, rng=rng)]


def test_answers_are_balanced(crowd: list[Question]) -> None:
    predicates = [q for q in crowd if set(q.options) == {"yes", "no"}]
    choices = [q for q in crowd if q.kind.endswith("_choice")]
    classified = [q for q in crowd if q.kind.endswith("_classify")]
    lows = ("left", "front", "shorter", "thinner", "smaller")
    for hits in (
        [q.answer == "yes" for q in predicates],
        [q.options[0] == "yes" for q in predicates],
        [q.answer == q.options[0] for q in choices],
        [q.answer == q.options[0] for q in classified],
        [q.answer in lows for q in classified],
    ):
        assert len(hits) > 1000
        # 4 standard deviations of a fair coin.
        assert abs(np.mean(hits) - 0.5) < 2 / np.sqrt(len(hits))


def test_options_are_spoken_in_their_order(crowd: list[Question]) -> None:
    for question in crowd:
        if question.kind.endswith("_choice"):
            first, second = (question.text.index(f"the {option}") for option in question.options)
            assert first < second


def test_kinds_follow_their_weights(raised: Scene) -> None:
    kinds = {"distance": 3.0, "left_right": 1.0}
    drawn = Counter(
        question_set(raised, count=1, rng=np.random.default_rng(seed), kinds=kinds)[0].kind for seed in range(1200)
    )
    assert set(drawn) == set(kinds)
    assert drawn["distance"] / 1200 == pytest.approx(0.75, abs=0.05)


def test_a_list_of_kinds_keeps_the_published_weights() -> None:
    assert kind_weights(["left_right", "distance"]) == {"left_right": 8, "distance": 4}
    # The paper's weights sum to 81; gap, elevation and the above and below differences (1 each) are not asked.
    assert sum(weight for kind, weight in WEIGHTS.items() if kind != "camera_distance") == 81 - 4


def test_questions_differ_and_carry_numbered_ids(procedural: list[Scene]) -> None:
    scene = procedural[-1]
    questions = question_set(scene, count=100, rng=np.random.default_rng(0), first_id=7)
    assert len({q.text for q in questions}) == len(questions) > 20
    assert [q.id for q in questions] == [f"{scene.split}-{scene.index:06d}-{n}" for n in range(7, 7 + len(questions))]


def test_same_seed_same_questions(procedural: list[Scene]) -> None:
    def draw(seed: int) -> list[Question]:
        rng = np.random.default_rng(seed)
        return question_set(procedural[4], count=12, rng=rng, rounding="human", wording="varied")

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)


def test_questions_are_short(scenes: list[Scene]) -> None:
    for wording in ("plain", "varied"):
        lengths = [len(question.text.split()) for _, question in many(scenes, wording=wording)]
        assert np.mean(lengths) <= 14
        assert max(lengths) <= 22


def test_a_scene_with_one_object_allows_only_questions_about_one() -> None:
    scene = generate(3, 0)
    lonely = replace(scene, objects=scene.objects[:1], relationships={r: ((),) for r in scene.relationships})
    kinds = {q.kind for q in question_set(lonely, count=20, rng=np.random.default_rng(0))}
    assert kinds == {"width", "height", "camera_distance"}
    nothing = replace(scene, objects=())
    assert question_set(nothing, count=20, rng=np.random.default_rng(0)) == []


def test_twins_are_not_asked_about(procedural: list[Scene]) -> None:
    scene = procedural[0]
    first = scene.objects[0]
    twin = replace(scene.objects[1], **{part: getattr(first, part) for part in ("size", "color", "material", "shape")})
    facts = measure(replace(scene, objects=(first, twin, *scene.objects[2:])))
    assert facts.names[:2] == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "count is -1"),
        ({"kinds": ["left_rihgt"]}, "did you mean left_right"),
        ({"kinds": {"distance": -1.0}}, "at least 0"),
        ({"kinds": {"distance": 0.0}}, "no question kind"),
        ({"rounding": "loose"}, "allowed: none, decimal, human"),
        ({"wording": "fancy"}, "allowed: plain, varied"),
        ({"style": "poem"}, "allowed: direct, reasoned"),
        ({"margin": 0.1}, "at least 0.2 m"),
        ({"style": "reasoned", "kinds": ["width"]}, "answered with reasoning"),
    ],
)
def test_bad_options_are_refused(procedural: list[Scene], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        question_set(procedural[0], **{"count": 40, "rng": np.random.default_rng(0)} | options)
