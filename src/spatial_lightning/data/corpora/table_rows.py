"""CSV, parquet, Arrow folders and Hub datasets as rows; pictures in them stay encoded."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np

from spatial_lightning.data.corpora.rows import ManyRows, Mark, RowAt, Rows, files_fingerprint, pack_marks
from spatial_lightning.records import RecordError

_BATCH = 64
"""Rows of a parquet file that are in memory at a time; rows with pictures have megabytes."""


@final
class CsvRows(Rows):
    """Comma or tab separated values with a header; every value is text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
        # Pictures as base64 are longer than the 128 KiB that the module allows at first.
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))

    @property
    def root(self) -> Path:
        """Folder of the file."""
        return self.path.parent

    @property
    def total_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def fingerprint(self) -> str:
        """See :meth:`Rows.fingerprint`."""
        return files_fingerprint([self.path])

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        with self.path.open("rb") as file:
            lines = _Lines(file)
            header = next(csv.reader(lines, self.dialect), [])
            if header:
                header[0] = header[0].removeprefix("\ufeff")
            if start.offset:
                lines.seek(start.offset, start.line)
            mark = start._replace(offset=lines.offset, line=lines.line)
            while True:
                try:
                    # One reader a row: after an error in quotes the next one starts afresh.
                    fields = next(csv.reader(lines, self.dialect), None)
                    error = "" if fields is None or len(fields) == len(header) else _width(fields, header)
                    kind = "wrong number of fields"
                except csv.Error as problem:
                    fields, error, kind = [], f"not valid CSV ({problem})", "not valid CSV"
                if fields is None:
                    return
                if fields or error:
                    if any("\udc80" <= character <= "\udcff" for field in fields for character in field):
                        error, kind = "not valid UTF-8", "not valid UTF-8"
                    row = None if error else dict(zip(header, fields, strict=True))
                    yield RowAt(mark, f"{self.path}:{mark.line}", row, error, kind if error else "")
                    mark = mark._replace(number=mark.number + 1, row=mark.row + 1)
                mark = mark._replace(offset=lines.offset, line=lines.line)


def _width(fields: list[str], header: list[str]) -> str:
    return "" if not fields else f"{len(fields)} fields, the header has {len(header)}"


class _Lines:
    """Lines of a file as text that know how far they were read."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.offset, self.line = file, 0, 1

    def seek(self, offset: int, line: int) -> None:
        """Go on at a row that is known to begin here."""
        self.file.seek(offset)
        self.offset, self.line = offset, line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.file.readline()
        if not line:
            raise StopIteration
        self.offset += len(line)
        self.line += 1
        return line.decode("utf-8", "surrogateescape")


@final
class ParquetRows(Rows):
    """A parquet file: read in order as it is, one row at a time through a memory-mapped copy in the cache of ``datasets``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def root(self) -> Path:
        """Folder of the file."""
        return self.path.parent

    @cached_property
    def total_bytes(self) -> int:
        """Number of rows.

        Raises:
            RecordError: the file is damaged.
        """
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_metadata(self.path).num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise RecordError(f"{self.path} is not a parquet file that can be read: {error}") from error

    def __len__(self) -> int:
        """See :meth:`Rows.__len__`; the file tells."""
        return self.total_bytes

    @cached_property
    def marks(self) -> np.ndarray:
        """See :attr:`Rows.marks`."""
        return _row_marks(len(self))

    def fingerprint(self) -> str:
        """See :meth:`Rows.fingerprint`."""
        return files_fingerprint([self.path])

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path, memory_map=True) as file:
            mark, before = start, 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if before + rows > start.offset:
                    for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group]):
                        for index in range(max(0, start.offset - before), batch.num_rows):
                            yield RowAt(mark, _place(self.path, mark), batch.slice(index, 1).to_pylist()[0])
                            mark = mark._replace(number=mark.number + 1, row=mark.row + 1, offset=mark.offset + 1)
                        before += batch.num_rows
                else:
                    before += rows

    def read(self, mark: Mark) -> RowAt:
        """See :meth:`Rows.read`."""
        return RowAt(mark, _place(self.path, mark), _raw(self._mapped, mark.offset))

    @cached_property
    def _mapped(self) -> Any:
        from datasets import Dataset

        return Dataset.from_parquet(str(self.path)).with_format("arrow")  # pyright: ignore[reportAttributeAccessIssue]


@final
class DatasetRows(Rows):
    """A ``datasets.Dataset``, memory-mapped; its pictures stay encoded."""

    def __init__(self, dataset: Any, name: str, root: Path) -> None:
        self.dataset, self.name, self._root = dataset.with_format("arrow"), name, root

    @property
    def root(self) -> Path:
        """Folder of the dataset."""
        return self._root

    @property
    def total_bytes(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def __len__(self) -> int:
        """See :meth:`Rows.__len__`."""
        return len(self.dataset)

    @cached_property
    def marks(self) -> np.ndarray:
        """See :attr:`Rows.marks`."""
        return _row_marks(len(self))

    def fingerprint(self) -> str:
        """Content hash that ``datasets`` keeps."""
        return str(self.dataset._fingerprint)

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        mark = start
        while mark.offset < len(self.dataset):
            batch = self.dataset[mark.offset : min(mark.offset + _BATCH, len(self.dataset))]
            for index in range(batch.num_rows):
                yield RowAt(mark, _place(self.name, mark), batch.slice(index, 1).to_pylist()[0])
                mark = mark._replace(number=mark.number + 1, row=mark.row + 1, offset=mark.offset + 1)

    def read(self, mark: Mark) -> RowAt:
        """See :meth:`Rows.read`."""
        return RowAt(mark, _place(self.name, mark), _raw(self.dataset, mark.offset))


def _raw(dataset: Any, index: int) -> dict[str, Any]:
    return dataset[index : index + 1].to_pylist()[0]


def _place(name: str | Path, mark: Mark) -> str:
    return f"{name}:row {mark.row + 1}"


def _row_marks(rows: int) -> np.ndarray:
    return pack_marks(Mark(index, 0, index, index) for index in range(rows))


def folder_rows(folder: Path, split: str | None) -> Rows:
    """Rows of a ``save_to_disk`` folder, or of the parquet files in a folder.

    Raises:
        FileNotFoundError: the folder holds neither.
        RecordError: a split is needed or not there.
    """
    from datasets import DatasetDict, load_from_disk

    if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
        found = load_from_disk(str(folder))
        return DatasetRows(
            _split(found, split, str(folder)) if isinstance(found, DatasetDict) else found, str(folder), folder
        )
    files = sorted(folder.rglob("*.parquet"))
    if split is not None:
        files = [path for path in files if path.stem == split or path.name.startswith((f"{split}-", f"{split}_"))]
    if not files:
        wanted = "*.parquet" if split is None else f"{split}*.parquet"
        raise FileNotFoundError(f"{folder} holds no dataset of save_to_disk and no {wanted}: give the file itself")
    parts = [ParquetRows(path) for path in files]
    return parts[0] if len(parts) == 1 else ManyRows(parts)


def hub_rows(name: str, split: str | None) -> Rows:
    """Rows of a dataset of the Hugging Face Hub, downloaded once by ``datasets``; ``OWNER/NAME`` or ``OWNER/NAME:CONFIG``.

    Raises:
        RecordError: a split is needed or not there.
        FileNotFoundError: the dataset cannot be fetched.
    """
    from datasets import DatasetDict, load_dataset

    repository, _, config = name.partition(":")
    try:
        found = load_dataset(repository, config or None)
    except Exception as error:
        raise FileNotFoundError(f"hub:{name} cannot be fetched: {error}") from error
    dataset = _split(found, split, f"hub:{name}") if isinstance(found, DatasetDict) else found
    return DatasetRows(dataset, f"hub:{name}", Path.cwd())


def _split(found: Any, split: str | None, name: str) -> Any:
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        raise RecordError(f"{name} has the splits {', '.join(found)}; split is {split!r}")
    return found[split]
