"""Rows of every kind of file: the same rows in order, by number and from any place, and damage where it is."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatial_lightning.data.corpora import json_rows, json_window
from spatial_lightning.data.corpora.rows import FileRows, Mark, Rows, open_rows
from spatial_lightning.records import RecordError

ROWS = [{"id": str(i), "text": 'ä{]"\\,\n立🟥' * (i % 7), "nested": json.dumps({"a": [i, "}"]})} for i in range(40)]


def write_lines(folder: Path) -> Rows:
    (folder / "a.jsonl").write_text("\n\n".join(map(json.dumps, ROWS)))
    return open_rows(folder / "a.jsonl")


def write_lines_called_json(folder: Path) -> Rows:
    (folder / "a.json").write_text("\n" + "\n".join(map(json.dumps, ROWS)) + "\n")
    return open_rows(folder / "a.json")


def write_array(folder: Path) -> Rows:
    (folder / "a.json").write_text("\ufeff" + json.dumps(ROWS, ensure_ascii=False))
    return open_rows(folder / "a.json")


def write_indented(folder: Path) -> Rows:
    (folder / "a.json").write_text(json.dumps(ROWS, indent=2))
    return open_rows(folder / "a.json")


def write_keyed(folder: Path) -> Rows:
    document = {"info": {"note": ["]}", {"questions": [1]}]}, "n": -3.5e2, "s": 'q"]', "questions": ROWS, "after": 1}
    (folder / "a.json").write_text(json.dumps(document))
    return open_rows(folder / "a.json", container="questions")


def write_object(folder: Path) -> Rows:
    (folder / "a.json").write_text(json.dumps({f"k{i}": row for i, row in enumerate(ROWS)}, ensure_ascii=False))
    return open_rows(folder / "a.json", container="*")


def write_csv(folder: Path) -> Rows:
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    return open_rows(folder / "a.csv")


def write_tsv(folder: Path) -> Rows:
    with (folder / "a.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0], dialect="excel-tab")
        writer.writeheader()
        writer.writerows(ROWS)
    return open_rows(folder / "a.tsv")


def write_parquet(folder: Path) -> Rows:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "a.parquet", row_group_size=7)
    return open_rows(folder / "a.parquet")


def write_disk(folder: Path) -> Rows:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(folder / "saved")
    return open_rows(folder / "saved", split="train")


def write_tar(folder: Path) -> Rows:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for index, row in enumerate(ROWS):
            _add(archive, f"{index:04d}.json", json.dumps(row).encode())
            _add(archive, f"{index:04d}.jpg", b"picture %d" % index)
    return open_rows(folder / "a.tar")


def write_tar_lines(folder: Path) -> Rows:
    with tarfile.open(folder / "a.tar", "w") as archive:
        _add(archive, "rows.jsonl", "\n".join(map(json.dumps, ROWS)).encode())
        _add(archive, "pictures/1.jpg", b"one")
    return open_rows(folder / "a.tar")


def write_shards(folder: Path) -> Rows:
    (folder / "s-0.json").write_text(json.dumps(ROWS[:15]))
    (folder / "s-1.json").write_text("[]")
    (folder / "s-2.json").write_text(json.dumps(ROWS[15:], indent=1))
    return open_rows(folder / "s-*.json")


def write_files(folder: Path) -> Rows:
    for index, row in enumerate(ROWS):
        (folder / f"{index:02d}.json").write_text(json.dumps(row))
    return FileRows(sorted(folder.glob("*.json")))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


WRITERS = [value for name, value in sorted(globals().items()) if name.startswith("write_")]


def plain(row: Any) -> Any:
    return {key: row[key] for key in ROWS[0]}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_rows_are_the_same_in_order_by_number_and_from_any_place(
    write: Callable[[Path], Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Windows much shorter than the file, so that rows lie across their borders.
    monkeypatch.setattr(json_window, "FIRST", 16)
    monkeypatch.setattr(json_window, "WINDOW", 50)
    rows = write(tmp_path)
    found = list(rows.scan())
    assert [plain(at.row) for at in found] == ROWS, [at.error for at in found]
    assert [at.number for at in found] == list(range(len(ROWS)))
    assert len(rows) == len(ROWS)
    assert len({at.place for at in found}) == len(ROWS)
    for number in (0, 13, 14, 15, 39):
        assert plain(rows.get(number)) == ROWS[number]
        assert rows.read(found[number].mark) == found[number]
        assert list(rows.scan(found[number].mark)) == found[number:]
        assert 0 <= rows.done(found[number].mark) <= rows.total_bytes
    assert rows.fingerprint() == rows.fingerprint()
    assert rows.root.is_dir()


def test_places_are_lines_where_lines_tell_rows_apart(tmp_path: Path) -> None:
    lines = write_lines(tmp_path)
    assert [at.place.rsplit(":")[-1] for at in lines.scan()][:3] == ["1", "3", "5"]
    path = tmp_path / "b.json"
    path.write_text(json.dumps(ROWS))
    assert next(iter(open_rows(path).scan())).place == f"{path}:row 1"
    path.write_text(json.dumps(ROWS[:2], indent=1))
    assert [at.place for at in open_rows(path).scan()] == [f"{path}:2", f"{path}:7"]


def test_archives_say_where_their_pictures_are(tmp_path: Path) -> None:
    picture = write_tar(tmp_path).get(3)["jpg"]
    with Path(picture["tar"]).open("rb") as file:
        file.seek(picture["offset"])
        assert file.read(picture["size"]) == b"picture 3"
    assert write_tar(tmp_path).members == {}
    assert write_tar_lines(tmp_path).members["pictures/1.jpg"]["size"] == 3


def damaged(text: bytes, folder: Path, **options: Any) -> list[tuple[int | str, str]]:
    """Number and id of good rows, place and kind of bad ones."""
    path = folder / "damaged.json"
    path.write_bytes(text)
    rows = open_rows(path, **options)
    return [(at.number, at.row["id"]) if at.row else (at.place.removeprefix(str(path)), at.kind) for at in rows.scan()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'[{"id": 1},\n{"id": 2}', [(0, 1), (1, 2), (":2", "truncated file")]),
        (b'[{"id": 1},\n{"id": 2, "x": "ab', [(0, 1), (":2", "truncated file")]),
        (b'[{"id": 1},\n{"id": 2}]\n{"id": 3}', [(0, 1), (1, 2), (":3", "trailing garbage")]),
        (b'[{"id": 1},\n{"id": nope, "x": [1, 2]},\n{"id": 3}]', [(0, 1), (":2", "not valid JSON"), (2, 3)]),
        (b'[{"id": 1},\n{"id": 2, "x": "\xff"},\n{"id": 3}]', [(0, 1), (":2", "not valid UTF-8"), (2, 3)]),
        (b'[{"id": 1},\nnope,\n{"id": 3}]', [(0, 1), (":2", "not valid JSON"), (2, 3)]),
    ],
)
def test_damage_in_an_array_spoils_its_own_row(text: bytes, expected: list[Any], tmp_path: Path) -> None:
    assert damaged(text, tmp_path) == expected


def test_other_values_than_objects_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[1, "two", [3],\n{"id": 4}]')
    assert [at.error or at.row for at in open_rows(path).scan()] == [
        "a row must be a JSON object, got int",
        "a row must be a JSON object, got str",
        "a row must be a JSON object, got list",
        {"id": 4},
    ]


def test_damage_in_lines_spoils_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\n{"id": \n{"id": "\xff"}\n[5]\n{"id": 5}\n{"id": 6, "x": "cut')
    found = [(at.place.rsplit(":")[-1], at.kind or at.error) for at in open_rows(path).scan()]
    assert found == [
        ("1", ""),
        ("2", "not valid JSON"),
        ("3", "not valid UTF-8"),
        ("4", "a row must be a JSON object, got list"),
        ("5", ""),
        ("6", "not valid JSON"),
    ]


def test_damage_in_csv_spoils_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,"two\nlines"\n2\n3,\xff\n4,four,more\n5,five\n')
    found = [(at.place.rsplit(":")[-1], at.kind or at.row["id"]) for at in open_rows(path).scan() if at.row or at.kind]
    assert found == [
        ("2", "1"),
        ("4", "wrong number of fields"),
        ("5", "not valid UTF-8"),
        ("6", "wrong number of fields"),
        ("7", "5"),
    ]


def test_other_damage_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        _add(archive, "1.jpg", b"x")
        _add(archive, "2.json", b"{")
        _add(archive, "3.json", b"{}")
    assert [at.kind for at in open_rows(tmp_path / "a.tar").scan()] == ["no .json member", "not valid JSON", ""]
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text("[4]")
    found = list(FileRows([tmp_path / name for name in ("b.json", "c.json", "lost.json")]).scan())
    assert [at.kind for at in found] == ["not valid JSON", "", "cannot be read"]
    assert found[1].row == {"document": [4], "_path": str(tmp_path / "c.json")}
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(RecordError, match=r"d\.parquet is not a parquet file"):
        len(open_rows(tmp_path / "d.parquet"))


def test_what_cannot_be_opened_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"questions":\n [{"id": 1}]}')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "a.xyz").write_text("x")
    for name, error, words in (
        ("one.json", RecordError, "name the key that holds its rows"),
        ("empty.jsonl", RecordError, "is empty"),
        ("a.xyz", RecordError, "unknown kind '.xyz'"),
        ("absent.json", FileNotFoundError, "no corpus at"),
        ("no*.json", FileNotFoundError, "nothing matches"),
        ("", FileNotFoundError, "no dataset of save_to_disk"),
    ):
        with pytest.raises(error, match=words):
            open_rows(tmp_path / name)
    assert [at.error for at in open_rows(tmp_path / "one.json", container="rows").scan()] == [
        "no key 'rows'; there are questions"
    ]
    with pytest.raises(RecordError, match="split=val is for folders"):
        open_rows(tmp_path / "a.xyz", split="val")
    write_disk(tmp_path)
    with pytest.raises(RecordError, match="has the splits train; split is 'val'"):
        open_rows(tmp_path / "saved", split="val")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(st.text(), VALUES)),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
    window=st.integers(1, 40),
)
def test_any_array_is_read_as_json_reads_it(
    rows: list[dict[str, Any]], ascii_only: bool, indent: int | None, window: int, tmp_path: Path
) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(rows, ensure_ascii=ascii_only, indent=indent), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_window, "FIRST", window)
        patch.setattr(json_window, "WINDOW", window)
        found = list(json_rows.JsonRows(path).scan())
        assert [at.row for at in found] == rows
        for at in found:
            assert json_rows.JsonRows(path).read(at.mark) == at


def test_marks_are_forty_bytes_a_row(tmp_path: Path) -> None:
    rows = write_lines(tmp_path)
    assert rows.marks.nbytes == 40 * len(ROWS)
    assert Mark(*rows.marks[0].tolist()) == Mark()
