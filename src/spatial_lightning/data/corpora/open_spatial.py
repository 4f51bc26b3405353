"""OpenSpatialDataset: conversations about regions of Open Images pictures (arXiv:2406.01584)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from spatial_lightning.data.corpora.exchanges import independent, read_exchanges
from spatial_lightning.data.corpora.fields import choose, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.regions import NAMINGS, Regions, name_regions, require_regions
from spatial_lightning.data.corpora.turns import require
from spatial_lightning.data.corpora.wording import LENGTHS, one_length, settle, spatial_kind
from spatial_lightning.records import ImageQuestions, Question


@final
@dataclass(frozen=True, kw_only=True)
class OpenSpatial(CorpusReader[ImageQuestions]):
    """Rows of ``result_10_depth_convs.json``: ``filename``, ``conversations``, ``rle`` and ``bbox``.

    The placeholders ``<mask> <depth>`` of all turns take the row's regions in order; surplus regions are ignored. Regions are
    numbered from 0 in each question, as its answer does.

    Attributes:
        regions: ``boxes`` writes each region as ``Region [k] (left, top, right, bottom)`` in thousandths of the picture's
            width and height; ``names`` as ``Region [k]`` alone, for pictures in which the regions are drawn.
        answers: ``published`` sentences, or ``short``: comparisons are answered by yes, no or the region.
        suffix: what the row's ``filename`` lacks of the picture's name.
        depth: folder of depth pictures; accepted because the corpus has one, and not read.
    """

    record_type: ClassVar[type] = ImageQuestions

    regions: Literal["boxes", "names"] = "boxes"
    answers: Literal["published", "short"] = "published"
    suffix: str = ".jpg"
    depth: str | None = None

    def __post_init__(self) -> None:
        choose("regions", self.regions, NAMINGS)
        choose("answers", self.answers, ("published", "short"))

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        # Copies on the Hub carry the picture inside the row.
        picture = row["image"] if row.get("image") is not None else text_field(row, "filename") + self.suffix
        system, exchanges = read_exchanges(require(row, "conversations"), [picture], pictures)
        images = exchanges[0].images
        regions = Regions(row, lambda: pictures.size(images[0]))
        questions, taken = [], 0
        for number, (asked, answer) in enumerate(independent(exchanges)):
            plain, text, count = name_regions(asked, regions, taken, self.regions)
            taken += count
            require_regions(answer, count)
            kind = spatial_kind(plain)
            value = one_length(answer) if kind in LENGTHS else None
            said, options = settle(kind, plain, answer, short=self.answers == "short")
            questions.append(Question(f"{identity}/{number}", text, said, kind, options, value))
        yield ImageQuestions(identity, images, tuple(questions), system)
