"""Tables of VLMEvalKit and rows like them: a question, options under letters or in its text, and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.exchanges import listed_pictures
from spatial_lightning.data.corpora.fields import first_filled, is_empty, plain_field, text_field
from spatial_lightning.data.corpora.options import by_letter, lettered_options, options_in, published_answer
from spatial_lightning.data.corpora.pictures import PictureError, Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.referred_rows import ReferredRows
from spatial_lightning.data.corpora.rows import Rows
from spatial_lightning.records import ImageQuestions, Question

_CLOSED = (("yes", "no"), ("true", "false"))


@final
@dataclass(frozen=True, kw_only=True)
class ChoiceTable(CorpusReader[ImageQuestions]):
    """``index``, ``question``, ``A``, ``B`` ..., ``answer``, ``category`` and ``image`` (base64) or ``image_path``.

    Without columns of letters, options are those that the question lists line by line; a question that lists none is
    closed where the answer is yes, no, true or false, else open. The kind is ``category``; without that column ``choice``,
    ``yes_no`` or ``open``, by the form of the question. An ``image`` that is the ``index`` of another row is that row's.
    """

    record_type: ClassVar[type] = ImageQuestions

    def rows(self) -> Rows:
        """See :meth:`CorpusReader.rows`; pictures that are stored with another row are found there."""
        return ReferredRows(super().rows())

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        name = identity if is_empty(row.get("index")) else plain_field(row, "index")
        text, answer = text_field(row, "question"), str(published_answer(row)).strip()
        options = lettered_options(row) or options_in(text)
        form = "choice" if options else "open"
        if options:
            answer = by_letter(answer, options)
        elif closed := next((pair for pair in _CLOSED if answer.lower() in pair), None):
            form, options = "yes_no", closed if answer in closed else tuple(map(str.capitalize, closed))
            answer = options[closed.index(answer.lower())]
        kind = form if is_empty(row.get("category")) else plain_field(row, "category")
        shown = first_filled(row, "image", "image_path")
        try:
            images = tuple(map(pictures, listed_pictures({"images": shown})))
        except PictureError as error:
            if not str(shown).strip().isdecimal():
                raise
            message = f"image is {str(shown).strip()[:64]!r}: no row has this index, and it names no picture ({error})"
            raise PictureError(message, "image refers to no row") from error
        yield ImageQuestions(name, images, (Question(name, text, answer, kind, options),))
