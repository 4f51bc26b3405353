"""The pass over a corpus: what is counted, where it is said to be, what is kept, and that it happens once."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published import row, write_images, write_rows

from spatial_lightning.data.corpora import validate
from spatial_lightning.data.corpora.rows import Mark
from spatial_lightning.data.corpora.store import open_store
from spatial_lightning.records import RecordError


def bad_of(path: Path, rows: list[Any], cache: Path) -> list[tuple[str, str]]:
    """Line and words of each bad row."""
    store = open_store(write_rows(path, rows), cache, max_bad_fraction=0.99)
    assert store.bad.good + store.bad.bad == len(rows)
    assert sum(store.bad.reasons.values()) == len(store.bad.places)
    places = [place.removeprefix(f"{path}:").split(": ", 1) for place in store.bad.places]
    return [(line, reason) for line, reason in places]


def test_every_kind_of_bad_row_is_counted_with_its_line(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    a, *_ = write_images(root, 2)
    (root / "zero.png").write_bytes(b"")
    Image.new("1", (20_001, 1)).save(root / "wide.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    bad: list[tuple[Any, str]] = [
        (row(1, a, version=2), "version is 2; this reader reads version 1"),
        ([1, 2], "a row must be a JSON object, got list"),
        ({"id": "x", "image": a, "question": "Why?"}, "field 'answer' is missing"),
        (row(2, a, images=7), "wrong type: 'int' object is not iterable"),
        (row(3, "lost.png"), "does not exist"),
        (row(4, "zero.png"), "is empty (0 bytes)"),
        (row(5, "wide.png"), "20001x1 pixels"),
        (row(6, "../secret.png"), "leads out of"),
        (row(7, "link.png"), "leads out of"),
        (row(8, a, answer=5), "answer must be text, got int"),
        (row(9, a, answer=" "), "answer is empty"),
        (row(0, a), "occurred before"),
        ('{"id": "cut', "not valid JSON"),
    ]
    found = bad_of(root / "rows.jsonl", [row(0, a), *(entry for entry, _ in bad)], tmp_path / "cache")
    found.sort(key=lambda entry: int(entry[0]))
    assert [line for line, _ in found] == [str(2 + place) for place in range(len(bad))]
    for (_, reason), (_, words) in zip(found, bad, strict=True):
        assert words in reason


def test_one_bad_row_among_a_hundred_thousand_is_found_and_named(tmp_path: Path) -> None:
    a, *_ = write_images(tmp_path, 1)
    rows: list[Any] = [{"id": i, "image": a, "question": "?", "answer": "a"} for i in range(100_000)]
    rows[50_000] = {"id": 50_000, "image": a, "question": "?", "answer": ["a"]}
    reader = write_rows(tmp_path / "rows.jsonl", rows)
    store = open_store(reader, tmp_path / "cache", max_bad_fraction=1e-5, group=False)
    assert len(store) == 99_999
    assert store.bad.places == [f"{reader.path}:50001: answer must be text, got list"]
    assert store[50_000].id == "50001"
    with pytest.raises(RecordError, match=r"rows\.jsonl:50001: answer must be text"):
        open_store(reader, tmp_path / "cache", group=False)


def test_the_pass_stops_as_soon_as_too_many_rows_are_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, *_ = write_images(tmp_path, 1)
    reader = write_rows(tmp_path / "rows.jsonl", [row(i, a if i % 2 else "lost.png") for i in range(400)])
    seen = []
    add = validate._Growing.add
    monkeypatch.setattr(validate._Growing, "add", lambda self, found: (seen.append(found.number), add(self, found))[1])
    with pytest.raises(RecordError, match=r"rows\.jsonl:1: .*lost\.png does not exist"):
        open_store(reader, tmp_path / "cache")
    assert seen == [0]
    seen.clear()
    with pytest.raises(RecordError, match="data.max_bad_fraction allows 0.1"):
        open_store(reader, tmp_path / "cache", max_bad_fraction=0.1)
    assert 70 < len(seen) < 110
    assert len(open_store(reader, tmp_path / "cache", max_bad_fraction=0.5, group=False)) == 200


def test_a_corpus_is_looked_at_once_for_each_content_and_setting(tmp_path: Path) -> None:
    names = write_images(tmp_path, 3)
    reader = write_rows(tmp_path / "rows.jsonl", [row(i, names[i % 3]) for i in range(9)])
    said: list[str] = []
    for _ in range(2):
        open_store(reader, tmp_path / "cache", say=said.append)
    assert len(said) == 1
    assert "9 rows, 0 bad, 3 records" in said[0]
    open_store(type(reader)(path=reader.path, kind="other"), tmp_path / "cache", say=said.append)
    open_store(reader, tmp_path / "cache", group=False, say=said.append)
    write_rows(tmp_path / "rows.jsonl", [row(i, names[i % 3]) for i in range(10)])
    open_store(reader, tmp_path / "cache", say=said.append)
    assert len(said) == 4


def _open(reader: Any, cache: Path, queue: Any) -> None:
    said: list[str] = []
    records = len(open_store(reader, cache, say=said.append))
    # Who has to wait says so; only who looks at the rows says how many there are.
    queue.put((records, sum("300 rows" in line for line in said)))


def test_processes_that_come_at_once_make_one_index(tmp_path: Path) -> None:
    names = write_images(tmp_path, 3)
    reader = write_rows(tmp_path / "rows.jsonl", [row(i, names[i % 3]) for i in range(300)])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_open, args=(reader, tmp_path / "cache", queue)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(found) == [(3, 0), (3, 0), (3, 1)]


def test_an_index_is_mapped_from_disk_and_small(tmp_path: Path) -> None:
    names = write_images(tmp_path, 3)
    store = open_store(
        write_rows(tmp_path / "rows.jsonl", [row(i, names[i % 3]) for i in range(3000)]), tmp_path / "c", group=False
    )
    arrays = [getattr(store.corpus, name) for name in ("marks", "nth", "starts", "ids", "keys", "sizes")]
    assert all(isinstance(values, np.memmap) for values in arrays)
    assert sum(values.nbytes for values in arrays) < 100 * len(store)
    sent = pickle.dumps(store.corpus)
    assert len(sent) < 2000
    assert pickle.loads(sent).items(7) == store.corpus.items(7) == [(Mark(7, 0, 7, int(arrays[0][7][3]), 8), 0)]
