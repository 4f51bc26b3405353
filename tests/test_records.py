"""Records survive their own files, and files of older releases are still read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from samples import asked, pair, trace

from spatial_lightning.records import AnyRecord, PreferencePair, RecordError, from_json, to_json

FOLDER = Path("/data")
IMAGES = (FOLDER / "a.png", Path("/elsewhere/b.png"))
HISTORY = (("What is red?", "The cube."),)


@pytest.mark.parametrize(
    "record",
    [
        asked("a", IMAGES, 2),
        pair("p", IMAGES),
        trace("t", IMAGES, IMAGES[:1]),
        dataclasses.replace(asked("a", (), 1), system="Be exact."),
        dataclasses.replace(pair("p", ()), system="Be exact.", history=HISTORY, error="conclusion"),
        dataclasses.replace(trace("t", (), ()), system="Be exact.", correct=False),
    ],
)
def test_records_come_back_from_json(record: AnyRecord) -> None:
    assert from_json(json.loads(json.dumps(to_json(record, FOLDER))), FOLDER) == record


def test_new_fields_are_written_only_where_they_say_something() -> None:
    for record in (asked("a", IMAGES, 2), pair("p", IMAGES), trace("t", IMAGES, ())):
        row = to_json(record, FOLDER)
        assert not {"system", "history"} & row.keys()
        assert from_json(row, FOLDER).system == ""


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("system", 3, "system turn must be text, got int"),
        ("system", None, "system turn must be text, got NoneType"),
        ("history", ["hello"], "wrong type"),
        ("history", [["hello"]], "wrong type"),
        ("history", [["hello", ""]], "assistant turn is empty"),
        ("history", [["hello", 1]], "assistant turn must be text, got int"),
        ("history", 5, "wrong type"),
    ],
)
def test_wrong_fields_are_record_errors(field: str, value: object, message: str) -> None:
    row = to_json(pair("p", ()), FOLDER) | {field: value}
    with pytest.raises(RecordError, match=message):
        from_json(row, FOLDER)


def test_rejected_attempts_that_are_no_pairs_are_record_errors() -> None:
    row = to_json(trace("t", (), ()), FOLDER)
    row["steps"][0]["rejected"] = [["text", 1.0, "more"]]
    with pytest.raises(RecordError, match="wrong type"):
        from_json(row, FOLDER)


def test_the_reward_gap_does_not_depend_on_the_conversation() -> None:
    plain = pair("p", ())
    placed: PreferencePair = dataclasses.replace(plain, history=HISTORY, system="Be exact.")
    assert placed.reward_gap == plain.reward_gap == (2.0, 0.5)
