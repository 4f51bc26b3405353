"""Plain rows of any table: a picture, a question and its answer, in columns of any name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.exchanges import PLACEHOLDER, listed_pictures
from spatial_lightning.data.corpora.fields import list_field, plain_field, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.turns import referring, require
from spatial_lightning.data.corpora.wording import LENGTHS, one_length, spatial_kind
from spatial_lightning.records import ImageQuestions, Question, RecordError

_LETTER = re.compile(r"\(?([A-Z])[).:]?")


@final
@dataclass(frozen=True, kw_only=True)
class QuestionRows(CorpusReader[ImageQuestions]):
    """One question a row, or a list of them under one column.

    Attributes:
        image_column: column of the picture, or of a list of them.
        question_column: column of the question; ``<image>`` between its words becomes ``[image N]``, counted from 1.
        answer_column: column of the answer: text or a number. With options, the one that it means by its words, its letter
            or its number from 0 becomes the answer.
        options_column: column of the list of options; null for open questions.
        kind_column: column of the question's kind; null derives it from the question's words.
        id_column: column of the question's id, unique within the corpus; null numbers the rows.
        questions_column: column of a list of objects that hold the columns from ``question_column`` to ``id_column``; null for
            one question a row.
    """

    record_type: ClassVar[type] = ImageQuestions

    image_column: str = "image"
    question_column: str = "question"
    answer_column: str = "answer"
    options_column: str | None = None
    kind_column: str | None = None
    id_column: str | None = None
    questions_column: str | None = None

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        images = tuple(map(pictures, listed_pictures({"images": require(row, self.image_column)})))
        if not images:
            raise RecordError(f"field {self.image_column!r} names no picture")
        if self.questions_column is None:
            questions = [self._question(row, identity)]
        else:
            listed = list_field(row, self.questions_column)
            if not all(isinstance(entry, Mapping) for entry in listed):
                raise RecordError(f"{self.questions_column} must be a list of objects, got {str(listed)[:80]}")
            questions = [self._question(entry, f"{identity}/{number}") for number, entry in enumerate(listed)]
        yield ImageQuestions(identity, images, tuple(questions))

    def _question(self, row: Mapping[str, Any], name: str) -> Question:
        asked = text_field(row, self.question_column)
        asked = referring(asked, range(1, asked.count(PLACEHOLDER) + 1)).strip()
        kind = spatial_kind(asked) if self.kind_column is None else plain_field(row, self.kind_column)
        if self.id_column is not None:
            name = plain_field(row, self.id_column)
        if self.options_column is None:
            answer = plain_field(row, self.answer_column)
            value = one_length(answer) if spatial_kind(asked) in LENGTHS else None
            return Question(name, asked, answer, kind, (), value)
        given = list_field(row, self.options_column)
        options = tuple(plain_field({self.options_column: option}, self.options_column) for option in given)
        return Question(name, asked, _chosen(require(row, self.answer_column), options), kind, options)


def _chosen(given: Any, options: Sequence[str]) -> str:
    """The option that an answer means; a sentence must name exactly one."""
    said = plain_field({"answer": given}, "answer")
    if said in options:
        return said
    letter = _LETTER.fullmatch(said)
    index = ord(letter[1]) - ord("A") if letter else given if isinstance(given, int) else -1
    if 0 <= index < len(options):
        return options[index]
    named = [option for option in options if re.search(rf"(?<!\w){re.escape(option)}(?!\w)", said, re.IGNORECASE)]
    if len(named) != 1:
        raise RecordError(f"answer {said[:80]!r} is none of the options {list(options)}")
    return named[0]
