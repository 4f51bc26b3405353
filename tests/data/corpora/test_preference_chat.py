"""Pairs of every chat format are the same pairs: prompt, history, pictures, segments; and bad rows say why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reading import encode, read, read_row, write_picture

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.data.corpora import PreferenceChat
from spatial_lightning.records import PreferencePair, RecordError

SYSTEM = {"role": "system", "content": "Be exact."}
EARLIER = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
ASKED = {"role": "user", "content": "<image>Which is taller?"}
GOOD, BAD = {"role": "assistant", "content": "The cone."}, {"role": "assistant", "content": "The cube."}
PROMPT = [
    SYSTEM,
    {"role": "user", "content": "<image>Hello?"},
    EARLIER[1],
    {"role": "user", "content": "Which is taller?"},
]


def sharegpt(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]


def parts(turn: dict[str, str]) -> dict[str, Any]:
    text = turn["content"].replace("<image>", "")
    seen = [{"type": "image"}] if "<image>" in turn["content"] else []
    return {"role": turn["role"], "content": [*seen, {"type": "text", "text": text}]}


FORMATS: dict[str, dict[str, Any]] = {
    "trl": {"prompt": PROMPT, "chosen": [GOOD], "rejected": [BAD], "images": ["a.png"]},
    "trl, implicit prompt": {"chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, BAD], "images": ["a.png"]},
    "trl, prompt twice": {"prompt": "?", "chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, BAD], "images": ["a.png"]},
    "trl, typed parts": {
        "prompt": [parts(turn) for turn in PROMPT],
        "chosen": [parts(GOOD)],
        "rejected": [parts(BAD)],
        "images": ["a.png"],
    },
    "llama-factory, sharegpt": {
        "conversations": sharegpt(PROMPT),
        "chosen": sharegpt([GOOD])[0],
        "rejected": sharegpt([BAD])[0],
        "images": ["a.png"],
    },
    "llama-factory, openai": {"messages": PROMPT, "chosen": GOOD, "rejected": BAD, "images": ["a.png"]},
    "llama-factory, alpaca": {
        "system": "Be exact.",
        "history": [["<image>Hello?", "Hello."]],
        "instruction": "Which is taller?",
        "input": "",
        "chosen": "The cone.",
        "rejected": "The cube.",
        "image": "a.png",
    },
    "ms-swift": {"messages": [*PROMPT, GOOD], "rejected_response": "The cube.", "images": ["a.png"]},
    "ms-swift, messages": {"messages": [*PROMPT, GOOD], "rejected_messages": [*PROMPT, BAD], "images": ["a.png"]},
}


def reader(**options: Any) -> PreferenceChat:
    return PreferenceChat(path="unused", **options)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_pair(name: str, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png")
    (pair,) = read_row(reader(), FORMATS[name], tmp_path)
    assert pair.system == "Be exact."
    assert pair.history == (("Hello?", "Hello."),)
    assert pair.question.text == "Which is taller?"
    assert (pair.chosen.text, pair.rejected.text) == ("The cone.", "The cube.")
    assert pair.images == (picture,)


def test_plain_text_rows(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    for key in ("prompt", "question"):
        row = {key: "Which is taller?", "chosen": "The cone.", "rejected": "The cube.", "image": "a.png"}
        (pair,) = read_row(reader(), row, tmp_path)
        assert (pair.question.text, pair.chosen.text, len(pair.images), pair.history) == (
            "Which is taller?",
            "The cone.",
            1,
            (),
        )


def test_transcripts_without_a_prompt(tmp_path: Path) -> None:
    start = "\n\nHuman: Hello?\n\nAssistant: Hello.\n\nHuman: Which is taller?\n\nAssistant:"
    (pair,) = read_row(reader(), {"chosen": f"{start} The cone.", "rejected": f"{start} The cube."}, tmp_path)
    assert pair.history == (("Hello?", "Hello."),)
    assert (pair.question.text, pair.chosen.text, pair.rejected.text) == ("Which is taller?", "The cone.", "The cube.")


def test_several_rejected_responses_are_several_pairs(tmp_path: Path) -> None:
    row = {"messages": [ASKED, GOOD], "rejected_response": ["The cube.", "Both."], "images": ["a.png"]}
    write_picture(tmp_path / "a.png")
    pairs = read_row(reader(), row, tmp_path)
    assert [(pair.id, pair.rejected.text) for pair in pairs] == [("row/0", "The cube."), ("row/1", "Both.")]


def test_pictures_in_parts_and_in_the_row(tmp_path: Path) -> None:
    for name in "ab":
        write_picture(tmp_path / f"{name}.png")
    content = [{"type": "image", "image": "a.png"}, {"type": "image"}, {"type": "text", "text": "Same?"}]
    row = {"prompt": [{"role": "user", "content": content}], "chosen": "No.", "rejected": "Yes.", "images": ["b.png"]}
    (pair,) = read_row(reader(), row, tmp_path)
    assert [path.name for path in pair.images] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("<description>A cone.</description><reasoning>So.</reasoning>", "<description>A cone.</description>"),
        ("### Description\nA cone.\n\n### Rationale\nSo.\n### In Conclusion\nIt.", "### Description\nA cone.\n\n"),
        ("### Description:\nA cone with ### in it.\n### Step 1\nSo.", "### Description:\nA cone with ### in it.\n"),
        ("### Description\nA cone.", "### Description\nA cone."),
        ("So the cone.", ""),
    ],
)
def test_segments_are_found_by_tags_and_sections(text: str, described: str, tmp_path: Path) -> None:
    other = "<description>No.</description>Yes."
    (pair,) = read_row(reader(), {"prompt": "?", "chosen": text, "rejected": other}, tmp_path)
    names = {s.name: text[s.start : s.end] for s in pair.chosen.segments}
    assert names.get("description", "") == described
    assert "".join(names.values()) == text
    (plain,) = read_row(reader(segments="none"), {"prompt": "?", "chosen": text, "rejected": other}, tmp_path)
    assert plain.chosen.segments == plain.rejected.segments == ()


def test_responses_that_describe_nothing_have_no_segments(tmp_path: Path) -> None:
    (pair,) = read_row(reader(), {"prompt": "?", "chosen": "Yes.", "rejected": "No."}, tmp_path)
    assert pair.chosen.segments == pair.rejected.segments == ()
    assert pair.question.style == "direct"


def test_published_pairs_load_and_encode(shared_data: Path, tiny: Backbone, tmp_path: Path) -> None:
    path = shared_data / "llamafactory_demo" / "dpo_en_demo.json"
    pairs: list[PreferencePair] = read(PreferenceChat(path=str(path)), tmp_path)
    rows = json.loads(path.read_text())
    assert len(pairs) == len(rows) == 50
    assert sorted({len(pair.history) for pair in pairs}) == [0, 2, 3]
    for pair, row in zip(pairs, rows, strict=True):
        said = [turn["value"] for turn in row["conversations"] if turn["from"] != "system"]
        assert [*(turn for turns in pair.history for turn in turns), pair.question.text] == said
        assert (pair.chosen.text, pair.rejected.text) == (row["chosen"]["value"], row["rejected"]["value"])
        assert bool(pair.system) == (row["conversations"][0]["from"] == "system")
        assert encode(Encoder(tiny.processor), pair).branches == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "?", "chosen": "Yes."}, "key 'rejected' is missing"),
        ({"chosen": "Yes.", "rejected": "No."}, "prompt is missing; allowed: prompt, question"),
        ({"prompt": "?", "chosen": "Yes.", "rejected": "Yes."}, "same text"),
        ({"prompt": "?", "chosen": "Yes.", "rejected": " "}, "response is empty"),
        ({"prompt": "?", "chosen": 5, "rejected": "No."}, "a conversation must be a list of turns, got int"),
        (
            {"prompt": [GOOD], "chosen": "Yes.", "rejected": "No."},
            "begins with assistant; allowed: a system turn or none",
        ),
        ({"prompt": [ASKED, GOOD], "chosen": "Yes.", "rejected": "No."}, "marks 1 pictures, the row has 0"),
        ({"prompt": [*EARLIER], "chosen": "Yes.", "rejected": "No."}, "the prompt ends with an assistant turn"),
        (
            {"prompt": [{"role": "boss", "content": "?"}], "chosen": "a", "rejected": "b"},
            "role 'boss'; allowed: system",
        ),
        ({"prompt": [{"role": "user", "content": 3}], "chosen": "a", "rejected": "b"}, "content of type int"),
        ({"prompt": ["hello"], "chosen": "a", "rejected": "b"}, "turn 0 is a str; allowed: an object with role"),
        ({"prompt": [EARLIER[0], EARLIER[0]], "chosen": "a", "rejected": "b"}, "turn 1 of the prompt is user; allowed"),
        ({"prompt": [*EARLIER, SYSTEM, ASKED], "chosen": "a", "rejected": "b", "image": "a.png"}, "in the middle"),
        ({"prompt": [*EARLIER, ASKED], "chosen": "a", "rejected": "b", "image": "a.png"}, "a later turn of the prompt"),
        (
            {"chosen": [*EARLIER, GOOD], "rejected": [EARLIER[0], BAD]},
            "chosen has the turns assistant, assistant of its",
        ),
        ({"prompt": "?", "chosen": [ASKED, GOOD], "rejected": "No."}, "chosen has the turns"),
        ({"instruction": "?", "history": ["x"], "chosen": "a", "rejected": "b"}, "an entry of history is 'x'"),
        ({"prompt": "?", "chosen": "a", "rejected": "b", "image": "lost.png"}, "lost.png does not exist"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "video"}]}], "chosen": "a", "rejected": "b"},
            "a part of type 'video'; allowed: text",
        ),
    ],
)
def test_bad_rows_say_what_is_wrong(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    with pytest.raises(RecordError, match=message):
        read_row(reader(), row, tmp_path)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(RecordError, match="segments is 'all'; allowed: auto, none"):
        reader(segments="all")
