"""Preference pairs whose responses come as a description and a reasoning apart: Tunix' fDPO rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from spatial_lightning.data.corpora.fields import choose
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.turns import picture_list, require, require_text
from spatial_lightning.records import (
    DESCRIPTION,
    REASONING,
    PreferencePair,
    Question,
    RecordError,
    Response,
    Segment,
)

_TEXTS = ("prompts", "chosen_desc", "chosen_reason", "rejected_desc", "rejected_reason")
_PARTS = {"desc": DESCRIPTION, "reason": REASONING}


@final
@dataclass(frozen=True, kw_only=True)
class FDPOPairs(CorpusReader[PreferencePair]):
    """Rows of Tunix' fDPO trainer: ``prompts``, ``{chosen,rejected}_{desc,reason}``, and whatever pictures they have.

    A row may hold lists of equal length, which are several pairs. ``{chosen,rejected}_{desc,reason}_score`` is optional:
    the score of a segment in [0, 8], or its rewards by name, each in [0, 4] (arXiv:2506.21656 App. A). Pictures are under
    ``images`` or ``image``, with lists of prompts one entry a prompt.

    Attributes:
        wrap: ``tags`` writes ``<description>...</description>`` and ``<reasoning>...</reasoning>`` around segments that do
            not have them; ``bare`` joins the segments by a line break.

    Raises:
        RecordError: an unknown way to wrap.
    """

    record_type = PreferencePair

    wrap: Literal["tags", "bare"] = "tags"

    def __post_init__(self) -> None:
        choose("wrap", self.wrap, ("tags", "bare"))

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[PreferencePair]:
        """See :meth:`CorpusReader.records`."""
        given = row.get("images", row.get("image"))
        if isinstance(require(row, "prompts"), str):
            yield self._pair(row, picture_list(given), identity, pictures)
            return
        count = len(_column(row, "prompts", None))
        keys = [*_TEXTS, *(key for key in row if str(key).endswith("_score"))]
        columns = {key: _column(row, key, count) for key in keys}
        images = [[]] * count if given is None else _column({"images": given}, "images", count)
        for index in range(count):
            one = {key: column[index] for key, column in columns.items()}
            yield self._pair(one, picture_list(images[index]), f"{identity}/{index}", pictures)

    def _pair(self, row: Mapping[str, Any], given: list[Any], identity: str, pictures: Pictures) -> PreferencePair:
        prompt = require_text(row, "prompts")
        chosen, rejected = self._response(row, "chosen"), self._response(row, "rejected")
        question = Question(identity, prompt, chosen.text, "preference", style="reasoned")
        images = tuple(pictures(picture) for picture in given)
        return PreferencePair(identity, images, question, chosen, rejected)

    def _response(self, row: Mapping[str, Any], side: str) -> Response:
        text, segments = "", []
        for part, name in _PARTS.items():
            piece = require_text(row, f"{side}_{part}")
            if self.wrap == "tags" and not piece.lstrip().lower().startswith(f"<{name}>"):
                piece = f"<{name}>{piece}</{name}>"
            if name == DESCRIPTION and not piece.endswith("\n"):
                piece += "\n"
            rewards = _rewards(f"{side}_{part}_score", row.get(f"{side}_{part}_score"))
            segments.append(Segment(name, len(text), len(text) + len(piece), rewards))
            text += piece
        return Response(text, tuple(segments))


def _column(row: Mapping[str, Any], key: str, count: int | None) -> list[Any]:
    values = require(row, key)
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise RecordError(
            f"{key} is a {type(values).__name__} while prompts is a list; allowed: a list as long as prompts"
        )
    if count is not None and len(values) != count:
        raise RecordError(f"{key} has {len(values)} entries, prompts has {count}: they must be as many")
    return list(values)


def _rewards(key: str, given: Any) -> dict[str, float] | None:
    if given is None:
        return None
    rewards = dict(given) if isinstance(given, Mapping) else {"score": given}
    highest = 4 if isinstance(given, Mapping) else 8
    for name, value in rewards.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
            raise RecordError(f"{key} has {name}={value!r}; allowed: a number in [0, {highest}]")
    return {str(name): float(value) for name, value in rewards.items()}
