"""3DSRBench: 3D spatial questions in several forms each, all of which must be answered (ICCV 2025, arXiv:2412.07825)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.fields import first_filled, text_field
from spatial_lightning.data.corpora.options import by_letter, lettered_options, published_answer
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.turns import require
from spatial_lightning.records import ImageQuestions, Question, RecordError

_QID = re.compile(r"(?P<base>\w{8})(?:-(?P<variant>flip|flip-\d+|\d+))?")


@final
@dataclass(frozen=True, kw_only=True)
class ThreeDSRBench(CorpusReader[ImageQuestions]):
    """The circular table (``qid``, ``question``, ``A`` to ``D``, ``answer``, ``category``, ``image`` as base64) and Hub rows.

    A ``qid`` is a base of 8 characters, then ``-flip`` where the picture is mirrored, then ``-N`` where the options are
    rotated: the tags ``base`` and ``variant`` (empty, ``flip``, ``1``, ``flip-1``, ...). Hub rows call it ``index`` and have an
    ``image_url``, which is fetched only where addresses are allowed.
    """

    record_type: ClassVar[type] = ImageQuestions

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        column = "index" if "index" in row and "qid" not in row else "qid"
        name = text_field(row, column)
        match = _QID.fullmatch(name)
        if match is None:
            raise RecordError(f"{column} is {name!r}; allowed: 8 characters, then -flip or not, then -N or not")
        options = lettered_options(row)
        if not options:
            require(row, "A")
            raise RecordError("the row has no options under A, B, ...")
        asked = Question(
            name,
            text_field(row, "question"),
            by_letter(published_answer(row), options),
            text_field(row, "category"),
            options,
            tags={"base": match["base"], "variant": match["variant"] or ""},
        )
        yield ImageQuestions(name, (pictures(first_filled(row, "image", "image_url")),), (asked,))
