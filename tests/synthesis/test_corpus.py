"""Corpora on disk: complete, readable, the same bytes for the same seed, and independent of the other scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spatial_lightning.records import BadRows, ImageQuestions, PreferencePair, RecordError, read_records
from spatial_lightning.scenes import Scene
from spatial_lightning.synthesis.corpus import write_preference_corpus, write_question_corpus
from spatial_lightning.synthesis.errors import ERRORS


@pytest.fixture
def placed(procedural: list[Scene], tmp_path: Path) -> list[Scene]:
    return [replace(scene, index=n, image=tmp_path / "images" / f"{n}.png") for n, scene in enumerate(procedural)]


def test_questions_are_written_and_read(placed: list[Scene], tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    summary = write_question_corpus(path, placed, seed=1, questions_per_image=6, reasoned_per_image=2)
    bad = BadRows()
    records = list(read_records(path, ImageQuestions, bad))
    assert bad.bad == 0
    assert len(records) == summary.records == len(placed)
    assert summary.kinds.total() == sum(len(record.questions) for record in records)
    identifiers = [question.id for record in records for question in record.questions]
    assert len(set(identifiers)) == len(identifiers)
    for record, scene in zip(records, placed, strict=True):
        assert record.images == (scene.image,)
        assert [q.style for q in record.questions] == ["direct"] * 6 + ["reasoned"] * 2
    assert '"images/0.png"' in path.read_text()


def test_pairs_are_written_and_read(placed: list[Scene], tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    summary = write_preference_corpus(path, placed, seed=1, pairs_per_image=8)
    bad = BadRows()
    records = list(read_records(path, PreferencePair, bad))
    assert bad.bad == 0
    assert len(records) == summary.records == 8 * len(placed)
    assert set(summary.errors) == {record.error for record in records} == set(ERRORS)
    assert len({record.id for record in records}) == len(records)
    assert all(record.reward_gap is not None and sum(record.reward_gap) > 0 for record in records)


def test_same_seed_same_bytes(placed: list[Scene], tmp_path: Path) -> None:
    def questions(name: str, seed: int, scenes: list[Scene]) -> list[str]:
        path = tmp_path / name
        write_question_corpus(path, scenes, seed=seed, questions_per_image=5, reasoned_per_image=1, rounding="human")
        return path.read_text().splitlines()

    first = questions("a", 1, placed)
    assert first == questions("b", 1, placed)
    assert first != questions("c", 2, placed)
    assert first[3:9][::-1] == questions("d", 1, placed[3:9][::-1])


def test_pairs_do_not_depend_on_other_scenes(placed: list[Scene], tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    write_preference_corpus(whole, placed, seed=1, pairs_per_image=2)
    write_preference_corpus(half, placed[::2], seed=1, pairs_per_image=2)
    assert set(half.read_text().splitlines()) < set(whole.read_text().splitlines())


def test_splits_are_asked_different_questions(placed: list[Scene], tmp_path: Path) -> None:
    texts = []
    for split in ("train", "val"):
        scenes = [replace(scene, split=split) for scene in placed]
        path = tmp_path / split
        write_question_corpus(path, scenes, seed=1, questions_per_image=5)
        texts.append([q.text for r in read_records(path, ImageQuestions, BadRows()) for q in r.questions])
    assert texts[0] != texts[1]


def test_empty_scenes_are_counted_and_left_out(placed: list[Scene], tmp_path: Path) -> None:
    scenes = [replace(placed[0], objects=()), *placed[1:4]]
    summary = write_question_corpus(tmp_path / "q.jsonl", scenes, seed=1, questions_per_image=3)
    assert (summary.records, summary.empty_scenes) == (3, 1)
    with pytest.raises(RecordError, match="none of the 1 scenes allows"):
        write_question_corpus(tmp_path / "none.jsonl", scenes[:1], seed=1, questions_per_image=3)
    assert not (tmp_path / "none.jsonl").exists()


def test_progress_tells_the_rate(placed: list[Scene], tmp_path: Path) -> None:
    told: list[str] = []
    write_question_corpus(tmp_path / "q.jsonl", placed, seed=1, questions_per_image=2, progress=told.append)
    assert told
    assert f"{len(placed)} scenes done" in told[-1]
    assert "a second" in told[-1]
