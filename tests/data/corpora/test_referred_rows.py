"""Tables that store a picture once: rows that name another row get its picture, and those that cannot say why."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from bench_rows import encoded, tsv
from reading import write_picture

from spatial_lightning.data.corpora import ChoiceTable
from spatial_lightning.data.corpora.referred_rows import ReferredRows
from spatial_lightning.data.corpora.store import open_store
from spatial_lightning.records import RecordError

ASKED = {"question": "Which?", "A": "left", "B": "right", "answer": "A"}


def _table(folder: Path, *cells: tuple[Any, Any], **more: Any) -> str:
    rows = [{"index": str(index), "image": str(image)} | ASKED | more for index, image in cells]
    return tsv(folder / "rows.tsv", rows)


def _store(path: str, folder: Path, **settings: Any) -> Any:
    return open_store(ChoiceTable(path=path), folder / "cache", group=False, **settings)


def test_a_row_that_names_another_shows_its_picture(tmp_path: Path) -> None:
    """One hop, several hops, a row that comes later, and ids that pandas wrote as floats."""
    path = _table(tmp_path, (5, 9), (7, encoded()), (8, "7"), (9, 8), (10, "7.0"))
    store = _store(path, tmp_path)
    assert [record.id for record in store] == ["5", "7", "8", "9", "10"]
    (picture,) = {record.images for record in store}
    assert picture[0].is_file()
    assert [record.questions[0].answer for record in store] == ["left"] * 5


def test_questions_about_a_picture_stored_once_are_one_record(tmp_path: Path) -> None:
    path = _table(tmp_path, (1, encoded()), (2, 1), (3, 1))
    (record,) = open_store(ChoiceTable(path=path), tmp_path / "cache")
    assert [question.id for question in record.questions] == ["1", "2", "3"]


def test_a_row_is_the_same_read_alone_and_in_another_process(tmp_path: Path) -> None:
    rows = ChoiceTable(path=_table(tmp_path, (1, encoded()), (2, 1), (3, 2))).rows()
    assert isinstance(rows, ReferredRows)
    whole = [at.row for at in rows.scan()]
    assert [rows.get(number) for number in range(len(rows))] == whole
    assert pickle.loads(pickle.dumps(rows)).get(2) == whole[2] == {**rows.rows.get(2), "image": encoded()}


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([(1, 2), (2, 1)], "image refers to rows in a circle, from index '1' to '2' to '1'"),
        ([(1, 1)], "image refers to rows in a circle, from index '1' to '1'"),
        ([(0, 1), (1, 2), (2, 1)], "from index '0' to '1' to '2' to '1': one of them must hold the picture"),
        ([(1, 99)], "image is '99': no row has this index, and it names no picture"),
        ([(1, 2), (2, 99)], "image is '99': no row has this index"),
    ],
)
def test_a_circle_and_an_unknown_index_are_refused_in_words(tmp_path: Path, cells: Any, words: str) -> None:
    with pytest.raises(RecordError) as caught:
        _store(_table(tmp_path, *cells), tmp_path)
    assert words in str(caught.value)
    assert "rows.tsv:2" in str(caught.value)


def test_names_of_pictures_stay_names(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png")
    path = _table(tmp_path, (1, "1.png"), (2, "1"))
    assert [record.images for record in _store(path, tmp_path)] == [(tmp_path / "1.png",)] * 2


def test_only_rows_that_refer_to_nothing_are_counted_as_bad(tmp_path: Path) -> None:
    path = _table(tmp_path, (1, encoded()), (2, 1), (3, 99), (4, 98), (5, 5))
    store = _store(path, tmp_path, max_bad_fraction=0.7)
    assert len(store) == 2
    assert store.bad.reasons == {"image refers to no row": 2, "image refers in a circle": 1}
