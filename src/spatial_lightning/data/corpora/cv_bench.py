"""CV-Bench: counting, relations, depth and distance from classical vision datasets (Cambrian-1, arXiv:2406.16860)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.fields import first_filled, plain_field, text_field
from spatial_lightning.data.corpora.options import by_letter, listed_options, published_answer
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.records import ImageQuestions, Question


@final
@dataclass(frozen=True, kw_only=True)
class CVBench(CorpusReader[ImageQuestions]):
    """Rows with ``idx``, ``type`` (2D, 3D), ``task``, ``image``, ``question``, ``choices``, ``answer`` and ``source``.

    The kind is the task (Count, Relation, Depth, Distance); tags are ``source`` (ADE20K, COCO, Omni3D), by which the
    benchmark is averaged, ``type`` and ``task``.
    """

    record_type: ClassVar[type] = ImageQuestions

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        tags = {name: text_field(row, name) for name in ("source", "type", "task")}
        name = f"{tags['type']}/{plain_field(row, 'idx')}"
        options = listed_options(row, "choices")
        answer = by_letter(published_answer(row), options)
        asked = Question(name, text_field(row, "question"), answer, tags["task"], options, tags=tags)
        yield ImageQuestions(name, (pictures(first_filled(row, "image", "filename")),), (asked,))
