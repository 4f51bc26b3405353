"""SpaRE: questions made from long descriptions, sorted by the spatial relation that they are about (arXiv:2504.20648)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.exchanges import listed_pictures
from spatial_lightning.data.corpora.fields import list_field, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.records import ImageQuestions, Question, RecordError

OTHER = "other"
"""Kind of a question that names no relation."""

_SIDE = "SIDE, at the SIDE, on the SIDE, to the SIDE of, SIDE of, SIDE side of, at the SIDE side of"
_CARDINAL = ["north", "south", "east", "west", "northeast", "northwest", "southeast", "southwest"]

_TABLE: tuple[tuple[str, float, str], ...] = (
    ("right", 21.65, _SIDE.replace("SIDE", "right")),
    ("left", 19.28, _SIDE.replace("SIDE", "left")),
    (
        "on",
        13.04,
        "on, on top, on top of, on the top of, atop, lying on, sitting on, positioned on, placed on, overlaying on",
    ),
    ("front", 10.60, "front, in front of, in the front of, directly in front of, front of, confronting"),
    ("below", 8.32, "below, below the, under, under the, beneath, directly below, down, down from, underneath, lower"),
    ("inside_within", 7.97, "in, inside, inside of, within, contained in, enclosed by"),
    ("back", 3.75, "back, back of, behind, at the back of, in back of, directly behind, rear of, backing onto"),
    (
        "next_to_beside_adjacent",
        3.60,
        "next to, beside, adjacent, adjacent to, by, at the side of, by the side of, side by side with, contiguous with",
    ),
    (
        "away_from",
        2.80,
        "away, away from, moving away from, departing from, receding from, withdrawing from, retreating from",
    ),
    ("above", 2.35, "above, directly above, over, over the, upward of, overlying"),
    ("far", 2.07, "far, far from, far away from, farther than, distant from, remote from"),
    ("near_close", 1.12, "near, near to, nearby, close to, close by, in proximity to, within sight of"),
    (
        "within_boundary",
        0.65,
        "at the edge of, on the edge of, at the corner of, at the boundary of, bordering, edged by",
    ),
    ("facing", 0.62, "facing, facing toward, looking at, confronting, in view of"),
    (
        "central_position",
        0.60,
        "center of, at the center of, in the center of, middle of, in the middle of, in middle of, in the midst of, amidst",
    ),
    (
        "part_of",
        0.34,
        "part of, has as a part, consists of, consisting of, comprising, including, possessing, containing, made up of",
    ),
    (
        "around",
        0.22,
        "around, circling, encircling, surrounding, enveloped by, encircled by, enclosing, skirting, encompassing",
    ),
    ("outside", 0.17, "outside, outside of, out of, outer, outlying"),
    ("opposite", 0.17, "opposite, opposite to, opposite from, opposite side of, diagonally across, opposed to"),
    ("perpendicular_to", 0.15, "perpendicular to, perpendicular with, orthogonal to, at right angles to"),
    (
        "toward_towards",
        0.15,
        "toward, towards, proceeding to, progressing toward, moving toward, heading toward, approaching",
    ),
    (
        "movement_along",
        0.15,
        "along, alongside, running along, moving along, progressing along, stretching across",
    ),
    ("parallel_to", 0.13, "parallel to, running parallel to, in line with, aligned with"),
    ("through", 0.04, "through, passing through, running through, traversing, transiting, crossing, piercing"),
    ("between", 0.02, "between, among, amongst, amid, amidst, betwixt"),
    (
        "overlapping_intersecting",
        0.0,
        "overlapping, overlapping with, intersecting with, interlacing with, intertwined with, interlaced with, "
        "interlocking, crisscrossing",
    ),
    (
        "connected_attached",
        0.0,
        "connected to, connected with, attached to, attached with, linked to, linked with, joined to, joined with, "
        "adjoined to, adjoined with",
    ),
    ("cardinal_directions", 0.0, ", ".join(f"{direction} of" for direction in _CARDINAL)),
    ("relative_to", 0.02, "relative to, relationship to, in relation to, with respect to, regarding, respecting"),
)

RELATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType({name: tuple(said.split(", ")) for name, _, said in _TABLE})
"""Relations by the phrases that express them (Table 10)."""
SHARES: Mapping[str, float] = MappingProxyType({name: share for name, share, _ in _TABLE})
"""Per cent of the corpus that each relation has (Table 10)."""

# A phrase of two relations belongs to the rarer one.
_PHRASES = {
    phrase: name for name in sorted(RELATIONS, key=SHARES.__getitem__, reverse=True) for phrase in RELATIONS[name]
}
_SPOKEN = re.compile(
    # Where everything is says nothing: "in the image".
    r"\b(?:(?:in|on|of|within) (?:the|this) (?:image|picture|photo|photograph|scene|view|frame)|"
    + "|".join(f"({re.escape(phrase)})" for phrase in sorted(_PHRASES, key=len, reverse=True))
    + r")\b",
    re.IGNORECASE,
)
_REFERENCE = "relative_to"


def relation(question: str, answer: str = "") -> str:
    """The spatial relation that a question is about, by SpaRE's phrases; its answer decides where the question names none.

    Of phrases that overlap the longer one counts; of several relations the rarest in the published corpus, so that sampling
    by relation finds what there is little of. ``relative_to`` is left for what names nothing else, ``other`` for no relation.
    """
    named = [
        {_PHRASES[match[0].lower()] for match in _SPOKEN.finditer(text) if match.lastindex}
        for text in (question, answer)
    ]
    for found in named:
        if found - {_REFERENCE}:
            return min(found - {_REFERENCE}, key=lambda name: (SHARES[name], name))
    return _REFERENCE if any(named) else OTHER


@final
@dataclass(frozen=True, kw_only=True)
class SpaRE(CorpusReader[ImageQuestions]):
    """Rows ``{image, source, description, qa: [{question, answer}]}``; the kind of a question is its :func:`relation`."""

    record_type: ClassVar[type] = ImageQuestions

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        images = tuple(map(pictures, listed_pictures(row)))
        if not images:
            raise RecordError(f"field 'image' is missing or empty; the row has {', '.join(map(str, row))}")
        questions = []
        for number, pair in enumerate(list_field(row, "qa")):
            if not isinstance(pair, Mapping):
                raise RecordError(f"qa must be a list of {{question, answer}}, got {str(pair)[:80]}")
            asked, answer = text_field(pair, "question"), text_field(pair, "answer")
            questions.append(Question(f"{identity}/{number}", asked, answer, relation(asked, answer)))
        yield ImageQuestions(identity, images, tuple(questions))
