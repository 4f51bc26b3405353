"""EmbSpatial-Bench: relations seen by an agent in indoor scenes (ACL 2024, arXiv:2406.05756)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.fields import is_empty, plain_field, text_field
from spatial_lightning.data.corpora.options import by_number, listed_options, published_answer
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.turns import require
from spatial_lightning.records import ImageQuestions, Question


@final
@dataclass(frozen=True, kw_only=True)
class EmbSpatial(CorpusReader[ImageQuestions]):
    """Rows with ``question_id``, ``question``, ``answer_options``, ``answer`` (a number from 0), ``relation`` and ``image``.

    The kind is the relation (above, under, left, right, close, far); ``data_source``, where it is given, becomes a tag.
    """

    record_type: ClassVar[type] = ImageQuestions

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        name = plain_field(row, "question_id")
        options = listed_options(row, "answer_options")
        answer = by_number(published_answer(row), options)
        image = pictures(require(row, "image"))
        tags = {} if is_empty(row.get("data_source")) else {"data_source": text_field(row, "data_source")}
        asked = Question(name, text_field(row, "question"), answer, text_field(row, "relation"), options, tags=tags)
        yield ImageQuestions(name, (image,), (asked,))
