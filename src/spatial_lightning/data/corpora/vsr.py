"""Visual Spatial Reasoning: captions of COCO pictures that are true or false (TACL 2023, arXiv:2205.00363)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, final

from spatial_lightning.data.corpora.fields import choose, list_field, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.turns import require
from spatial_lightning.records import ImageQuestions, Question, RecordError

CATEGORIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        name: tuple(relation.strip() for relation in relations.split(","))
        for name, relations in {
            "Adjacency": "adjacent to, alongside, at the side of, at the right side of, at the left side of, attached to, "
            "at the back of, ahead of, against, at the edge of",
            "Directional": "off, past, toward, down, deep down, up, away from, along, around, from, into, to, across, "
            "across from, through, down from",
            "Orientation": "facing, facing away from, parallel to, perpendicular to",
            "Projective": "on top of, beneath, beside, behind, left of, right of, under, in front of, below, above, over, "
            "in the middle of",
            "Proximity": "by, close to, near, far from, far away from",
            "Topological": "connected to, detached from, has as a part, part of, contains, within, at, on, in, with, "
            "surrounding, among, consists of, out of, between, inside, outside, touching",
            "Unallocated": "beyond, next to, opposite to, after, among, enclosed by",
        }.items()
    }
)
"""The published groups of relations; ``among`` is in two, of which the first counts."""
_CATEGORY = {relation: name for name in reversed(CATEGORIES) for relation in CATEGORIES[name]}


@final
@dataclass(frozen=True, kw_only=True)
class VSR(CorpusReader[ImageQuestions]):
    """Rows of the random and zeroshot splits: ``image``, ``caption``, ``label``, ``relation`` and votes.

    Attributes:
        question: how a caption becomes a question; ``{caption}`` stands for it.
        answers: what is said to a true and to a false caption.
        kind: ``relation``, e.g. ``next to``, or ``category``, one of the seven published groups.
        folders: pictures lie in ``train2017`` and ``val2017`` below ``images``, as COCO publishes them, not in one folder.
        min_agreement: least share in [0, 1] of the validators that voted for the label; other rows are passed over.
    """

    record_type: ClassVar[type] = ImageQuestions

    question: str = 'Is this description of the picture true or false? "{caption}"'
    answers: tuple[str, str] = ("true", "false")
    kind: Literal["relation", "category"] = "relation"
    folders: bool = False
    min_agreement: float = 0.0

    def __post_init__(self) -> None:
        choose("kind", self.kind, ("relation", "category"))
        if "{caption}" not in self.question:
            raise RecordError(f"question is {self.question!r}; it must hold {{caption}}")
        if len(set(self.answers)) != 2:
            raise RecordError(f"answers are {list(self.answers)}; give two different ones, for true and for false")
        if not 0 <= self.min_agreement <= 1:
            raise RecordError(f"min_agreement is {self.min_agreement}; allowed: 0 to 1")

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        label, relation = require(row, "label"), text_field(row, "relation")
        if str(label) not in ("0", "1"):
            raise RecordError(f"label is {label!r}; allowed: 0, 1")
        if self.min_agreement and _agreement(row, str(label) == "1") < self.min_agreement:
            return
        kind = _CATEGORY.get(relation, "Unallocated") if self.kind == "category" else relation
        text = self.question.replace("{caption}", text_field(row, "caption"))
        answer = self.answers[0 if str(label) == "1" else 1]
        name = "/".join(text_field(row, "image_link").split("/")[-2:]) if self.folders else text_field(row, "image")
        asked = Question(identity, text, answer, kind, tuple(self.answers))
        yield ImageQuestions(identity, (pictures(name),), (asked,))


def _agreement(row: Mapping[str, Any], label: bool) -> float:
    """Share in [0, 1] of the votes that are for the label, 1 where nobody voted."""
    true, false = (len(list_field(row, f"vote_{side}_validator_id")) for side in ("true", "false"))
    return (true if label else false) / (true + false) if true + false else 1.0
