"""Chats: the published sample, roles and contents of the common tools, pictures between words, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from question_samples import assert_encodes, convert, picture_bytes, read, write_pictures

from spatial_lightning.backbones import Backbone
from spatial_lightning.data.corpora import Chat
from spatial_lightning.records import ImageQuestions, RecordError, Trace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path, ["1.jpg", "2.jpg", "3.jpg"])


def turns(
    *texts: Any, names: tuple[str, str, str, str] = ("role", "content", "user", "assistant")
) -> list[dict[str, Any]]:
    role, content, user, assistant = names
    return [{role: assistant if index % 2 else user, content: text} for index, text in enumerate(texts)]


def test_the_sample_is_read_as_conversations(shared_data: Path, tiny: Backbone) -> None:
    folder = shared_data / "llamafactory_demo"
    rows = json.loads((folder / "mllm_demo.json").read_text())
    records = read(Chat(path=str(folder / "mllm_demo.json")), folder)
    assert [record.id for record in records] == [f"corpus/{number}" for number in range(6)]
    for record, row in zip(records, rows, strict=True):
        said = [turn["content"].replace("<image>", "") for turn in row["messages"]]
        assert isinstance(record, Trace)
        assert (record.question.text, record.question.answer) == (said[0], said[-1])
        assert [step.text for step in record.steps] == said[1::2]
        assert [step.observation for step in record.steps] == [*said[2::2], ""]
        shown = [*record.images, *(path for step in record.steps for path in step.images)]
        assert [str(path.relative_to(folder)) for path in shown] == row["images"]
        assert len(record.images) == 1
        assert_encodes(tiny, record)


def test_the_sample_is_read_as_questions_where_they_share_their_picture(shared_data: Path, tiny: Backbone) -> None:
    folder = shared_data / "llamafactory_demo"
    rows = json.loads((folder / "mllm_demo.json").read_text())
    reader = Chat(path=str(folder / "mllm_demo.json"), turns="independent")
    for row in rows:
        if len(row["images"]) == 2:
            with pytest.raises(RecordError, match="question 1 shows a picture of its own"):
                convert(reader, row, folder)
            continue
        record = convert(reader, row, folder)
        said = [turn["content"].replace("<image>", "") for turn in row["messages"]]
        assert [(q.text, q.answer) for q in record.questions] == list(zip(said[::2], said[1::2], strict=True))
        assert_encodes(tiny, record)


def test_what_a_reader_makes_is_known_before_it_reads() -> None:
    assert Chat(path="x").record_type is Trace
    assert Chat(path="x", turns="independent").record_type is ImageQuestions
    assert Chat.record_type is Trace


@pytest.mark.parametrize(
    "row",
    [
        {"messages": turns("<image>Where?", "Here.", "Why?", "So."), "images": ["1.jpg"]},
        {"messages": turns("Where?", "Here.", "Why?", "So."), "image": "1.jpg"},
        {"messages": json.dumps(turns("Where?", "Here.", "Why?", "So.")), "images": '["1.jpg"]'},
        {"conversations": turns("<image>\nWhere?", "Here.", "Why?", "So.", names=("from", "value", "human", "gpt")),
         "image": "1.jpg"},
        {"messages": turns("Where?\n<image>", "Here.", "Why?", "So.", names=("role", "content", "user", "model")),
         "images": ["1.jpg"]},
        {"messages": turns(
            [{"type": "image"}, {"type": "text", "text": "Where?"}], [{"type": "text", "text": "Here."}], "Why?", "So."),
         "images": ["1.jpg"]},
        {"messages": turns(
            [{"type": "image", "image": "1.jpg", "text": None}, {"type": "text", "text": "Where?", "image": None}],
            "Here.", "Why?", [{"type": "text", "value": "So."}])},
        {"messages": turns(
            [{"type": "text", "text": "Where?"}, {"type": "image_url", "image_url": {"url": "1.jpg"}}],
            "Here.", "Why?", "So.")},
        {"prompt": turns("Where?")[:1], "completion": turns("", "Here.", "Why?", "So.")[1:], "images": ["1.jpg"]},
    ],
)  # fmt: skip
def test_all_spellings_give_the_same_conversation(folder: Path, tiny: Backbone, row: dict[str, Any]) -> None:
    record = convert(Chat(path="x"), row, folder)
    wanted = {"messages": turns("<image>Where?", "Here.", "Why?", "So."), "images": ["1.jpg"]}
    assert record == convert(Chat(path="x"), wanted, folder)
    assert (record.question.text, record.question.answer, record.question.kind) == ("Where?", "So.", "chat")
    assert [(step.text, step.observation) for step in record.steps] == [("Here.", "Why?"), ("So.", "")]
    assert record.images == (folder / "1.jpg",)
    assert_encodes(tiny, record)


@pytest.mark.parametrize(
    "extra",
    [
        {"messages": [{"role": "system", "content": "Be short."}, *turns("Where?", "Here.")]},
        {"messages": turns("Where?", "Here."), "system": "Be short."},
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
                *turns("Where?", "Here."),
            ]
        },
    ],
)
@pytest.mark.parametrize("style", ["conversation", "independent"])
def test_system_turns_stay_with_the_record(folder: Path, tiny: Backbone, extra: dict[str, Any], style: Any) -> None:
    record = convert(Chat(path="x", turns=style), {"images": ["1.jpg"]} | extra, folder)
    assert record.system == "Be short."
    assert_encodes(tiny, record)


def test_trl_prompts_may_be_plain_text(folder: Path) -> None:
    record = convert(Chat(path="x"), {"prompt": "Where?", "completion": "Here.", "image": "1.jpg"}, folder)
    assert (record.question.text, [step.text for step in record.steps]) == ("Where?", ["Here."])


def test_reasoning_parts_are_written_out(folder: Path) -> None:
    answer = [{"type": "reasoning", "value": "It looks near."}, {"type": "text", "value": "Here."}]
    record = convert(Chat(path="x"), {"messages": turns("Where?", answer), "image": "1.jpg"}, folder)
    assert record.steps[0].text == "<think>\nIt looks near.\n</think>\n\nHere."


def test_later_turns_show_their_own_pictures(folder: Path, tiny: Backbone) -> None:
    row = {
        "messages": turns("<image><image>\nWhere?", "Here.", "And now?<image>", "There."),
        "images": ["1.jpg", "2.jpg", "3.jpg"],
    }
    record = convert(Chat(path="x"), row, folder)
    assert [path.name for path in record.images] == ["1.jpg", "2.jpg"]
    assert [path.name for path in record.steps[0].images] == ["3.jpg"]
    assert record.steps[0].observation == "And now?"
    assert_encodes(tiny, record)


@pytest.mark.parametrize("parts", [False, True])
def test_pictures_between_words_are_still_referred_to(folder: Path, tiny: Backbone, parts: bool) -> None:
    said: Any = ["<image>Is this above?", "No.", "Compare <image> with <image> please.", "Same."]
    if parts:
        image, compare, please = (
            {"type": "image"},
            {"type": "text", "text": "Compare"},
            {"type": "text", "text": "please."},
        )
        said[0] = [image, {"type": "text", "text": "Is this above?"}]
        said[2] = [{"type": "text", "text": " "}, compare, image, {"type": "text", "text": "with"}, image, please]
    row = {"messages": turns(*said), "images": ["1.jpg", "2.jpg", "3.jpg"]}
    record = convert(Chat(path="x"), row, folder)
    assert record.question.text == "Is this above?"
    assert " ".join(record.steps[0].observation.split()) == "Compare [image 2] with [image 3] please."
    assert [path.name for path in record.steps[0].images] == ["2.jpg", "3.jpg"]
    assert_encodes(tiny, record)


def test_placeholders_inside_text_parts_are_pictures_too(folder: Path) -> None:
    first = [{"type": "text", "text": "Is <image> above <image>?"}]
    row = {"messages": turns(first, "No.", "<image>Where?", "Here."), "images": ["1.jpg", "2.jpg", "3.jpg"]}
    record = convert(Chat(path="x"), row, folder)
    assert record.question.text == "Is [image 1] above [image 2]?"
    assert [path.name for path in (*record.images, *record.steps[0].images)] == ["1.jpg", "2.jpg", "3.jpg"]


def test_a_turn_may_show_nothing_but_a_picture(folder: Path) -> None:
    row = {
        "messages": turns("<image>Where?", "Here.", "<image>", "There."),
        "images": ["1.jpg", {"bytes": picture_bytes()}],
    }
    record = convert(Chat(path="x"), row, folder)
    assert (record.steps[0].observation, len(record.steps[0].images)) == ("", 1)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "no turns in messages, conversations, conversation; the row has no fields: set messages_column"),
        ({"chat": [], "text": ""}, "the row has chat, text: set messages_column"),
        ({"messages": []}, "has no turn"),
        ({"messages": {"role": "user"}}, "must be a list of turns, got dict"),
        ({"messages": "hello"}, "messages is a string that holds no JSON"),
        ({"messages": ["Where?", "Here."]}, "turn 0 is a str"),
        ({"messages": turns("Where?", "Here.", names=("role", "content", "user", "robot"))}, "the role 'robot'; allowed"),
        ({"messages": [{"content": "Where?"}]}, "the role None"),
        ({"messages": turns("Where?", 3)}, "turn 1 has content of type int"),
        ({"messages": turns("Where?", "")}, "assistant turn 1 is empty"),
        ({"messages": turns("Where?", None)}, "assistant turn 1 is empty"),
        ({"messages": turns("", "Here.")}, "user turn 0 is empty"),
        ({"messages": turns("Where?", "Here.", "Why?")}, "end with an answer, got user, assistant, user"),
        ({"messages": turns("Where?", "Here.") * 2 + turns("x")}, "got user, assistant, user, assistant, user"),
        ({"messages": turns("Where?")[:1] * 2}, "must alternate"),
        ({"messages": turns("Where?", "Here.")[1:]}, "begins with assistant"),
        ({"messages": [*turns("Where?", "Here."), {"role": "system", "content": "Be short."}]}, "system turn"),
        ({"messages": [*turns("Where?", "Here."), {"role": "tool", "content": "3"}, turns("", "So.")[1]]}, "must alternate"),
        ({"messages": turns("Where?", [{"type": "audio"}])}, "a part of type 'audio'; allowed"),
        ({"messages": turns("Where?", [{"type": "image"}, {"type": "text", "text": "Here."}]), "image": "1.jpg"},
         "an assistant turn has a picture"),
        ({"messages": turns("<image><image>Where?", "Here."), "image": "1.jpg"}, "marks 2 pictures, the row has 1"),
        ({"messages": turns("<image>Where?", "Here.")}, "marks 1 pictures, the row has 0"),
        ({"messages": turns("<image>Where?", "Here."), "images": ["lost.jpg"]}, "lost.jpg does not exist"),
        ({"messages": turns("<video>Where?", "Here.")}, "user turn 0 holds <video>"),
        ({"messages": turns("Where?", "At <bbox>.")}, "assistant turn 1 holds <bbox>"),
        ({"messages": turns("Where?", "Here."), "videos": ["a.mp4"]}, "the row has videos"),
        ({"messages": turns("Where?", "Here."), "tools": "[{}]"}, "the row has tools"),
        ({"messages": turns("Where?", "Here."), "system": 3}, "system must be text, got int"),
        ({"prompt": turns("Where?", "Here."), "completion": turns("Why?", "So.")}, "prompt holds an assistant turn"),
        ({"prompt": turns("Where?"), "completion": 3}, "completion must be text or a list of turns, got int"),
        ({"messages": [turns("Where?")[0], {"role": "assistant", "content": "Hm.",
          "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}]}, "assistant turn 1 calls a tool"),
    ],
)  # fmt: skip
def test_bad_rows_say_what_is_wrong(folder: Path, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        convert(Chat(path="x"), row, folder)


def test_the_column_of_the_turns_is_chosen(folder: Path) -> None:
    row = {"dialogue": turns("Where?", "Here."), "messages": turns("No?", "No."), "image": "1.jpg"}
    assert convert(Chat(path="x", messages_column="dialogue"), row, folder).question.text == "Where?"
    with pytest.raises(RecordError, match="no turns in talk; the row has dialogue, messages, image"):
        convert(Chat(path="x", messages_column="talk"), row, folder)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(RecordError, match="turns is 'single'; allowed: conversation, independent"):
        Chat(path="x", turns="single")  # type: ignore[arg-type]
