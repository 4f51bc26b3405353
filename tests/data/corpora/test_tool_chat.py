"""Tool-use chats of every format become the same trace, and bad rows say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reading import encode, read, read_row, write_picture

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.data.corpora import ToolChat
from spatial_lightning.records import RecordError, Trace

CALL = {"name": "measure", "arguments": {"object": "cone"}}
CALL_TEXT = '{"name": "measure", "arguments": {"object": "cone"}}'
TOOLS = [{"name": "measure", "description": "Height of an object"}]
OPENAI_CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "measure", "arguments": json.dumps(CALL["arguments"])},
}

FORMATS: dict[str, dict[str, Any]] = {
    "llama-factory": {
        "conversations": [
            {"from": "system", "value": "Be exact."},
            {"from": "human", "value": "How tall?"},
            {"from": "function_call", "value": CALL_TEXT},
            {"from": "observation", "value": "3 m"},
            {"from": "gpt", "value": "3 metres."},
        ],
        "tools": json.dumps(TOOLS),
    },
    "openai": {
        "messages": [
            {"role": "system", "content": "Be exact."},
            {"role": "user", "content": "How tall?"},
            {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
            {"role": "tool", "tool_call_id": "1", "content": "3 m"},
            {"role": "assistant", "content": "3 metres."},
        ],
        "tools": TOOLS,
    },
    "trl": {
        "messages": [
            {"role": "system", "content": "Be exact."},
            {"role": "user", "content": "How tall?"},
            {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]},
            {"role": "tool", "name": "measure", "content": "3 m"},
            {"role": "assistant", "content": "3 metres."},
        ],
        "tools": TOOLS,
    },
    "ms-swift": {
        "messages": [
            {"role": "system", "content": "Be exact."},
            {"role": "user", "content": "How tall?"},
            {"role": "tool_call", "content": CALL_TEXT},
            {"role": "tool_response", "content": "3 m"},
            {"role": "assistant", "content": "3 metres."},
        ],
        "tools": json.dumps(TOOLS),
    },
    "typed parts": {
        "messages": [
            {"role": "system", "content": [{"type": "text", "value": "Be exact."}]},
            {"role": "user", "content": [{"type": "text", "value": "How tall?"}]},
            {"role": "assistant", "content": [{"type": "tool_call", "value": CALL_TEXT}]},
            {"role": "tool", "content": [{"type": "text", "value": "3 m"}]},
            {"role": "assistant", "content": [{"type": "text", "value": "3 metres."}]},
        ],
        "tools": json.dumps(TOOLS),
    },
}


def reader(**options: Any) -> ToolChat:
    return ToolChat(path="unused", **options)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_trace(name: str, tmp_path: Path) -> None:
    (trace,) = read_row(reader(), FORMATS[name], tmp_path)
    assert (trace.question.text, trace.question.answer) == ("How tall?", "3 metres.")
    assert [(step.text, step.observation) for step in trace.steps] == [(CALL_TEXT, "3 m"), ("3 metres.", "")]
    described = f"You can use these tools, described as JSON:\n{json.dumps(TOOLS)}\n"
    assert trace.system.startswith(f"Be exact.\n\n{described}")
    assert trace.correct is None


def test_a_call_belongs_to_what_is_said_before_it(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "I measure."}
    user, reply = {"role": "user", "content": "How tall?"}, {"role": "tool", "content": "3 m"}
    apart = [user, said, {"role": "tool_call", "content": CALL_TEXT}, reply, {"role": "assistant", "content": "3."}]
    joined = [user, said | {"tool_calls": [OPENAI_CALL]}, reply, {"role": "assistant", "content": "3."}]
    for messages in (apart, joined):
        (trace,) = read_row(reader(), {"messages": messages}, tmp_path)
        assert trace.steps[0].text == f"I measure.\n{CALL_TEXT}"
        assert len(trace.steps) == 2
        assert trace.system == ""


def test_parallel_calls_and_their_results_stay_together(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "How tall?"},
        {"role": "assistant", "tool_calls": [OPENAI_CALL, OPENAI_CALL]},
        {"role": "tool", "content": "3 m"},
        {"role": "tool", "content": "4 m"},
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": "Both."},
    ]
    (trace,) = read_row(reader(), {"messages": messages}, tmp_path)
    assert trace.steps[0].text == f"{CALL_TEXT}\n{CALL_TEXT}"
    assert trace.steps[0].observation == "3 m\n4 m\nWell?"


def test_reasoning_is_kept_or_left_out(tmp_path: Path) -> None:
    parts = [{"type": "reasoning", "value": "Hm.\n"}, {"type": "text", "value": "3."}]
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": parts}]}
    assert read_row(reader(), row, tmp_path)[0].steps[0].text == "<think>\nHm.\n</think>\n\n3."
    assert read_row(reader(reasoning=False), row, tmp_path)[0].steps[0].text == "3."


def test_pictures_come_with_the_question_and_with_observations(tmp_path: Path) -> None:
    paths = [write_picture(tmp_path / f"{name}.png") for name in "abc"]
    messages = [
        {"role": "user", "content": "<image>\n<image>How tall?"},
        {"role": "assistant", "content": CALL_TEXT},
        {"role": "tool", "content": "<image>seen"},
        {"role": "assistant", "content": "3."},
    ]
    (trace,) = read_row(reader(), {"messages": messages, "images": ["a.png", "b.png", "c.png"]}, tmp_path)
    assert list(trace.images) == paths[:2]
    assert list(trace.steps[0].images) == paths[2:]
    assert (trace.question.text, trace.steps[0].observation) == ("How tall?", "seen")


def test_what_the_system_turn_says_about_tools_can_be_changed(tmp_path: Path) -> None:
    row = FORMATS["openai"]
    assert read_row(reader(tools=""), row, tmp_path)[0].system == "Be exact."
    assert read_row(reader(tools="[{tools}]"), row, tmp_path)[0].system == f"Be exact.\n\n[{json.dumps(TOOLS)}]"
    assert read_row(reader(), row | {"tools": "[]"}, tmp_path)[0].system == "Be exact."


@pytest.mark.parametrize(
    ("name", "answered"), [("glaive_toolcall_en_demo.json", 50), ("reason_tool_use_demo_50.jsonl", 39)]
)
def test_published_chats_load_and_encode(
    name: str, answered: int, shared_data: Path, tiny: Backbone, tmp_path: Path
) -> None:
    path = shared_data / "llamafactory_demo" / name
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
    rows = json.loads(path.read_text()) if rows is None else rows
    traces: list[Trace] = read(ToolChat(path=str(path)), tmp_path)
    assert len(traces) == len(rows) == 50
    for trace, row in zip(traces, rows, strict=True):
        turns = row.get("conversations") or row["messages"]
        said = [turn for turn in turns if turn.get("from", turn.get("role")) in ("gpt", "function_call", "assistant")]
        assert len(trace.steps) == len(said)
        if "conversations" in row:
            assert [step.text for step in trace.steps] == [turn["value"] for turn in said]
            rest = [turn["value"] for turn in turns if turn not in said]
            seen = [step.observation for step in trace.steps if step.observation]
            assert "\n".join([trace.question.text, *seen]) == "\n".join(rest)
        assert (row["tools"] in trace.system) or row["tools"] == "[]"
        assert encode(Encoder(tiny.processor), trace).branches == len(trace.steps)
    strict = ToolChat(path=str(path), require_answer=True)
    calls = [row for row, trace in zip(rows, traces, strict=True) if trace.steps[-1].text.endswith("}}")]
    assert len(rows) - len(calls) == answered
    for row in rows:
        if row not in calls:
            assert len(read_row(strict, row, tmp_path)) == 1
            continue
        with pytest.raises(RecordError, match="ends with a function call: it has no final answer"):
            read_row(strict, row, tmp_path)


USER, SAID = {"role": "user", "content": "How tall?"}, {"role": "assistant", "content": "3."}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "key 'messages' is missing"),
        ({"messages": []}, "the conversation has no turn"),
        ({"messages": {"role": "user"}}, "must be a list of turns, got dict"),
        ({"messages": [USER]}, "no assistant turn behind the question"),
        ({"messages": [SAID]}, "begins with assistant"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "step 1 is empty"),
        ({"messages": [USER, SAID, SAID]}, "step 2 repeats step 1 word for word"),
        ({"messages": [USER, {"role": "tool_call", "content": "measure()"}]}, "a function call is not valid JSON"),
        ({"messages": [USER, {"role": "tool_call", "content": "[1]"}]}, "a function call must be JSON with a name"),
        (
            {"messages": [USER, {"role": "tool_call", "content": None}]},
            "a function call must be JSON text, got NoneType",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"name": "a", "arguments": "{"}]}]},
            "a function call is not valid JSON",
        ),
        ({"messages": [USER, SAID], "tools": "{"}, "tools is not valid JSON"),
        ({"messages": [USER, SAID], "tools": '{"a": 1}'}, "tools is a dict; allowed: a list of tools"),
        ({"messages": [USER, SAID], "images": ["lost.png"]}, "lost.png does not exist"),
        ({"messages": [USER | {"content": "<image>?"}, SAID]}, "marks 1 pictures, the row has 0"),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "image", "image": "a.png"}]}]},
            "an assistant turn has a picture",
        ),
    ],
)
def test_bad_rows_say_what_is_wrong(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read_row(reader(), row, tmp_path)


def test_a_conversation_without_an_answer_is_refused_when_one_is_required(tmp_path: Path) -> None:
    for tail, end in (
        ([{"role": "tool_call", "content": CALL_TEXT}], "a function call"),
        ([SAID, USER], "a user turn"),
    ):
        row = {"messages": [USER, *tail]}
        assert len(read_row(reader(), row, tmp_path)) == 1
        with pytest.raises(RecordError, match=f"ends with {end}: it has no final answer"):
            read_row(reader(require_answer=True), row, tmp_path)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(RecordError, match="tools is 'Tools:'; allowed: a text with {tools} in it"):
        reader(tools="Tools:")
