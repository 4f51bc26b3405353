"""Questions for tool use: true by the scene's own geometry, settled by what the tools show, and readable back."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatial_lightning.scenes import Scene, generate, read_scenes, write_scenes
from spatial_lightning.steps import StepError
from spatial_lightning.synthesis.asking import KINDS
from spatial_lightning.synthesis.tasks import Claim, Task, argue
from spatial_lightning.synthesis.tools import DEPTH, SEGMENT, TOOLS, TOP_DOWN, Toolbox
from spatial_lightning.synthesis.traces import tasks_of, toolbox_of


def many(scenes: list[Scene], count: int = 6) -> list[tuple[Toolbox, Task]]:
    boxes = [toolbox_of(scene) for scene in scenes]
    return [(box, task) for box in boxes for task in tasks_of(box, seed=5, count=count)]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Toolbox, Task]]:
    return many([generate(4, index, difficulty=level) for level in ("easy", "default", "hard") for index in range(30)])


def true_answer(scene: Scene, task: Task, names: tuple[str | None, ...]) -> str:
    """The answer by the scene's positions and attributes alone, from the words of the question."""
    text, objects = task.question.text, scene.objects
    place = {name: index for index, name in enumerate(names)}

    def having(words: str) -> int:
        word = {f"{shape}s": shape for shape in ("cube", "sphere", "cylinder", "cone")}.get(words, words)
        wanted = set(word.removesuffix(" objects").split())
        return sum(wanted <= {o.size, o.color, o.material, o.shape} for o in objects)

    if found := re.fullmatch(r"How many (.+) are there\?", text):
        return str(having(found[1]))
    if found := re.fullmatch(r"Is there a (.+)\?", text):
        return "yes" if having(found[1]) else "no"
    if found := re.fullmatch(r"Are there more (.+) than (.+)\?", text):
        return "yes" if having(found[1]) > having(found[2]) else "no"
    if found := re.fullmatch(
        r"Is the (.+?) (left of|right of|in front of|behind|taller than|shorter than) the (.+)\?", text
    ):
        a, b = place[found[1]], place[found[3]]
        if "er than" in found[2]:
            taller = objects[a].dimensions[2] > objects[b].dimensions[2]
            return "yes" if taller == (found[2] == "taller than") else "no"
        relation = {"left of": "left", "right of": "right", "in front of": "front", "behind": "behind"}[found[2]]
        return "yes" if scene.offset(b, a, relation) > 0 else "no"
    found = re.fullmatch(r"What (color|shape) is the object nearest to (?:the camera|the (.+))\?", text)
    assert found, text
    if found[2] is None:
        nearest = min(objects, key=lambda o: o.depth)
    else:
        middle = objects[place[found[2]]]
        others = [o for o in objects if o is not middle]
        nearest = min(others, key=lambda o: math.dist(o.position[:2], middle.position[:2]))
    return str(getattr(nearest, found[1]))


def test_answers_are_true_in_the_scene(drawn: list[tuple[Toolbox, Task]]) -> None:
    assert {task.question.kind for _, task in drawn} == set(KINDS)
    for box, task in drawn:
        assert task.question.answer == true_answer(box.facts.scene, task, box.facts.names), task.question


def test_answers_about_clevr_scenes_are_true_too(clevr: list[Scene]) -> None:
    tasks = many(clevr)
    assert len(tasks) > 20
    for box, task in tasks:
        assert task.question.answer == true_answer(box.facts.scene, task, box.facts.names), task.question


def test_every_argument_settles_the_question(drawn: list[tuple[Toolbox, Task]]) -> None:
    for _, task in drawn:
        for argument in task.arguments:
            assert argument.tools
            assert argument.tools <= set(TOOLS)
            assert task.conclude(argument.claims) == task.question.answer
            assert task.read_claims(argue(argument.claims)) == argument.claims
            for claims, _ in argument.decoys:
                assert task.read_claims(argue(claims)) == claims
                assert claims != argument.claims


def test_claims_stand_in_the_text_of_their_tools(drawn: list[tuple[Toolbox, Task]]) -> None:
    """A reader of the tool output alone finds every object and every number that was read off."""
    for box, task in drawn:
        for argument in task.arguments:
            shown = "; ".join(box.use(tool).text for tool in argument.tools)
            for claim in argument.claims:
                if claim.label in task.objects:
                    assert claim.label in shown
                if task.rule in ("left", "right", "front", "behind"):
                    assert re.search(rf"{claim.label} [\d.,]*\b{re.escape(f'{claim.value:g}')}\b", shown)


def test_yes_and_no_are_about_equally_likely(drawn: list[tuple[Toolbox, Task]]) -> None:
    for kind in ("exist", "left_right", "front_behind", "taller_shorter"):
        answers = Counter(task.question.answer for _, task in drawn if task.question.kind == kind)
        assert 0.3 < answers["yes"] / answers.total() < 0.7, (kind, answers)


def test_fewer_tasks_are_the_first_of_more_and_the_same_each_time() -> None:
    box = toolbox_of(generate(4, 2))
    six = tasks_of(box, seed=1, count=6)
    assert tasks_of(box, seed=1, count=3) == six[:3]
    assert len({task.question.text for task in six}) == 6
    assert tasks_of(box, seed=2, count=6) != six


def test_unknown_kinds_and_tools_are_refused() -> None:
    box = toolbox_of(generate(4, 2))
    with pytest.raises(ValueError, match="'distance'; allowed for tool use: count"):
        tasks_of(box, seed=0, count=1, kinds=["distance"])
    with pytest.raises(StepError, match="no tool 'radar'; allowed: segment, depth, top_down"):
        box.use("radar")


def test_scenes_with_nameless_objects_are_not_asked_about(clevr: list[Scene]) -> None:
    nameless = [scene for scene in clevr if None in toolbox_of(scene).facts.names]
    for scene in nameless:
        assert not tasks_of(toolbox_of(scene), seed=0, count=4)


def test_claims_that_are_none_are_not_read() -> None:
    box = toolbox_of(generate(4, 2))
    (task,) = tasks_of(box, seed=0, count=1)
    name = task.objects[0]
    assert task.read_claims("none") == ()
    assert task.read_claims(f"{name} 12*6.1=73.") == (Claim(name, 73.0, "12*6.1"),)
    for text in ("", "a unicorn 3", f"{name} is left", f"{name} 3 4", f"{name}3"):
        assert task.read_claims(text) is None


def test_tools_list_objects_in_their_order() -> None:
    box = toolbox_of(generate(4, 2))
    for tool in TOOLS:
        rows = [re.fullmatch(r"(.+) ([\d.,-]+)", part) for part in box.use(tool).text.split("; ")]
        assert all(rows)
        assert {row[1] for row in rows if row} == set(box.facts.names)
        first = [float(row[2].split(",")[0]) for row in rows if row]
        assert first == sorted(first)
    facts = box.facts
    nearest = min(range(len(facts.names)), key=lambda index: facts.camera[index][2])
    assert box.use(DEPTH).text.startswith(f"{facts.names[nearest]} ")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, "train", 1, seed=4, size=(96, 64), workers=1)
    return read_scenes(root, "train")[0]


def test_tools_draw_what_they_say(written: Scene, tmp_path: Path) -> None:
    box = toolbox_of(written, tmp_path / "drawn")
    pictures = {}
    for tool in TOOLS:
        (path,) = box.use(tool).images
        pictures[tool] = np.asarray(Image.open(path)).astype(int)
        assert box.use(tool).text == toolbox_of(written).use(tool).text
    scene = np.asarray(Image.open(written.image).convert("RGB")).astype(int)
    changed = (pictures[SEGMENT] != scene).any(axis=2)
    assert changed.any()
    rows, columns = np.nonzero(changed)
    boxes = [item.box2d for item in written.objects if item.box2d]
    assert (min(b[0] for b in boxes), min(b[1] for b in boxes)) == (columns.min(), rows.min())
    by_depth = sorted(written.objects, key=lambda item: item.depth)
    centers = [
        pictures[DEPTH][int(item.pixel[1]), int(item.pixel[0]), 0] for item in by_depth if item.visible_fraction == 1
    ]
    assert centers == sorted(centers, reverse=True)
    assert set(map(tuple, pictures[TOP_DOWN].reshape(-1, 3))) > {(40, 40, 40)}


def test_tools_draw_clevr_scenes_without_a_pose(clevr: list[Scene], tmp_path: Path) -> None:
    box = toolbox_of(clevr[0], tmp_path)
    for tool in TOOLS:
        (path,) = box.use(tool).images
        assert len(np.unique(np.asarray(Image.open(path)))) > 1
