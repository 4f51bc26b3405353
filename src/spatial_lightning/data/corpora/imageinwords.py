"""ImageInWords (arXiv:2405.02793): two descriptions of a picture and what people thought of them side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, final

from spatial_lightning.data.corpora.fields import choose
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.turns import require_text
from spatial_lightning.records import PreferencePair, Question, RecordError, Response

ASPECTS = {
    "comprehensiveness": "metrics/Comprehensiveness",
    "specificity": "metrics/Specificity",
    "hallucination": "metrics/Hallucination",
    "tldr": "metrics/First few line(s) as tldr",
    "human_like": "metrics/Human Like",
}
VOTE = "vote"
_JUDGEMENT = re.compile(r"(?P<side>.+) is (?:marginally|substantially) better")
_NEUTRAL = "Neutral"
_PAIR = re.compile(r"iiw-human-sxs-(.+)")
_KEYS = ("image", "image/key")
_BESIDES = (*_KEYS, "image/source", "objects")


@final
@dataclass(frozen=True, kw_only=True)
class ImageInWords(CorpusReader[PreferencePair]):
    """Pairs of descriptions from google/imageinwords: ``DOCCI_Test`` and ``IIW-400``.

    A row gives no pair where people saw no difference, where nobody compared (300 rows of ``IIW-400``, all of
    ``LocNar_Eval``) and where the text of one side was not published (GPT-4V): such rows are read, and empty.

    Attributes:
        aspect: whose judgement decides: ``vote`` (the side with more of the five) or one of ``comprehensiveness``,
            ``specificity``, ``hallucination``, ``tldr``, ``human_like``.
        question: what the descriptions answer.
        suffix: what picture names lack.

    Raises:
        RecordError: an unknown aspect.
    """

    record_type = PreferencePair

    aspect: str = VOTE
    question: str = "Describe this image."
    suffix: str = ".jpg"

    def __post_init__(self) -> None:
        choose("aspect", self.aspect, (VOTE, *ASPECTS))

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[PreferencePair]:
        """See :meth:`CorpusReader.records`."""
        for name, judged, sides in _comparisons(row):
            winner = self._winner(judged, sides)
            if winner is None:
                continue
            better, worse = sides[winner], next(text for side, text in sides.items() if side != winner)
            own = f"{identity}/{name}" if name else identity
            asked = Question(own, self.question, better, "description")
            yield PreferencePair(own, (pictures(self._picture(row)),), asked, Response(better), Response(worse))

    def _picture(self, row: Mapping[str, Any]) -> Any:
        given = next((row[key] for key in _KEYS if row.get(key) is not None), None)
        if given is None:
            raise RecordError(f"the row names no picture; allowed: {' or '.join(_KEYS)}")
        return given + self.suffix if isinstance(given, str) and not PurePath(given).suffix else given

    def _winner(self, judged: Mapping[str, Any], sides: Mapping[str, str]) -> str | None:
        """The side that the judgements prefer; None where they prefer none."""
        wanted = ASPECTS.values() if self.aspect == VOTE else (ASPECTS[self.aspect],)
        votes = [_better(judged, aspect, sides) for aspect in wanted]
        first, second = (votes.count(side) for side in sides)
        return None if first == second else list(sides)[int(second > first)]


def _comparisons(row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], dict[str, str]]]:
    """Name, judgements and the two descriptions of each comparison whose texts are in the row."""
    if any(key in row for key in ASPECTS.values()):
        others = [key for key in row if key not in _BESIDES and not key.startswith(("metrics/", "iiw-human-sxs-"))]
        if len(others) != 2:
            raise RecordError(
                f"the row has the descriptions {', '.join(others) or 'none'}; a judgement needs exactly two"
            )
        yield "", row, {side: require_text(row, side) for side in others}
    for key, judged in row.items():
        found = _PAIR.fullmatch(key)
        if found is None or judged is None:
            continue
        if not isinstance(judged, Mapping):
            raise RecordError(f"{key} must be an object with the judgements, got {type(judged).__name__}")
        other = next((column for column in row if column.lower() == found[1].lower()), None)
        if other is not None:
            yield found[1], judged, {"IIW-Human": require_text(row, "IIW"), other: require_text(row, other)}


def _better(judged: Mapping[str, Any], aspect: str, sides: Mapping[str, str]) -> str | None:
    judgement = require_text(judged, aspect)
    if judgement.strip() == _NEUTRAL:
        return None
    found = _JUDGEMENT.fullmatch(judgement.strip())
    if found is None or found["side"] not in sides:
        allowed = " or ".join(f"{side} is marginally (substantially) better" for side in sides)
        raise RecordError(f"{aspect} is {judgement!r}; allowed: {allowed}, or {_NEUTRAL}")
    return found["side"]
