"""Tar shards as rows: a JSON member beside pictures of the same name (webdataset), or JSON lines and the pictures they name."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, final

from spatial_lightning.data.corpora.rows import Mark, RowAt, Rows, files_fingerprint, json_problem
from spatial_lightning.records import RecordError


@final
class TarRows(Rows):
    """An uncompressed tar; pictures stay in it and are read by their offset.

    A row of a webdataset shard is its JSON member plus ``_key`` and one entry a further member by its extension
    (``jpg``, ``depth.png``): ``{"tar": path, "offset": byte, "size": bytes, "path": name}``. A shard with ``*.jsonl``
    gives the lines of it, and its pictures by name through ``members``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def root(self) -> Path:
        """Folder of the shard."""
        return self.path.parent

    @property
    def total_bytes(self) -> int:
        """Size of the shard."""
        return self.path.stat().st_size

    def fingerprint(self) -> str:
        """See :meth:`Rows.fingerprint`."""
        return files_fingerprint([self.path])

    @cached_property
    def _lines(self) -> list[tarfile.TarInfo]:
        return [member for member, _ in self._walk(0) if member.name.endswith(".jsonl")]

    @cached_property
    def members(self) -> Mapping[str, Mapping[str, Any]]:
        """See :attr:`Rows.members`; empty for webdataset shards, whose rows say where their pictures are."""
        if not self._lines:
            return {}
        return {
            member.name.removeprefix("./"): self._reference(member) for member, _ in self._walk(0) if member.isfile()
        }

    def scan(self, start: Mark = Mark()) -> Iterator[RowAt]:  # noqa: B008
        """See :meth:`Rows.scan`."""
        try:
            yield from self._scan_lines(start) if self._lines else self._scan_groups(start)
        except tarfile.TarError as error:
            yield RowAt(start, f"{self.path}:row {start.row + 1}", None, f"damaged tar: {error}", "damaged tar")

    def _walk(self, offset: int) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        with self.path.open("rb") as file:
            file.seek(offset)
            try:
                archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (closed below)
            except tarfile.TarError as error:
                if offset:  # the end of the archive
                    return
                raise RecordError(f"{self.path} is not a tar that can be read: {error}") from error
            with archive:
                for member in archive:
                    archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  (it would keep every header)
                    if member.isfile():
                        yield member, archive

    def _scan_lines(self, start: Mark) -> Iterator[RowAt]:
        mark = start
        with self.path.open("rb") as file:
            for member in self._lines:
                begin, end = member.offset_data, member.offset_data + member.size
                if start.offset >= end:
                    continue
                inside = start.offset > begin
                file.seek(start.offset if inside else begin)
                line_number = start.line if inside else 1
                while file.tell() < end:
                    offset = file.tell()
                    line = file.readline(end - offset)
                    if line.strip():
                        mark = mark._replace(offset=offset, line=line_number)
                        yield _parse(mark, f"{self.path}/{member.name}:{line_number}", line, {})
                        mark = mark._replace(number=mark.number + 1, row=mark.row + 1)
                    line_number += 1

    def _scan_groups(self, start: Mark) -> Iterator[RowAt]:
        mark, key, group = start, None, []
        for member, _ in self._walk(start.offset):
            folder, _, name = member.name.removeprefix("./").rpartition("/")
            stem, _, extension = name.partition(".")
            found = f"{folder}/{stem}" if folder else stem
            if group and found != key:
                yield self._group(mark, key or "", group)
                mark = mark._replace(number=mark.number + 1, row=mark.row + 1)
                group = []
            if not group:
                mark = mark._replace(offset=member.offset)
            key = found
            group.append((extension, member))
        if group:
            yield self._group(mark, key or "", group)

    def _group(self, mark: Mark, key: str, group: list[tuple[str, tarfile.TarInfo]]) -> RowAt:
        place = f"{self.path}:row {mark.row + 1}"
        text = next((member for extension, member in group if extension == "json"), None)
        if text is None:
            return RowAt(mark, place, None, f"{key} has no .json member", "no .json member")
        others: dict[str, Any] = {ext: self._reference(member) for ext, member in group if ext != "json"}
        with self.path.open("rb") as file:
            file.seek(text.offset_data)
            return _parse(mark, place, file.read(text.size), {"_key": key, **others})

    def _reference(self, member: tarfile.TarInfo) -> dict[str, Any]:
        name = member.name.removeprefix("./")
        return {"tar": str(self.path), "offset": member.offset_data, "size": member.size, "path": name}


def _parse(mark: Mark, place: str, text: bytes, further: dict[str, Any]) -> RowAt:
    try:
        row = json.load(io.BytesIO(text))
    except (ValueError, RecursionError) as error:
        return RowAt(mark, place, None, *json_problem(error))
    if not isinstance(row, dict):
        return RowAt(mark, place, None, f"a row must be a JSON object, got {type(row).__name__}")
    return RowAt(mark, place, row | further)
