"""SpatialRGPT-Bench: questions about regions with ground truths in words (arXiv:2406.01584)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from spatial_lightning.data.corpora.exchanges import independent, listed_pictures, read_exchanges
from spatial_lightning.data.corpora.fields import choose, object_field, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.regions import NAMINGS, Regions, name_regions, require_regions
from spatial_lightning.data.corpora.wording import one_length, settle, spatial_kind
from spatial_lightning.records import ImageQuestions, Question, RecordError


@final
@dataclass(frozen=True, kw_only=True)
class RGPTBench(CorpusReader[ImageQuestions]):
    """Rows as published (``image_info``, ``conversations``, ``qa_info``, regions) or flat (``question``, ``ground_truth``).

    The kind of a question is its published category, e.g. ``height_data`` or ``left_choice``.

    Attributes:
        regions: as for :class:`OpenSpatial`; rows without regions need ``names``.
        answers: as for :class:`OpenSpatial`.
        picture_name: name of the picture of a row that names none, with ``{id}`` for the row's id, e.g. ``{id}.jpg``.
    """

    record_type: ClassVar[type] = ImageQuestions

    regions: Literal["boxes", "names"] = "boxes"
    answers: Literal["published", "short"] = "published"
    picture_name: str | None = None

    def __post_init__(self) -> None:
        choose("regions", self.regions, NAMINGS)
        choose("answers", self.answers, ("published", "short"))

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        name = text_field(row, "id")
        published = row.get("qa_info") is not None
        kind = text_field(object_field(row, "qa_info"), "category") if published else text_field(row, "qa_category")
        picture = self._picture(row, name)
        if row.get("conversations") is not None:
            system, exchanges = read_exchanges(row["conversations"], [picture], pictures)
            images, pairs = exchanges[0].images, list(independent(exchanges))
        else:
            system, images = "", (pictures(picture),)
            pairs = [(text_field(row, "question"), text_field(row, "ground_truth"))]
        regions = Regions(row, lambda: pictures.size(images[0]))
        if self.regions == "boxes" and not len(regions):
            raise RecordError("the row has no rle, segmentation or bbox: set regions=names")
        questions, taken = [], 0
        for number, (asked, answer) in enumerate(pairs):
            plain, text, count = name_regions(asked, regions, taken, self.regions)
            taken += count
            if count:
                require_regions(answer, count)
            elif self.regions == "boxes":
                raise RecordError(f"{asked[:80]!r} has no <mask> to put a box to: set regions=names")
            questions.append(self._question(f"{name}/{number}" if len(pairs) > 1 else name, kind, plain, text, answer))
        yield ImageQuestions(name, images, tuple(questions), system)

    def _question(self, name: str, kind: str, plain: str, text: str, answer: str) -> Question:
        value = one_length(answer) if kind.endswith("_data") else None
        if kind.endswith("_data") and value is None:
            raise RecordError(f"{kind} needs a ground truth with one length, got {answer[:80]!r}")
        said, options = settle(spatial_kind(plain), plain, answer, short=self.answers == "short")
        return Question(name, text, said, kind, options, value)

    def _picture(self, row: Mapping[str, Any], name: str) -> Any:
        if listed := listed_pictures(row):
            return listed[0]
        if row.get("image_info") is not None:
            return text_field(object_field(row, "image_info"), "file_path")
        if self.picture_name is None:
            raise RecordError("the row names no picture: set picture_name, e.g. picture_name='{id}.jpg'")
        return self.picture_name.replace("{id}", name)
