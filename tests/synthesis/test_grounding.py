"""Lists and descriptions: complete, in true order, and in the words of the chains."""

from __future__ import annotations

from pathlib import Path

from spatial_lightning.records import BadRows, ImageQuestions, read_records
from spatial_lightning.scenes import Scene
from spatial_lightning.synthesis.corpus import write_question_corpus
from spatial_lightning.synthesis.facts import measure
from spatial_lightning.synthesis.grammar import parse_statement
from spatial_lightning.synthesis.grounding import grounding_questions
from spatial_lightning.synthesis.statements import Seen


def test_lists_name_every_object_in_the_order_of_its_coordinate(scenes: list[Scene]) -> None:
    for scene in scenes:
        facts = measure(scene)
        asked = {question.text: question.answer for question in grounding_questions(scene)}
        for words, axis in (("left to right", "left_right"), ("front to back", "front_behind")):
            names = asked[f"What is there from {words}?"].split(", ")
            assert sorted(names) == sorted(name for name in facts.names if name)
            along = [facts.along[axis][facts.names.index(name)] for name in names]
            assert along == sorted(along)
            backwards = " to ".join(words.split(" to ")[::-1])
            if len(set(along)) == len(along):
                assert asked[f"What is there from {backwards}?"].split(", ") == names[::-1]


def test_descriptions_are_read_back_as_what_is_in_the_scene(scenes: list[Scene]) -> None:
    for scene in scenes:
        facts = measure(scene)
        described = [question for question in grounding_questions(scene) if question.kind == "description"]
        assert len(described) == sum(name is not None for name in facts.names)
        for question in described:
            seen = parse_statement(question.answer.removesuffix("."))
            assert isinstance(seen, Seen)
            item = scene.objects[facts.names.index(seen.name)]
            assert question.text == f"Describe the {seen.name}."
            assert seen.attributes == (item.size, item.material)
            assert seen.depth is not None
            assert abs(seen.depth - item.depth) <= 0.05 + 1e-9


def test_a_corpus_may_hold_nothing_else(procedural: list[Scene], tmp_path: Path) -> None:
    path = tmp_path / "grounding.jsonl"
    write_question_corpus(path, procedural[:2], seed=0, questions_per_image=0, grounding=True)
    records = list(read_records(path, ImageQuestions, BadRows()))
    kinds = {question.kind for record in records for question in record.questions}
    assert kinds == {"left_right_order", "front_behind_order", "description"}
