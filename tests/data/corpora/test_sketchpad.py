"""Recorded Visual Sketchpad conversations become traces with their pictures and the true answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from reading import encode, pictures_of, read, write_picture

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.data.corpora import Sketchpad
from spatial_lightning.records import RecordError


@pytest.fixture
def traces(shared_data: Path, tmp_path: Path) -> Path:
    """The published conversations with pictures in place of the removed ones."""
    folder = tmp_path / "outputs"
    for source in sorted((shared_data / "visual_sketchpad_traces").rglob("*.json")):
        copy = folder / source.relative_to(shared_data / "visual_sketchpad_traces")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    for number, side in ((1, 40), (2, 48)):
        write_picture(folder / "blink_spatial" / "val_Spatial_Relation_1" / f"removed_{number}.png", side)
    return folder


def said(role: str, *parts: str | dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def write(folder: Path, messages: Any, gold: dict[str, Any] | None = None) -> Path:
    place = folder / "task" / "one"
    place.mkdir(parents=True, exist_ok=True)
    (place / "output.json").write_text(json.dumps(messages))
    if gold is not None:
        (place / "request.json").write_text(json.dumps(gold))
    return folder


CONVERSATION = [
    said("user", "Tools.\n# USER REQUEST #: example\n# USER REQUEST #: How tall?\n# RESULT #:"),
    said("assistant", "THOUGHT 0: look\nACTION 0: f()"),
    said("user", "OBSERVATION: 3"),
    said("assistant", "THOUGHT 1: so\nANSWER: It is 3. TERMINATE"),
]


def test_published_conversations_load_and_encode(traces: Path, tiny: Backbone, tmp_path: Path) -> None:
    blink, geometry, flow = read(Sketchpad(path=str(traces)), tmp_path)
    assert [trace.id for trace in (blink, geometry, flow)] == [
        "blink_spatial/val_Spatial_Relation_1",
        "geometry/2079",
        "graph_max_flow/5",
    ]
    assert [(trace.question.answer, trace.correct) for trace in (blink, flow)] == [("(B)", True), ("10", True)]
    assert "90^" in geometry.question.answer
    assert geometry.correct is None
    assert [path.name for path in (*blink.images, *blink.steps[0].images)] == ["removed_1.png", "removed_2.png"]
    assert [len(step.images) for step in flow.steps] == [0, 1, 0]
    assert blink.question.text.startswith("Is the car beneath the cat?\nSelect from")
    assert flow.question.text.startswith("You are given an adjacency matrix of a graph")
    for trace in (blink, geometry, flow):
        rows = json.loads((traces / trace.id / "output.json").read_text())
        assert [step.text for step in trace.steps] == [
            "\n".join(part["text"] for part in row["content"]) for row in rows if row["role"] == "assistant"
        ]
        assert trace.steps[-1].text.rstrip().endswith("TERMINATE")
        assert trace.system.startswith("Here are some tools")
        tree = encode(Encoder(tiny.processor), trace)
        assert tree.branches == len(trace.steps)
        assert sum(len(node.images) for node in tree.nodes) == len(trace.images) + sum(
            len(step.images) for step in trace.steps
        )


@pytest.mark.parametrize("path", ["geometry", "geometry/2079/output.json", "geo*/*"])
def test_a_part_of_the_outputs_can_be_read(path: str, traces: Path, tmp_path: Path) -> None:
    (trace,) = read(Sketchpad(path=str(traces / path)), tmp_path)
    assert trace.id == "geometry/2079"


def test_the_explanation_of_the_tools_can_be_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "outputs", CONVERSATION)
    (trace,) = read(Sketchpad(path=str(folder)), tmp_path)
    assert trace.system == "Tools.\n# USER REQUEST #: example"
    assert trace.question.text == "How tall?\n# RESULT #:"
    assert read(Sketchpad(path=str(folder), instructions="drop"), tmp_path)[0].system == ""


def test_removed_pictures_are_errors_until_they_are_put_back(shared_data: Path, traces: Path, tmp_path: Path) -> None:
    published = shared_data / "visual_sketchpad_traces" / "blink_spatial"
    where = r"picture 1 is \[image removed: PNG 640x512\]: put it at .*val_Spatial_Relation_1/removed_1.png"
    with pytest.raises(RecordError, match=where):
        read(Sketchpad(path=str(published)), tmp_path)
    (dropped,) = read(Sketchpad(path=str(published), removed="drop"), tmp_path)
    assert dropped.images == dropped.steps[0].images == ()
    (restored,) = read(Sketchpad(path=str(published), images=str(traces)), tmp_path)
    assert restored.images[0].read_bytes() == (traces / restored.id / "removed_1.png").read_bytes()


@pytest.mark.parametrize(
    ("answer", "gold", "correct"),
    [
        ("So the answer is (B).", {"answer": "(B)"}, True),
        ("Not (B) but (A).", {"answer": "(B)"}, False),
        ("(A)", {"answer": "B", "choices": [1, 2]}, False),
        ("It is 2.", {"answer": "B", "choices": ["1", "2"]}, True),
        ("It is 2.", {"answer": "C", "choices": ["1", "2"]}, None),
        ("The flow from 0 to 2 is 10.", {"label": 10}, True),
        ("The flow from 10 is 2.", {"label": 10}, False),
        ("-1.5", {"label": -1.5}, True),
        ("none", {"label": 3}, None),
        ("Even.", {"label": "even"}, True),
        ("not even", {"label": "even"}, None),
        ("whatever", None, None),
    ],
)
def test_the_answer_is_held_against_the_true_one(
    answer: str, gold: dict[str, Any] | None, correct: bool | None, tmp_path: Path
) -> None:
    messages = [*CONVERSATION[:-1], said("assistant", f"ANSWER: {answer} TERMINATE")]
    (trace,) = read(Sketchpad(path=str(write(tmp_path / "outputs", messages, gold))), tmp_path)
    assert trace.correct is correct
    if gold is None:
        assert trace.question.answer == answer


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (CONVERSATION[:-1], "the last step has no ANSWER"),
        (CONVERSATION[1:], "begins with assistant"),
        (CONVERSATION[:1], "there is no step"),
        ([*CONVERSATION[:2], CONVERSATION[1]], "step 2 repeats step 1"),
        ([CONVERSATION[0], said("assistant", "")], "step 1 is empty"),
        ([CONVERSATION[0], said("assistant", {"type": "text", "text": 3})], "a part of type text needs text, got int"),
        (
            [
                said("user", "?", {"type": "image_url", "image_url": {"url": "iVBORw0KGgo" + "A" * 101}}),
                CONVERSATION[3],
            ],
            "cannot be read",
        ),
        ({"a": 1}, "key 'document' is missing"),
    ],
)
def test_bad_conversations_say_what_is_wrong(messages: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read(Sketchpad(path=str(write(tmp_path / "outputs", messages))), tmp_path)


def test_bad_gold_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "outputs", CONVERSATION)
    for text, message in (("{", "request.json is not valid JSON"), ("[]", "must be a JSON object, got list")):
        (folder / "task" / "one" / "request.json").write_text(text)
        with pytest.raises(RecordError, match=message):
            read(Sketchpad(path=str(folder)), tmp_path)


def test_a_conversation_that_stops_can_be_taken(tmp_path: Path) -> None:
    folder = write(tmp_path / "outputs", CONVERSATION[:-1], {"answer": "3"})
    (trace,) = read(Sketchpad(path=str(folder), require_answer=False), tmp_path)
    assert (trace.correct, trace.question.answer) == (False, "3")


def test_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="removed is 'blank'; allowed: error, drop"):
        Sketchpad(path="unused", removed="blank")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="instructions is 'user'; allowed: system, drop"):
        Sketchpad(path="unused", instructions="user")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no output.json at or below"):
        pictures_of(Sketchpad(path=str(tmp_path)), tmp_path)
