"""A corpus read in order without an index: nothing is looked at before it is needed, and reading goes on from any row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar, final

from spatial_lightning.data.corpora.index import corpus_key
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import RowAt, Rows
from spatial_lightning.data.corpora.store import open_corpus
from spatial_lightning.data.corpora.validate import kind_of, records_of
from spatial_lightning.records import ImageQuestions, PreferencePair, RecordError, Trace

RecordT = TypeVar("RecordT", ImageQuestions, PreferencePair, Trace)
Problem = tuple[str, str, str]
"""Place, reason and kind of a row that cannot be used."""


@final
class RecordStream(Generic[RecordT]):
    """Rows of a corpus for training without an index pass.

    Questions about one image that the corpus has in several rows stay apart, ids are not compared, and nothing can be held
    out: give validation files of their own.

    Attributes:
        shuffle_rows: so many neighbouring rows are shuffled among each other.
    """

    def __init__(self, reader: CorpusReader[Any], rows: Rows, pictures: Pictures, *, shuffle_rows: int = 1024) -> None:
        if shuffle_rows < 1:
            raise ValueError(f"shuffle_rows is {shuffle_rows}; it must be at least 1")
        self.reader, self.rows, self.pictures, self.shuffle_rows = reader, rows, pictures, shuffle_rows

    def __iter__(self) -> Iterator[RecordT]:
        """Usable records in the order of the files."""
        for found in self.rows.scan():
            yield from self.records(found)[0]

    def records(self, found: RowAt) -> tuple[list[RecordT], Problem | None]:
        """The records of a row, or what is wrong with it."""
        try:
            records = records_of(self.reader, self.rows, found, self.pictures)
        except RecordError as error:
            return [], (found.place, str(error), found.kind or kind_of(error))
        return records, None

    def fingerprint(self) -> str:
        """Hash of the files' names, sizes and times and of how they are read."""
        key = corpus_key(self.reader, self.rows, self.pictures, False)
        return hashlib.blake2b(f"stream/{key}/{self.shuffle_rows}".encode(), digest_size=16).hexdigest()


def open_stream(
    reader: CorpusReader[Any],
    cache: str | Path,
    *,
    shuffle_rows: int = 1024,
    allow_urls: bool = False,
    max_side: int = 20_000,
) -> RecordStream[Any]:
    """A published corpus, read as it comes.

    Args:
        cache: folder for pictures that come inside rows.
        shuffle_rows, allow_urls, max_side: see :class:`RecordStream` and :class:`Pictures`.

    Raises:
        FileNotFoundError: no corpus there.
    """
    rows, pictures = open_corpus(reader, cache, allow_urls=allow_urls, max_side=max_side)
    return RecordStream(reader, rows, pictures, shuffle_rows=shuffle_rows)
