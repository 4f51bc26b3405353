"""What'sUp: which caption has the right preposition (EMNLP 2023, arXiv:2310.19785)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.fields import plain_field, text_field
from spatial_lightning.data.corpora.json_rows import JsonRows
from spatial_lightning.data.corpora.options import listed_options
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Rows, open_rows
from spatial_lightning.records import ImageQuestions, Question, RecordError

_COLUMNS = ("image_id", "correct", "wrong")
_PAIRS = {
    "left_of": "left_right",
    "right_of": "left_right",
    "on": "on_under",
    "under": "on_under",
    "in-front_of": "front_behind",
    "behind": "front_behind",
}
_CONTROLLED = re.compile(rf"(.+?)_({'|'.join(_PAIRS)})_(.+)")
_PHRASE = re.compile(r"\b(left|right|front|top|bottom) of\b|\b(above|below|behind)\b")


@final
@dataclass(frozen=True, kw_only=True)
class WhatsUp(CorpusReader[ImageQuestions]):
    """``controlled_images_dataset.json`` (A), ``controlled_clevr_dataset.json`` (B), and the COCO and Visual Genome files.

    The first two hold ``{"image_path", "caption_options"}``, whose first caption is the true one, and their pictures are
    called ``OBJECT_left_of_REFERENCE.jpeg``: the four pictures of two objects share the tag ``set``, opposite relations the
    tag ``pair``. The others hold ``[image id, true caption, false caption]``. The kind is the preposition as the authors'
    code tells it. Options come in an order that depends on the question's id and the captions only.

    Attributes:
        question: what is asked about the captions; none is published, because the captions were made to be ranked.
        picture_name: name of the picture with an image id, e.g. ``{id:0>12}.jpg`` for COCO.
    """

    record_type: ClassVar[type] = ImageQuestions

    question: str = "Which caption describes the picture?"
    picture_name: str = "{id}.jpg"

    def rows(self) -> Rows:
        """See :meth:`CorpusReader.rows`."""
        rows = open_rows(self.path, split=self.split)
        return JsonRows(rows.path, columns=_COLUMNS) if isinstance(rows, JsonRows) else rows

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        if "image_id" in row:
            name, picture = identity, self.picture_name.format(id=plain_field(row, "image_id"))
            captions = (text_field(row, "correct"), text_field(row, "wrong"))
            kind, tags = _preposition(captions[0]), {}
        else:
            picture = text_field(row, "image_path")
            captions = listed_options(row, "caption_options")
            name = PurePosixPath(picture).stem
            kind, tags = _controlled(name)
        if len(set(captions)) != len(captions):
            raise RecordError(f"captions repeat: {list(captions)}")
        options = tuple(sorted(captions, key=lambda caption: _rank(name, caption)))
        asked = Question(name, self.question, captions[0], kind, options, tags=tags)
        yield ImageQuestions(name, (pictures(picture),), (asked,))


def _controlled(name: str) -> tuple[str, dict[str, str]]:
    """Relation of a controlled picture, and which pair and set it belongs to, from its name."""
    match = _CONTROLLED.fullmatch(name)
    if match is None:
        raise RecordError(f"picture is called {name!r}; allowed: OBJECT_RELATION_REFERENCE with {', '.join(_PAIRS)}")
    together = f"{match[1]}_{match[3]}"
    return match[2], {"set": together, "pair": f"{together}/{_PAIRS[match[2]]}"}


def _preposition(caption: str) -> str:
    """``left of``, ``above`` and so on between two objects, else the last word, which says where one object is."""
    match = _PHRASE.search(caption)
    return (match[1] or match[2]) if match else caption.rstrip(".").split()[-1]


def _rank(name: str, caption: str) -> bytes:
    return hashlib.blake2b(f"{name}\n{caption}".encode(), digest_size=8).digest()
