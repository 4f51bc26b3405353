"""Tables that store a picture once and name its row elsewhere, as those of VLMEvalKit do: each row with the picture itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from spatial_lightning.data.corpora.fields import is_empty
from spatial_lightning.data.corpora.rows import Mark, RowAt, Rows

_LONGEST = 64
"""Characters of a cell that may name a row; VLMEvalKit takes longer ones for pictures."""
_INDEX, _IMAGE = "index", "image"


@final
class ReferredRows(Rows):
    """Rows whose ``image`` may be the ``index`` of another row, with that row's picture in its place, over any number of rows.

    A row that refers to itself, directly or in a circle, cannot be read. What is no index stays as it is.

    Args:
        rows: as they were published.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @property
    def root(self) -> Path:
        """See :attr:`Rows.root`."""
        return self.rows.root

    @property
    def total_bytes(self) -> int:
        """See :attr:`Rows.total_bytes`."""
        return self.rows.total_bytes

    @property
    def members(self) -> Mapping[str, Mapping[str, Any]]:
        """See :attr:`Rows.members`."""
        return self.rows.members

    @property
    def marks(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See :attr:`Rows.marks`."""
        return self.rows.marks

    def __len__(self) -> int:
        """See :meth:`Rows.__len__`."""
        return len(self.rows)

    def fingerprint(self) -> str:
        """See :meth:`Rows.fingerprint`."""
        return self.rows.fingerprint()

    def done(self, mark: Mark) -> int:
        """See :meth:`Rows.done`."""
        return self.rows.done(mark)

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        return map(self._with_picture, self.rows.scan(start))

    def read(self, mark: Mark) -> RowAt:
        """See :meth:`Rows.read`."""
        return self._with_picture(self.rows.read(mark))

    @cached_property
    def _by_index(self) -> dict[str, Mark]:
        """Where the row of each index is; the first of several. Found by reading the table once, where a row refers at all."""
        found: dict[str, Mark] = {}
        for at in self.rows.scan():
            if at.row is not None and (name := _name(at.row.get(_INDEX))):
                found.setdefault(name, at.mark)
        return found

    def _with_picture(self, found: RowAt) -> RowAt:
        at, passed = found, [_name((found.row or {}).get(_INDEX))]
        while at.row is not None and (name := _name(at.row.get(_IMAGE))) and name in self._by_index:
            if name in passed:
                circle = " to ".join(map(repr, [*passed, name]))
                error = f"image refers to rows in a circle, from index {circle}: one of them must hold the picture"
                return RowAt(found.mark, found.place, None, error, "image refers in a circle")
            passed.append(name)
            at = self.rows.read(self._by_index[name])
        if at is found or found.row is None:
            return found
        assert at.row is not None  # rows without fields are not in the index
        return RowAt(found.mark, found.place, {**found.row, _IMAGE: at.row.get(_IMAGE)})


def _name(value: Any) -> str:
    """What may name a row, ``7`` for ``7.0``; empty for a picture or nothing."""
    if is_empty(value) or not isinstance(value, str | int | float):
        return ""
    text = str(value).strip()
    return text.removesuffix(".0") if len(text) <= _LONGEST else ""
