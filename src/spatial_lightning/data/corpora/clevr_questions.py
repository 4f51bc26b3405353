"""CLEVR questions (arXiv:1612.06890) and CLEVR-Humans (arXiv:1705.03633)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.fields import list_field, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Rows, open_rows
from spatial_lightning.records import ImageQuestions, Question, RecordError

ANSWERS = (
    ("yes", "no"),
    tuple(map(str, range(11))),
    ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    ("cube", "sphere", "cylinder"),
    ("rubber", "metal"),
    ("small", "large"),
)
"""All answers of CLEVR, by what is asked for."""


@final
@dataclass(frozen=True, kw_only=True)
class CLEVRQuestions(CorpusReader[ImageQuestions]):
    """``CLEVR_{split}_questions.json`` or ``CLEVR-Humans-{split}.json``; ``images`` is the folder that holds train and val.

    A question's kind is the last function of its program, e.g. ``count``; ``human`` where it has no program. The files of
    the test split have no answers and cannot be read.
    """

    record_type: ClassVar[type] = ImageQuestions

    def rows(self) -> Rows:
        """See :meth:`CorpusReader.rows`."""
        return open_rows(self.path, split=self.split, container="questions")

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        image = pictures(f"{text_field(row, 'split')}/{text_field(row, 'image_filename')}")
        answer = text_field(row, "answer")
        options = next((answers for answers in ANSWERS if answer in answers), ())
        asked = Question(identity, text_field(row, "question"), answer, _kind(row), options)
        yield ImageQuestions(identity, (image,), (asked,))


def _kind(row: Mapping[str, Any]) -> str:
    if row.get("program") is None:
        return "human"
    program = list_field(row, "program")
    last = program[-1] if program else None
    if not isinstance(last, Mapping):
        raise RecordError(f"program must be a list of functions, got {str(program)[:80]}")
    # Programs of the first release call it type.
    return text_field(last, "function" if "function" in last else "type")
