"""What a reader of a published corpus is: where its rows are, and how one row becomes records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.rows import Rows, open_rows
from spatial_lightning.records import Record


@dataclass(frozen=True, kw_only=True)
class CorpusReader(ABC, Generic[Record]):
    """Reads one published format, unmodified.

    Attributes:
        path: a file, a folder, a glob, tar shards, or ``hub:OWNER/NAME`` for the Hugging Face Hub.
        images: folder that the rows' picture names are relative to; null takes the folder of the file.
        split: which split of a folder or hub corpus; null where there is one only.
    """

    record_type: ClassVar[type]

    path: str
    images: str | None = None
    split: str | None = None

    def rows(self) -> Rows:
        """The rows of the corpus, with random access.

        Raises:
            FileNotFoundError: nothing at ``path``.
        """
        return open_rows(self.path, split=self.split)

    @abstractmethod
    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterable[Record]:
        """Records of one row.

        Args:
            row: the row as it was published.
            identity: unique within the corpus and the same in every run, for records whose rows have no id of their own.
            pictures: turns what a row says about a picture (name, bytes, base64, dict) into a file.

        Raises:
            RecordError: the row cannot be used; the message says what was given and what is allowed.
        """
