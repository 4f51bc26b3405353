"""What is kept of a corpus that was looked at: where its records are and how large their pictures, mapped from disk."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from spatial_lightning.data.corpora.pictures import Pictures, Size
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Mark, Rows
from spatial_lightning.records import BadRows

_FORMAT = 1
"""Raised when an index holds other arrays than before."""
_ARRAYS = ("marks", "nth", "starts", "ids", "keys", "images", "image_starts", "sizes", "size_starts")
_COMPLETE = "complete.json"

Arrays = dict[str, np.ndarray]


@final
class CorpusIndex:
    """Where the records of a corpus are and how large their pictures, about 100 bytes a record, mapped from disk.

    A record is one or more items; an item is the ``nth`` record that the reader makes of the row at a mark.

    Attributes:
        folder: where the arrays are; None holds them in memory.
        bad: rows that cannot be used, each with its place.
        content: hash of what was read.
    """

    marks: np.ndarray
    nth: np.ndarray
    starts: np.ndarray
    ids: np.ndarray
    keys: np.ndarray
    images: np.ndarray
    image_starts: np.ndarray
    sizes: np.ndarray
    size_starts: np.ndarray

    def __init__(self, folder: Path | None, bad: BadRows, content: str, arrays: Arrays | None = None) -> None:
        self.folder, self.bad, self.content, self._arrays = folder, bad, content, arrays

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in _ARRAYS:
            raise AttributeError(name)
        if self._arrays is None:
            assert self.folder is not None
            self._arrays = {key: np.load(self.folder / f"{key}.npy", mmap_mode="r") for key in _ARRAYS}
        return self._arrays[name]

    def __getstate__(self) -> dict[str, Any]:
        # A process that is started afresh maps the files again: a mapped array would be sent by its content.
        return self.__dict__ | {"_arrays": None if self.folder is not None else self._arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.ids)

    def items(self, index: int) -> list[tuple[Mark, int]]:
        """Rows of a record, and which of the row's records it is."""
        own = slice(self.starts[index], self.starts[index + 1])
        return [(Mark(*mark), nth) for mark, nth in zip(self.marks[own].tolist(), self.nth[own].tolist(), strict=True)]

    def picture_sizes(self, index: int) -> list[Size]:
        """Height and width in pixels of each picture of a record."""
        return [(h, w) for h, w in self.sizes[self.size_starts[index] : self.size_starts[index + 1]].tolist()]

    def pictures(self, index: int) -> np.ndarray:
        """Hash of each picture of a record's prompt."""
        return self.images[self.image_starts[index] : self.image_starts[index + 1]]

    @cached_property
    def _by_id(self) -> np.ndarray:
        return np.argsort(self.ids, kind="stable")

    def find(self, identity: str) -> int | None:
        """Index of the first record with this id; None where there is none."""
        wanted = np.uint64(hash64(identity))
        place = int(np.searchsorted(self.ids, wanted, sorter=self._by_id))
        found = int(self._by_id[place]) if place < len(self) else -1
        return found if found >= 0 and self.ids[found] == wanted else None


def hash64(text: str) -> int:
    """A hash that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def corpus_key(reader: CorpusReader[Any], rows: Rows, pictures: Pictures, group: bool) -> str:
    """Hash of the files, of the reader's settings, of the code that reads, and of the folder of the pictures."""
    source = inspect.getsourcefile(type(reader))
    # Readers share what tells turns, regions and words; a change there makes other records, too.
    files = {*Path(__file__).parent.glob("*.py"), *([Path(source)] if source else [])}
    code = hashlib.blake2b(b"".join(file.read_bytes() for file in sorted(files) if file.is_file())).hexdigest()
    said = [_FORMAT, type(reader).__qualname__, asdict(reader), code, rows.fingerprint()]
    said += [str(pictures.root.absolute()), pictures.max_side, pictures.allow_urls, group]
    return hashlib.blake2b(json.dumps(said, default=str).encode(), digest_size=8).hexdigest()


def load_index(folder: Path, max_bad_fraction: float) -> CorpusIndex | None:
    """The index in a folder; None where it is not finished."""
    if not (folder / _COMPLETE).is_file():
        return None
    stored = json.loads((folder / _COMPLETE).read_text())
    bad = BadRows(max_bad_fraction, stored["good"], stored["reasons"], (folder / "bad.txt").read_text().splitlines())
    return CorpusIndex(folder, bad, stored["content"])


def save_index(folder: Path, index: CorpusIndex) -> None:
    """Write an index into its folder; it counts when the last file is there."""
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(index, name))
    (folder / "bad.txt").write_text("".join(" ".join(place.split()) + "\n" for place in index.bad.places))
    stored = {"good": index.bad.good, "reasons": index.bad.reasons, "content": index.content}
    part = folder / f"{_COMPLETE}.part"
    part.write_text(json.dumps(stored, indent=1))
    part.replace(folder / _COMPLETE)
