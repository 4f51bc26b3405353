"""BLINK: visual perception in one to four pictures (ECCV 2024, arXiv:2404.12390)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.fields import is_empty, text_field
from spatial_lightning.data.corpora.options import by_letter, listed_options, published_answer
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.turns import require
from spatial_lightning.records import ImageQuestions, Question

_PICTURES = ("image_1", "image_2", "image_3", "image_4")


@final
@dataclass(frozen=True, kw_only=True)
class Blink(CorpusReader[ImageQuestions]):
    """Rows with ``idx``, ``sub_task``, ``question``, ``image_1`` to ``image_4``, ``choices`` and ``answer``.

    The kind is the sub-task. The answers of the test split are not published: its rows are left out and counted.
    """

    record_type: ClassVar[type] = ImageQuestions

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        name = text_field(row, "idx")
        options = listed_options(row, "choices")
        answer = by_letter(published_answer(row), options)
        require(row, _PICTURES[0])
        images = tuple(pictures(row[column]) for column in _PICTURES if not is_empty(row.get(column)))
        asked = Question(name, text_field(row, "question"), answer, text_field(row, "sub_task"), options)
        yield ImageQuestions(name, images, (asked,))
