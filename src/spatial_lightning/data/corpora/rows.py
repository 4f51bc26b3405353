"""Rows of a published corpus of any size: read in order or one at a time, in constant memory, with the place of each."""

from __future__ import annotations

import glob as globbing
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

MAX_ROW_BYTES = 64 * 2**20
"""Above this a row is taken for a damaged one whose end is lost."""


class Mark(NamedTuple):
    """Where a row begins: enough to go on reading there without reading what is before it.

    Attributes:
        number: of the row in the whole corpus, from 0.
        part: which of the concatenated files it lies in.
        row: its number within that file, from 0.
        offset: byte at which it begins in the file; for tables its row number.
        line: of the file at ``offset``, from 1.
    """

    number: int = 0
    part: int = 0
    row: int = 0
    offset: int = 0
    line: int = 1


@dataclass(frozen=True, slots=True)
class RowAt:
    """One row, or why there is none, and where it is.

    Attributes:
        mark: reading can start here again.
        place: ``path:line``, or ``path:row N`` where lines do not tell rows apart.
        row: the row as it was published; None where it cannot be read.
        error: why it cannot be read, empty where it can.
        kind: groups errors that differ in detail only.
    """

    mark: Mark
    place: str
    row: Mapping[str, Any] | None = None
    error: str = ""
    kind: str = ""

    @property
    def number(self) -> int:
        """Number of the row in the corpus, from 0; rows that cannot be read count."""
        return self.mark.number


class Rows(ABC):
    """Rows in the order of the files; nothing is held open, so that processes can share one."""

    @property
    @abstractmethod
    def root(self) -> Path:
        """Folder that picture names are relative to by default."""

    @property
    @abstractmethod
    def total_bytes(self) -> int:
        """Bytes of the files, or number of rows where only that is known; with ``Mark.offset`` it tells progress."""

    @abstractmethod
    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008 (a constant)
        """Rows from ``start`` on, unreadable ones with their error."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the names, sizes and times of the files."""

    def read(self, mark: Mark) -> RowAt:
        """The row that begins at ``mark``."""
        return next(self.scan(mark))

    def done(self, mark: Mark) -> int:
        """How much of ``total_bytes`` lies before ``mark``."""
        return mark.offset

    @property
    def members(self) -> Mapping[str, Mapping[str, Any]]:
        """Pictures that lie in an archive together with the rows: by name, where their bytes are."""
        return {}

    @cached_property
    def marks(self) -> np.ndarray:
        """Where each row begins, one line of int64 a row; found by reading the corpus once."""
        return pack_marks(found.mark for found in self.scan())

    def __len__(self) -> int:
        """Number of rows, unreadable ones included; reads the corpus once."""
        return len(self.marks)

    def get(self, number: int) -> Mapping[str, Any]:
        """One row by its number.

        Raises:
            IndexError: there is no such row.
            RecordError: it cannot be read.
        """
        from spatial_lightning.records import RecordError

        found = self.read(Mark(*self.marks[number].tolist()))
        if found.row is None:
            raise RecordError(f"{found.place}: {found.error}")
        return found.row


def pack_marks(marks: Iterator[Mark]) -> np.ndarray:
    """Marks as a table of int64: 40 bytes a row."""
    flat = np.fromiter((value for mark in marks for value in mark), dtype=np.int64)
    return flat.reshape(-1, len(Mark._fields))


def files_fingerprint(paths: Sequence[Path]) -> str:
    """Hash of names, sizes and modification times."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        state = path.stat()
        digest.update(f"{path.name},{state.st_size},{state.st_mtime_ns};".encode())
    return digest.hexdigest()


@final
class ManyRows(Rows):
    """Files one behind the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([part.total_bytes for part in self.parts]).tolist()

    @property
    def root(self) -> Path:
        """Folder that all files lie below."""
        return Path(os.path.commonpath([part.root.absolute() for part in self.parts]))

    @property
    def total_bytes(self) -> int:
        """See :attr:`Rows.total_bytes`."""
        return self._ends[-1]

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        number, own = start.number, start._replace(number=start.row, part=0)
        for part in range(start.part, len(self.parts)):
            for found in self.parts[part].scan(own):
                mark = found.mark._replace(number=number, part=part)
                yield RowAt(mark, found.place, found.row, found.error, found.kind)
                number += 1
            own = Mark()

    def read(self, mark: Mark) -> RowAt:
        """See :meth:`Rows.read`."""
        found = self.parts[mark.part].read(mark._replace(number=mark.row, part=0))
        return RowAt(mark, found.place, found.row, found.error, found.kind)

    def done(self, mark: Mark) -> int:
        """See :meth:`Rows.done`."""
        before = self._ends[mark.part - 1] if mark.part else 0
        return before + self.parts[mark.part].done(mark)

    @cached_property
    def members(self) -> Mapping[str, Mapping[str, Any]]:
        """See :attr:`Rows.members`."""
        return {name: where for part in self.parts for name, where in part.members.items()}

    def fingerprint(self) -> str:
        """See :meth:`Rows.fingerprint`."""
        return hashlib.blake2b("".join(part.fingerprint() for part in self.parts).encode(), digest_size=16).hexdigest()


@final
class FileRows(Rows):
    """One JSON document a file: the row is the document plus ``_path``; other than an object it is under ``document``.

    Raises:
        FileNotFoundError: no file is given.
    """

    def __init__(self, paths: Sequence[Path], root: Path | None = None) -> None:
        self.paths = [Path(path) for path in paths]
        if not self.paths:
            raise FileNotFoundError("no JSON document found: the list of files is empty")
        self._root = root

    @cached_property
    def root(self) -> Path:
        """Given, or the folder that all files lie below."""
        return self._root or Path(os.path.commonpath([path.absolute().parent for path in self.paths]))

    @property
    def total_bytes(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    @cached_property
    def marks(self) -> np.ndarray:
        """See :attr:`Rows.marks`; known without reading."""
        return pack_marks(Mark(index, 0, index, index) for index in range(len(self.paths)))

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        for index in range(start.offset, len(self.paths)):
            path, mark = self.paths[index], Mark(start.number + index - start.offset, 0, index, index)
            try:
                document = json.loads(path.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                yield RowAt(mark, f"{path}:{getattr(error, 'lineno', 1)}", None, *json_problem(error))
                continue
            row = document if isinstance(document, dict) else {"document": document}
            yield RowAt(mark, f"{path}:1", row | {"_path": str(path)})

    def fingerprint(self) -> str:
        """See :meth:`Rows.fingerprint`."""
        return files_fingerprint(self.paths)


def json_problem(error: Exception) -> tuple[str, str]:
    """What is wrong with JSON text, and its kind."""
    match error:
        case json.JSONDecodeError():
            return f"not valid JSON ({error.msg}, column {error.colno})", "not valid JSON"
        case UnicodeError():
            return f"not valid UTF-8 ({error})", "not valid UTF-8"
        case RecursionError():
            return "JSON nested too deeply", "not valid JSON"
        case _:
            return f"cannot be read: {error}", "cannot be read"


def open_rows(path: str | Path, *, split: str | None = None, container: str | None = None) -> Rows:
    """The rows at a path, by its kind.

    Args:
        path: JSON lines, a JSON array, a JSON object with a ``container``, CSV or TSV, parquet, a ``save_to_disk`` folder,
            a folder of parquet files, a tar of JSON and pictures, ``hub:OWNER/NAME``, or a glob over files.
        split: of a folder or hub corpus.
        container: key of a JSON object that holds the rows; ``*`` takes every value of the object as a row, which
            gets its key as ``_key``.

    Raises:
        FileNotFoundError: nothing there.
        RecordError: a kind of file that cannot be read, or a split where there is none.
    """
    from spatial_lightning.data.corpora.json_rows import json_rows
    from spatial_lightning.data.corpora.table_rows import CsvRows, ParquetRows, folder_rows, hub_rows
    from spatial_lightning.data.corpora.tar_rows import TarRows
    from spatial_lightning.records import RecordError

    text = str(path)
    if text.startswith("hub:"):
        return hub_rows(text.removeprefix("hub:"), split)
    place = Path(text)
    if place.is_dir():
        return folder_rows(place, split)
    if not place.exists() and globbing.has_magic(text):
        found = sorted(globbing.glob(text, recursive=True))
        if not found:
            raise FileNotFoundError(f"nothing matches {text}")
        parts = [open_rows(name, split=split, container=container) for name in found]
        return parts[0] if len(parts) == 1 else ManyRows(parts)
    if not place.is_file():
        raise FileNotFoundError(f"no corpus at {text}: give a file, a folder, a glob or hub:OWNER/NAME")
    if split is not None:
        raise RecordError(f"split={split} is for folders and hub: corpora; {text} is one file")
    match place.suffix.lower():
        case ".json" | ".jsonl" | ".ndjson":
            return json_rows(place, container)
        case ".csv" | ".tsv":
            return CsvRows(place)
        case ".parquet":
            return ParquetRows(place)
        case ".tar":
            return TarRows(place)
        case other:
            raise RecordError(
                f"{text} is of unknown kind {other!r}; allowed: .jsonl, .json, .csv, .tsv, .parquet, .tar, a folder of "
                "save_to_disk or hub:OWNER/NAME (unpack compressed files first)"
            )
