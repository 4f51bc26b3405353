"""JSON lines and JSON documents of any size as rows: one window of the file is in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

from spatial_lightning.data.corpora.json_window import FIRST, Window
from spatial_lightning.data.corpora.rows import (
    MAX_ROW_BYTES,
    Mark,
    RowAt,
    Rows,
    files_fingerprint,
    json_problem,
)
from spatial_lightning.records import RecordError


def json_rows(path: Path, container: str | None) -> Rows:
    """Rows of a JSON file by what it holds: lines, an array, or an object with a container.

    Raises:
        RecordError: an object without ``container``, or an empty file.
    """
    with path.open("rb") as file:
        head = file.read(FIRST).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise RecordError(f"{path} is empty")
    if container is not None or head[:1] == b"[":
        return JsonRows(path, container)
    if path.suffix.lower() == ".json" and not _is_lines(path):
        raise RecordError(
            f"{path} holds one JSON object: name the key that holds its rows, or * for each of its values"
        )
    return LineRows(path)


def _is_lines(path: Path) -> bool:
    with path.open("rb") as file:
        line = b" "
        while line and not line.strip():
            line = file.readline(MAX_ROW_BYTES)
        try:
            json.loads(line)
        except ValueError:
            return False
        return True


class _OneFile(Rows):
    """Rows of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

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


@final
class LineRows(_OneFile):
    """One JSON object a line; blank lines are skipped."""

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        with self.path.open("rb") as file:
            file.seek(start.offset)
            mark = start
            while line := file.readline(MAX_ROW_BYTES):
                if line.strip():
                    yield _row(mark, f"{self.path}:{mark.line}", line)
                    mark = mark._replace(number=mark.number + 1, row=mark.row + 1)
                mark = mark._replace(offset=mark.offset + len(line), line=mark.line + 1)


def _row(mark: Mark, place: str, text: str | bytes) -> RowAt:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return RowAt(mark, place, None, *json_problem(error))
    if not isinstance(row, dict):
        return RowAt(mark, place, None, f"a row must be a JSON object, got {type(row).__name__}")
    return RowAt(mark, place, row)


@final
class JsonRows(_OneFile):
    """Elements of one big JSON array, or values of one big JSON object.

    Args:
        container: key whose array holds the rows; ``*``: each value of the object is a row and gets ``_key``; None: the
            document is the array.
        columns: names of the values of rows that are arrays themselves; None takes objects only.
    """

    def __init__(self, path: Path, container: str | None = None, columns: Sequence[str] | None = None) -> None:
        super().__init__(path)
        self.container, self.columns = container, columns

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        with self.path.open("rb") as file:
            window = Window(file, start.offset, start.line)
            if start.offset == 0:
                problem = self._enter(window)
                if problem:
                    yield RowAt(start, f"{self.path}:{window.line}", None, problem, "not the JSON expected")
                    return
            yield from self._elements(window, start)

    def _enter(self, window: Window) -> str:
        """Move behind the bracket that opens the rows; what is wrong where there is none."""
        first = window.next()
        if self.container is None:
            if first != "[":
                return f"a JSON array was expected, the file begins with {first!r}"
            window.advance(1)
            return ""
        if first != "{":
            return f"a JSON object with the key {self.container!r} was expected, the file begins with {first!r}"
        window.advance(1)
        if self.container == "*":
            return ""
        keys = []
        while window.next() == '"':
            key = window.key()
            if key is None:
                return f"the file ends or breaks before the key {self.container!r}"
            if key == self.container:
                if window.next() != "[":
                    return f"the key {key!r} holds no array"
                window.advance(1)
                return ""
            keys.append(key)
            if not window.skip_value():
                return f"the file ends before the key {self.container!r}"
            if window.next() == ",":
                window.advance(1)
        return f"no key {self.container!r}; there are {', '.join(keys[:8]) or 'none'}"

    def _elements(self, window: Window, start: Mark) -> Iterator[RowAt]:
        mark = start
        closing = "}" if self.container == "*" else "]"
        while True:
            first = window.next()
            if first == ",":
                window.advance(1)
                continue
            mark = mark._replace(offset=window.offset, line=window.line)
            place = self._place(mark)
            if first == closing:
                window.advance(1)
                if self.container in (None, "*") and window.next():
                    mark = mark._replace(offset=window.offset, line=window.line)
                    yield RowAt(
                        mark,
                        self._place(mark),
                        None,
                        "something follows the end of the JSON document",
                        "trailing garbage",
                    )
                return
            if not first:
                yield RowAt(mark, place, None, f"the file ends before the closing {closing}", "truncated file")
                return
            yield self._element(window, mark, place)
            if window.lost:
                return
            mark = mark._replace(number=mark.number + 1, row=mark.row + 1)

    def _place(self, mark: Mark) -> str:
        return f"{self.path}:{mark.line}" if mark.line > 1 else f"{self.path}:row {mark.row + 1}"

    def _element(self, window: Window, mark: Mark, place: str) -> RowAt:
        key = None
        if self.container == "*":
            key = window.key() if window.next() == '"' else None
            if key is None:
                window.lost = True
                return RowAt(mark, place, None, "a key and its value were expected", "not valid JSON")
            window.next()
        row, error = window.value()
        if error is not None:
            return RowAt(mark, place, None, *error)
        if isinstance(row, list) and self.columns is not None:
            if len(row) != len(self.columns):
                wanted = f"{len(self.columns)} values ({', '.join(self.columns)})"
                return RowAt(mark, place, None, f"a row must have {wanted}, got {len(row)}", "wrong number of fields")
            row = dict(zip(self.columns, row, strict=True))
        if not isinstance(row, dict):
            return RowAt(mark, place, None, f"a row must be a JSON object, got {type(row).__name__}")
        return RowAt(mark, place, row if key is None else row | {"_key": key})
