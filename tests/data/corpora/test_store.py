"""Records of a corpus by number: merged by image, split by image, and the same as reading it in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from published import Captions, row, write_images, write_rows

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import SpatialVLMDataModule
from spatial_lightning.data.corpora.store import RecordStore, open_record_file, open_store
from spatial_lightning.records import ImageQuestions, RecordError, write_records


@pytest.fixture
def reader(tmp_path: Path) -> Captions:
    """Sixty rows about twelve pictures, some rows about two of them."""
    names = write_images(tmp_path, 12)
    rows = [row(i, names[i * 5 % 12]) for i in range(54)]
    rows += [row(100 + i, "", images=[names[i], names[i + 1]]) for i in (0, 1, 4, 4, 8, 9)]
    return write_rows(tmp_path / "rows.json", [{**entry, "id": str(n)} for n, entry in enumerate(rows)])


def store_of(reader: Captions, **options: Any) -> RecordStore[ImageQuestions]:
    return open_store(reader, Path(reader.path).parent / "cache", **options)


def test_questions_about_the_same_images_become_one_record(reader: Captions) -> None:
    merged, apart = store_of(reader), store_of(reader, group=False)
    assert len(apart) == 60
    assert len(merged) == 12 + 5
    assert len({record.images for record in merged}) == len(merged)
    asked = {(record.images, question) for record in apart for question in record.questions}
    assert {(record.images, question) for record in merged for question in record.questions} == asked
    assert [record.id for record in apart] == [str(number) for number in range(60)]
    assert [record.questions[0].id for record in merged] == sorted((r.questions[0].id for r in merged), key=int)
    for index, record in enumerate(merged):
        assert merged.id(index) == record.id
        assert merged.find(record.id) == index
        assert merged.sizes(index) == [(28, 28 + int(image.stem)) for image in record.images]
        assert merged.place(index).startswith(f"{reader.path}:")
    assert merged.find("absent") is None
    assert [record.id for record in merged[3:7]] == [merged[index].id for index in range(3, 7)]
    assert merged[-1] == merged[len(merged) - 1]
    with pytest.raises(IndexError):
        merged[len(merged)]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_no_picture_is_on_both_sides_of_a_split(reader: Captions, share: float) -> None:
    store = store_of(reader)
    for seed in range(5):
        train, val = store.split(share, seed)
        pictures = [{image for record in side for image in record.images} for side in (train, val)]
        assert not pictures[0] & pictures[1]
        assert len(train) + len(val) == len(store)
        assert len(train)
        assert len(val)
        again = store.split(share, seed)
        assert [side.fingerprint() for side in again] == [train.fingerprint(), val.fingerprint()]
    assert store.split(0.3, 0)[1].fingerprint() != store.split(0.3, 1)[1].fingerprint()
    assert len(train.without_images_of(val)) == len(train)
    assert len(store.without_images_of(val)) == len(train)


def test_a_split_keeps_its_pictures_when_rows_are_added(tmp_path: Path) -> None:
    names = write_images(tmp_path, 40)
    stores = [
        open_store(write_rows(tmp_path / f"{n}.jsonl", [row(i, names[i % n]) for i in range(80)]), tmp_path / "cache")
        for n in (30, 40)
    ]
    held = [{image for record in store.split(0.3)[1] for image in record.images} for store in stores]
    assert held[0] == {image for image in held[1] if int(image.stem) < 30}


def test_impossible_splits_are_refused(tmp_path: Path) -> None:
    (name,) = write_images(tmp_path, 1)
    store = open_store(write_rows(tmp_path / "rows.jsonl", [row(0, name), row(1, name)]), tmp_path / "cache")
    with pytest.raises(RecordError, match="share their pictures"):
        store.split(0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        store.split(1.0)


def test_files_that_changed_since_are_noticed(tmp_path: Path) -> None:
    (name,) = write_images(tmp_path, 1)
    path = tmp_path / "rows.jsonl"
    store = open_store(write_rows(path, [row(i, name) for i in range(4)]), tmp_path / "cache", group=False)
    write_rows(path, [row(9 - i, name) for i in range(4)])
    with pytest.raises(RecordError, match="changed since it was checked"):
        store[1]
    path.write_text(path.read_text()[3:])
    with pytest.raises(RecordError, match="changed since it was checked"):
        store[1]


def test_own_record_files_read_the_same_records(reader: Captions, tmp_path: Path) -> None:
    records = list(store_of(reader))
    write_records(tmp_path / "own" / "train.jsonl", records)
    own = open_record_file(tmp_path / "own" / "train.jsonl", ImageQuestions, 0.0)
    assert list(own) == records
    before = own.fingerprint()
    write_records(tmp_path / "own" / "train.jsonl", records[:-1])
    assert open_record_file(tmp_path / "own" / "train.jsonl", ImageQuestions, 0.0).fingerprint() != before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_published_corpus_trains_like_any_record_file(
    reader: Captions, tiny: Backbone, tmp_path: Path, workers: int
) -> None:
    train, val = store_of(reader).split(0.3)
    for name, side in (("train", train), ("val", val)):
        write_records(tmp_path / "own" / f"{name}.jsonl", list(side))
    options = {"batch_size": 4, "questions_per_image": 3}
    published = SpatialVLMDataModule(tiny.processor, train=train, val=val, num_workers=workers, **options)
    own = SpatialVLMDataModule(
        tiny.processor, train=tmp_path / "own" / "train.jsonl", val=tmp_path / "own" / "val.jsonl", **options
    )
    for data in (published, own):
        data.setup("fit")
    assert published.steps_per_epoch == own.steps_per_epoch
    assert [published.length(i, 2) for i in range(len(train))] == [own.length(i, 2) for i in range(len(train))]
    loader, expected = published.train_dataloader(), own.train_dataloader()
    for epoch in range(2):  # the second one by the same loader processes
        for each in (loader, expected):
            each.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        steps = [[row.ids.tolist() for row in step] for step in loader]
        assert steps == [[row.ids.tolist() for row in step] for step in expected]
    published.teardown("fit")
