"""Records of a corpus by number, read from its files when asked for; and its split into training and held-out images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, final, overload

import numpy as np

from spatial_lightning.data.corpora.index import CorpusIndex, hash64
from spatial_lightning.data.corpora.pictures import Pictures, Size
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Mark, Rows
from spatial_lightning.data.corpora.validate import build_index, index_corpus, records_of
from spatial_lightning.records import (
    AnyRecord,
    BadRows,
    ImageQuestions,
    PreferencePair,
    RecordError,
    Trace,
    from_json,
)

log = logging.getLogger(__name__)

_CHANGED = "the file has changed since it was checked: start again"

RecordT = TypeVar("RecordT", ImageQuestions, PreferencePair, Trace)


@final
class RecordStore(Sequence[RecordT], Generic[RecordT]):
    """A sequence of records of which only the index is in memory; a slice is a store over the same index.

    Attributes:
        corpus: where the records are.
        chosen: which records of the corpus are in this store, in order.
    """

    def __init__(
        self, reader: CorpusReader[Any], rows: Rows, pictures: Pictures, corpus: CorpusIndex, chosen: np.ndarray
    ) -> None:
        self.reader, self.rows, self.pictures, self.corpus, self.chosen = reader, rows, pictures, corpus, chosen

    @property
    def bad(self) -> BadRows:
        """Rows of the whole corpus that cannot be used."""
        return self.corpus.bad

    def __len__(self) -> int:
        return len(self.chosen)

    @overload
    def __getitem__(self, index: int) -> RecordT: ...
    @overload
    def __getitem__(self, index: slice) -> RecordStore[RecordT]: ...
    def __getitem__(self, index: int | slice) -> RecordT | RecordStore[RecordT]:
        if isinstance(index, slice):
            return RecordStore(self.reader, self.rows, self.pictures, self.corpus, self.chosen[index])
        number = int(self.chosen[index])
        parts = [self._record(mark, nth) for mark, nth in self.corpus.items(number)]
        if hash64(parts[0].id) != self.corpus.ids[number]:
            raise RecordError(f"{self.place(index)}: {_CHANGED}")
        if len(parts) == 1:
            return parts[0]
        return replace(parts[0], questions=tuple(question for part in parts for question in part.questions))

    def _record(self, mark: Mark, nth: int) -> Any:
        found = self.rows.read(mark)
        try:
            records = records_of(self.reader, self.rows, found, self.pictures)
        except RecordError as error:
            raise RecordError(f"{found.place}: {error} ({_CHANGED}?)") from error
        if nth >= len(records):
            raise RecordError(f"{found.place}: {_CHANGED}")
        return records[nth]

    def id(self, index: int) -> str:
        """Id of a record."""
        return self[index].id

    def place(self, index: int) -> str:
        """``path:line`` of the first row of a record."""
        return self.rows.read(self.corpus.items(int(self.chosen[index]))[0][0]).place

    def sizes(self, index: int) -> list[Size]:
        """Height and width in pixels of each picture of a record, without opening it."""
        return self.corpus.picture_sizes(int(self.chosen[index]))

    def find(self, identity: str) -> int | None:
        """Where the record with an id is in this store; None where it is not."""
        found = self.corpus.find(identity)
        places = [] if found is None else np.flatnonzero(self.chosen == found)
        return int(places[0]) if len(places) else None

    def fingerprint(self) -> str:
        """Content hash of the corpus, of its pictures' names and sizes in bytes, and of which records are chosen."""
        digest = hashlib.blake2b(self.corpus.content.encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.corpus.ids[self.chosen]).tobytes())
        return digest.hexdigest()

    def split(self, val_share: float, seed: int = 0) -> tuple[RecordStore[RecordT], RecordStore[RecordT]]:
        """Training and held-out records; records that share a picture are on the same side, the same in every run.

        Args:
            val_share: share of the images held out, in (0, 1); at least one record is on each side.

        Raises:
            RecordError: all records share their pictures.
            ValueError: the share is out of range.
        """
        if not 0 < val_share < 1:
            raise ValueError(f"val_share is {val_share}; it must be between 0 and 1")
        keys, inverse = np.unique(self.corpus.keys[self.chosen], return_inverse=True)
        if len(keys) < 2:
            raise RecordError(
                f"all records of {self.reader.path} share their pictures: give a separate file to hold out"
            )
        draws = np.array([hash64(f"{seed}/{key}") for key in keys.tolist()], dtype=np.uint64) / 2.0**64
        held = draws < val_share
        if not held.any():
            held[draws.argmin()] = True
        if held.all():
            held[draws.argmax()] = False
        return tuple(
            RecordStore(self.reader, self.rows, self.pictures, self.corpus, self.chosen[side[inverse]])
            for side in (~held, held)
        )  # pyright: ignore[reportReturnType]

    def without_images_of(self, other: RecordStore[Any]) -> RecordStore[RecordT]:
        """The records that share no picture with another store of the same pictures folder."""
        pictures, starts = self.corpus.images, self.corpus.image_starts
        theirs = np.concatenate([other.corpus.pictures(index) for index in other.chosen.tolist()] or [pictures[:0]])
        met = np.r_[0, np.cumsum(np.isin(pictures, theirs))]
        free = met[starts[self.chosen + 1]] == met[starts[self.chosen]]
        return RecordStore(self.reader, self.rows, self.pictures, self.corpus, self.chosen[free])


def open_store(
    reader: CorpusReader[Any],
    cache: str | Path,
    *,
    max_bad_fraction: float = 0.0,
    group: bool = True,
    allow_urls: bool = False,
    max_side: int = 20_000,
    say: Callable[[str], None] = log.info,
) -> RecordStore[Any]:
    """The records of a published corpus; its index is made first where the cache does not hold it.

    Args:
        cache: folder for the index and for pictures that come inside rows.
        max_bad_fraction: share of unusable rows, in [0, 1], above which reading stops.
        group: questions about the same images become one record.
        allow_urls, max_side: see :class:`Pictures`.

    Raises:
        FileNotFoundError: no corpus there.
        RecordError: too many unusable rows, or none that is usable.
    """
    rows, pictures = open_corpus(reader, cache, allow_urls=allow_urls, max_side=max_side)
    index = index_corpus(reader, rows, pictures, Path(cache), max_bad_fraction=max_bad_fraction, group=group, say=say)
    pictures.check = False
    return RecordStore(reader, rows, pictures, index, np.arange(len(index)))


def open_corpus(
    reader: CorpusReader[Any], cache: str | Path, *, allow_urls: bool = False, max_side: int = 20_000
) -> tuple[Rows, Pictures]:
    """The rows of a reader and what finds their pictures."""
    rows = reader.rows()
    root = rows.root if reader.images is None else Path(reader.images)
    embedded = Path(cache) / "pictures"
    return rows, Pictures(root, embedded, allow_urls=allow_urls, max_side=max_side, members=rows.members)


@final
@dataclass(frozen=True, kw_only=True)
class RecordFile(CorpusReader[Any]):
    """This project's own record files (:mod:`spatial_lightning.records`).

    Attributes:
        record_type: what the file must hold.
    """

    record_type: type  # pyright: ignore[reportIncompatibleVariableOverride]

    def records(self, row: Any, identity: str, pictures: Pictures) -> Iterator[AnyRecord]:
        """See :meth:`CorpusReader.records`; paths are taken as they are, because these files name any folder."""
        yield from_json(row, Path(self.path).parent)


def open_record_file(path: Path, record_type: type[RecordT], max_bad_fraction: float) -> RecordStore[RecordT]:
    """A store over a record file; every row and picture is looked at, nothing is written.

    Raises:
        FileNotFoundError: the file does not exist.
        RecordError: too many unusable rows, or none that is usable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no record file at {path}")
    if path.stat().st_size == 0:
        raise RecordError(f"{path} holds no usable record")
    reader = RecordFile(path=str(path), record_type=record_type)
    rows = reader.rows()
    pictures = Pictures(path.parent, path.parent)
    index = build_index(reader, rows, pictures, max_bad_fraction=max_bad_fraction, group=False, unique=False)
    digest = hashlib.blake2b(index.content.encode(), digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    index.content = digest.hexdigest()
    return RecordStore(reader, rows, pictures, index, np.arange(len(index)))
