"""Q-Spatial Bench: distances between and sizes of things, measured by people (EMNLP 2024, arXiv:2409.09788)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.fields import first_filled, plain_field, text_field
from spatial_lightning.data.corpora.options import published_answer
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.geometry import to_metres
from spatial_lightning.records import ImageQuestions, Question, RecordError


@final
@dataclass(frozen=True, kw_only=True)
class QSpatial(CorpusReader[ImageQuestions]):
    """Rows with ``question``, ``answer_value``, ``answer_unit``, ``question_type`` (the kind), ``image_path`` and ``image``.

    The split QSpatial_plus holds its pictures; those of QSpatial_scannet are rendered from ScanNet by the authors' script,
    and ``image_path`` names them below ``images``.
    """

    record_type: ClassVar[type] = ImageQuestions

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        given, unit = published_answer(row, "answer_value"), text_field(row, "answer_unit")
        try:
            metres = to_metres(float(given), unit)
        except (TypeError, ValueError) as error:
            raise RecordError(f"answer is {given!r} {unit}: {error}") from error
        if not math.isfinite(metres) or metres <= 0:
            raise RecordError(f"answer is {given!r} {unit}; it must be a length above 0")
        answer = f"{float(given):g} {unit}"
        asked = Question(identity, text_field(row, "question"), answer, plain_field(row, "question_type"), (), metres)
        yield ImageQuestions(identity, (pictures(first_filled(row, "image", "image_path")),), (asked,))
