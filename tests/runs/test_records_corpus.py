"""Ready record files as the README shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from spatial_lightning.records import BadRows, ImageQuestions, PreferencePair, from_json, read_records
from spatial_lightning.runs.config import PROJECT
from spatial_lightning.runs.corpora import Corpus, prepare


def readme_rows() -> list[dict]:
    """The JSON records of the README, which wraps each over several lines."""
    block = re.search(r"```json\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    assert block
    decoder, text, rows = json.JSONDecoder(), block.group(1).strip(), []
    while text:
        row, end = decoder.raw_decode(text)
        rows.append(row)
        text = text[end:].strip()
    return rows


def test_the_records_of_the_readme_are_valid(tmp_path: Path) -> None:
    questions, pair = (from_json(row, tmp_path) for row in readme_rows())
    assert isinstance(questions, ImageQuestions)
    assert isinstance(pair, PreferencePair)
    assert pair.reward_gap == pytest.approx((0.0, 4.2))


def test_ready_records_are_taken_as_they_are(tmp_path: Path) -> None:
    questions, pair = readme_rows()
    for name, row in (("train", pair), ("val", pair), ("train_questions", questions), ("val_questions", questions)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    files = prepare(Corpus("preferences", "records", str(tmp_path)), tmp_path / "cache")
    assert len(files.questions("val")) == 2
    bad = BadRows()
    assert len(list(read_records(files.train, PreferencePair, bad))) == 1
    assert not bad.bad


def test_a_missing_record_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl"):
        prepare(Corpus("questions", "records", str(tmp_path)), tmp_path / "cache")
