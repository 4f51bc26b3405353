"""The one pass that looks at every row and every picture of a corpus, and what it notes of each record."""

from __future__ import annotations

import hashlib
import logging
import re
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spatial_lightning.data.corpora.index import Arrays, CorpusIndex, corpus_key, hash64, load_index, save_index
from spatial_lightning.data.corpora.passing import PassProgress
from spatial_lightning.data.corpora.pictures import Pictures, Size
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Mark, RowAt, Rows
from spatial_lightning.locks import locked
from spatial_lightning.records import AnyRecord, BadRows, ImageQuestions, RecordError, Trace

log = logging.getLogger(__name__)


def images_of(record: AnyRecord) -> list[Path]:
    """Every picture of a record: those of the prompt, then those that tools gave back."""
    steps = record.steps if isinstance(record, Trace) else ()
    return [*record.images, *(image for step in steps for image in step.images)]


def index_corpus(
    reader: CorpusReader[Any],
    rows: Rows,
    pictures: Pictures,
    cache: Path,
    *,
    max_bad_fraction: float = 0.0,
    group: bool = True,
    say: Callable[[str], None] = log.info,
) -> CorpusIndex:
    """The index of a corpus, made first where the cache does not hold it; processes that come at once wait for one.

    Args:
        cache: indices live in ``cache/corpora``, one folder for each content of reader settings and files.
        max_bad_fraction: share of unusable rows, in [0, 1], above which the pass stops.
        group: questions about the same images become one record.

    Raises:
        RecordError: too many unusable rows, or none that is usable.
    """
    folder = cache / "corpora" / f"{type(reader).__name__.lower()}-{corpus_key(reader, rows, pictures, group)}"
    with locked(folder / ".lock", say):
        index = load_index(folder, max_bad_fraction)
        if index is None:
            options = {"max_bad_fraction": max_bad_fraction, "group": group, "unique": True, "say": say}
            save_index(folder, build_index(reader, rows, pictures, **options))
            index = load_index(folder, max_bad_fraction)
    assert index is not None
    index.bad.check()
    return index


def build_index(
    reader: CorpusReader[Any],
    rows: Rows,
    pictures: Pictures,
    *,
    max_bad_fraction: float,
    group: bool,
    unique: bool,
    say: Callable[[str], None] = log.info,
) -> CorpusIndex:
    """Read every row once, make its records and look at their pictures.

    Args:
        unique: a row whose record or question ids occurred before is a bad row.

    Raises:
        RecordError: too many unusable rows, or none that is usable.
    """
    growing = _Growing(reader, rows, pictures, BadRows(max_bad_fraction))
    progress = PassProgress(rows, str(reader.path), say)
    for found in rows.scan():
        growing.add(found)
        progress.row(found, growing.bad)
    arrays = growing.finish(group=group and reader.record_type is ImageQuestions, unique=unique)
    growing.bad.check()
    if not len(arrays["ids"]):
        raise RecordError(f"{reader.path} holds no usable record")
    progress.end(growing.bad, len(arrays["ids"]))
    return CorpusIndex(None, growing.bad, growing.content.hexdigest(), arrays)


def records_of(reader: CorpusReader[Any], rows: Rows, found: RowAt, pictures: Pictures) -> list[Any]:
    """The records of a row.

    Raises:
        RecordError: it cannot be used.
    """
    if found.row is None:
        raise RecordError(found.error)
    try:
        records = list(reader.records(found.row, f"{Path(reader.path).stem}/{found.number}", pictures))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        what = f"field {error.args[0]!r} is missing" if isinstance(error, KeyError) else f"wrong type: {error}"
        raise RecordError(what) from error
    for record in records:
        if not isinstance(record, reader.record_type):
            raise RecordError(f"is a {type(record).__name__}, expected a {reader.record_type.__name__}")
    return records


def kind_of(error: RecordError) -> str:
    """The error without what differs from row to row."""
    return getattr(error, "kind", "") or re.sub(r"'[^']*'|\"[^\"]*\"|\d[\d.]*|\S*/\S*", "…", str(error))[:100]


class _Growing:
    """Arrays of an index while rows come in."""

    def __init__(self, reader: CorpusReader[Any], rows: Rows, pictures: Pictures, bad: BadRows) -> None:
        self.reader, self.rows, self.pictures, self.bad = reader, rows, pictures, bad
        self.marks, self.nth = array("q"), array("q")
        self.ids, self.groups = array("Q"), array("Q")
        self.sizes, self.size_counts = array("i"), array("q")
        self.images, self.image_counts = array("Q"), array("q")
        self.keys, self.owners = array("Q"), array("q")
        self.content = hashlib.blake2b(digest_size=16)
        self._shortest, self._before = float("inf"), (0, 0)

    def add(self, found: RowAt) -> None:
        """Take in one row.

        Raises:
            RecordError: the allowed share of bad rows cannot be kept any more.
        """
        here = (found.mark.part, found.mark.offset)
        if here[0] == self._before[0] and here[1] > self._before[1]:
            self._shortest = min(self._shortest, here[1] - self._before[1])
        self._before = here
        try:
            entries = [
                (record, [(image, self.pictures.size(image)) for image in images_of(record)])
                for record in records_of(self.reader, self.rows, found, self.pictures)
            ]
        except RecordError as error:
            self.bad.add(found.place, str(error), found.kind or kind_of(error))
            self._stop_early(found.mark)
            return
        self.bad.good += 1
        for nth, (record, pictures) in enumerate(entries):
            self._record(found.mark, nth, record, pictures)

    def _record(self, mark: Mark, nth: int, record: AnyRecord, pictures: Sequence[tuple[Path, Size]]) -> None:
        names = [self._name(image) for image in record.images]
        item = len(self.nth)
        self.marks.extend(mark)
        self.nth.append(nth)
        self.ids.append(hash64(record.id))
        together = [*names, getattr(record, "system", "")] if names else ["no picture", record.id]
        self.groups.append(hash64("\n".join(together)))
        self.images.extend(map(hash64, names))
        self.image_counts.append(len(names))
        for image, size in pictures:
            self.sizes.extend(size)
            self.content.update(f"{image.name},{image.stat().st_size};".encode())
        self.size_counts.append(len(pictures))
        own = [f"record {record.id}"]
        if isinstance(record, ImageQuestions):
            own += [f"question {question.id}" for question in record.questions]
        self.keys.extend(map(hash64, own))
        self.owners.extend([item] * len(own))

    def _name(self, image: Path) -> str:
        """What tells a picture from others on every machine: its name below the root, of an embedded one its content."""
        root = self.pictures.root
        return str(image.relative_to(root)) if image.is_relative_to(root) else image.name

    def _stop_early(self, mark: Mark) -> None:
        seen = self.bad.good + self.bad.bad
        left = self.rows.total_bytes - self.rows.done(mark)
        # Rows to come are at most as many as fit if all are as short as the shortest so far.
        most = seen + (left / self._shortest if np.isfinite(self._shortest) else left)
        if self.bad.bad > self.bad.max_fraction * most:
            self.bad.check()

    def finish(self, *, group: bool, unique: bool) -> Arrays:
        """The arrays of the index."""
        marks = _array(self.marks, np.int64).reshape(-1, len(Mark._fields))
        keep = np.ones(len(marks), dtype=bool)
        if unique:
            keep = ~self._duplicates(marks)
        groups = _array(self.groups, np.uint64)
        if not group:
            groups = np.arange(len(groups), dtype=np.uint64)
        items = np.flatnonzero(keep)
        _, first, inverse = np.unique(groups[items], return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first, kind="stable")] = np.arange(len(first))
        record = rank[inverse]
        order = np.argsort(record, kind="stable")
        items, record = items[order], record[order]
        starts = np.searchsorted(record, np.arange(len(first) + 1))
        heads = items[starts[:-1]]
        sizes, size_starts = _rows_of(
            _array(self.sizes, np.int32).reshape(-1, 2), _array(self.size_counts, np.int64), heads
        )
        images, image_starts = _rows_of(_array(self.images, np.uint64), _array(self.image_counts, np.int64), heads)
        ids = _array(self.ids, np.uint64)[heads]
        return {
            "marks": marks[items],
            "nth": _array(self.nth, np.int64)[items].astype(np.int32),
            "starts": starts,
            "ids": ids,
            "keys": _components(images, image_starts, ids),
            "images": images,
            "image_starts": image_starts,
            "sizes": sizes,
            "size_starts": size_starts,
        }

    def _duplicates(self, marks: np.ndarray) -> np.ndarray:
        """Which items belong to a row whose ids occurred before; those rows are counted as bad."""
        keys, owners = _array(self.keys, np.uint64), _array(self.owners, np.int64)
        again = np.ones(len(keys), dtype=bool)
        again[np.unique(keys, return_index=True)[1]] = False
        numbers = np.unique(marks[owners[again], 0])
        lost = np.isin(marks[:, 0], numbers)
        for index in np.flatnonzero(lost & np.r_[True, marks[1:, 0] != marks[:-1, 0]] if len(marks) else lost):
            found = self.rows.read(Mark(*marks[index].tolist()))
            self.bad.good -= 1
            self.bad.add(found.place, "its id, or that of a question, occurred before", "duplicate id")
        return lost


def _array(values: array, kind: Any) -> np.ndarray:
    return np.frombuffer(values, dtype=kind) if len(values) else np.zeros(0, dtype=kind)


def _rows_of(values: np.ndarray, counts: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a table whose rows belong to items, ``counts`` each: the rows of the chosen items, and where each begins."""
    begins = np.r_[0, np.cumsum(counts)]
    lengths = counts[chosen]
    starts = np.r_[0, np.cumsum(lengths)]
    places = np.repeat(begins[chosen] - starts[:-1], lengths) + np.arange(starts[-1])
    return values[places], starts


def _components(images: np.ndarray, starts: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """One number a record, the same for records that share a picture, directly or through others; else its id."""
    lengths = np.diff(starts)
    keys = ids.copy()
    keys[lengths > 0] = images[starts[:-1][lengths > 0]]
    parent: dict[int, int] = {}

    def root(image: int) -> int:
        while (above := parent.get(image, image)) != image:
            parent[image] = parent.get(above, above)
            image = above
        return image

    for record in np.flatnonzero(lengths > 1):
        first, *others = images[starts[record] : starts[record + 1]].tolist()
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    if parent:
        keys = np.fromiter((root(key) for key in keys.tolist()), dtype=np.uint64, count=len(keys))
    return keys
