"""Omni3D-Bench: questions whose answers take several steps in 3D (VADAR, CVPR 2025, arXiv:2502.06787)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.fields import choose, first_filled, plain_field, text_field
from spatial_lightning.data.corpora.options import published_answer
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Rows, open_rows
from spatial_lightning.records import ImageQuestions, Question, RecordError

_KINDS = {"int": "numeric_count", "float": "numeric_other", "str": "multi_choice"}
_CLOSED = ("yes", "no")


@final
@dataclass(frozen=True, kw_only=True)
class Omni3DBench(CorpusReader[ImageQuestions]):
    """Rows with ``question``, ``answer``, ``answer_type`` and ``image``, or ``image_filename`` in ``annotations.json``.

    Kinds are those of the benchmark's table: ``numeric_count``, ``numeric_other`` (ratios and lengths, without a unit),
    ``yes_no`` and ``multi_choice``, whose options stand between the words of the question. ``answer_type`` is a tag.
    """

    record_type: ClassVar[type] = ImageQuestions

    def rows(self) -> Rows:
        """See :meth:`CorpusReader.rows`; ``annotations.json`` is one object, a list or lines of rows are read as well."""
        return open_rows(self.path, split=self.split, container="questions" if _is_object(Path(self.path)) else None)

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        form = text_field(row, "answer_type")
        choose("answer_type", form, tuple(_KINDS))
        published_answer(row)
        answer = plain_field(row, "answer")
        closed = form == "str" and answer.lower() in _CLOSED
        if form != "str":
            try:
                float(answer)
            except ValueError as error:
                raise RecordError(f"answer is {answer[:80]!r}; answer_type {form} needs a number") from error
        asked = Question(
            identity,
            text_field(row, "question"),
            answer.lower() if closed else answer,
            "yes_no" if closed else _KINDS[form],
            _CLOSED if closed else (),
            tags={"answer_type": form},
        )
        yield ImageQuestions(identity, (pictures(first_filled(row, "image", "image_filename")),), (asked,))


def _is_object(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
