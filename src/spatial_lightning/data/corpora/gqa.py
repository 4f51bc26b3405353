"""GQA: compositional questions about Visual Genome pictures (arXiv:1902.09506)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from spatial_lightning.data.corpora.fields import choose, object_field, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Rows, open_rows
from spatial_lightning.records import ImageQuestions, Question

_ANSWERS = {"short": "answer", "full": "fullAnswer"}
_CLOSED = ("yes", "no")


@final
@dataclass(frozen=True, kw_only=True)
class GQA(CorpusReader[ImageQuestions]):
    """Question files of GQA: an object with a question by each id.

    Attributes:
        answers: ``short``, a word or two, or ``full``, a sentence.
        kind: which of the published types names the kind of a question: ``structural`` (verify, query, ...), ``semantic``
            (rel, attr, ...) or ``detailed`` (relVerify, ...).
    """

    record_type: ClassVar[type] = ImageQuestions

    answers: Literal["short", "full"] = "short"
    kind: Literal["structural", "semantic", "detailed"] = "semantic"

    def __post_init__(self) -> None:
        choose("answers", self.answers, tuple(_ANSWERS))
        choose("kind", self.kind, ("structural", "semantic", "detailed"))

    def rows(self) -> Rows:
        """See :meth:`CorpusReader.rows`."""
        return open_rows(self.path, split=self.split, container="*")

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        name = str(row.get("_key", identity))
        image = pictures(f"{text_field(row, 'imageId')}.jpg")
        kind = text_field(object_field(row, "types"), self.kind)
        options = _CLOSED if text_field(row, "answer") in _CLOSED else ()
        answer = text_field(row, _ANSWERS[self.answers])
        yield ImageQuestions(name, (image,), (Question(name, text_field(row, "question"), answer, kind, options),))
