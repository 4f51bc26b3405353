"""Steps of a trace from its turns: what the assistant writes, and what comes back before it writes again."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.rows import FileRows
from spatial_lightning.data.corpora.turns import ASSISTANT, Turn
from spatial_lightning.records import RecordError, Step


def find_documents(path: str, name: str, above: int) -> FileRows:
    """The documents called ``name`` at or below ``path``, which may be a glob; pictures lie below ``path``.

    Args:
        above: how many folders above a document its pictures may lie, where ``path`` is the document itself.

    Raises:
        FileNotFoundError: there is none.
    """
    places = [Path(path)] if Path(path).exists() else [Path(place) for place in glob.glob(path, recursive=True)]
    files = [place for place in places if place.is_file()]
    found = sorted({*files, *(file for place in places if place.is_dir() for file in place.rglob(name))})
    if not found:
        raise FileNotFoundError(f"no {name} at or below {path}")
    roots = [place.parents[above] if place.is_file() else place for place in (p.absolute() for p in places)]
    return FileRows([file.absolute() for file in found], Path(os.path.commonpath(roots)))


def read_steps(turns: Sequence[Turn], pictures: Pictures) -> list[Step]:
    """One step an assistant turn; the user and tool turns up to the next one are its observation.

    Raises:
        RecordError: no assistant turn, one that is empty, or one that repeats the step before it word for word.
    """
    starts = [index for index, turn in enumerate(turns) if turn.role == ASSISTANT]
    if not starts or starts[0] != 0:
        raise RecordError("the conversation has no assistant turn behind the question: there is no step")
    steps: list[Step] = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(turns)], strict=True), start=1):
        if not turns[start].text.strip():
            raise RecordError(f"step {number} is empty")
        seen = turns[start + 1 : end]
        images = tuple(pictures(picture) for turn in seen for picture in turn.pictures)
        step = Step(turns[start].text, "\n".join(turn.text for turn in seen if turn.text), images)
        if steps and step == steps[-1]:
            raise RecordError(f"step {number} repeats step {number - 1} word for word")
        steps.append(step)
    return steps


def read_rating(result: Any, what: str) -> float:
    """The rating in a verifier's result.

    Raises:
        RecordError: missing, no number, or outside 1 to 10.
    """
    rating = result.get("rating") if isinstance(result, Mapping) else None
    if isinstance(rating, bool) or not isinstance(rating, (int, float)) or math.isnan(rating):
        raise RecordError(f"{what} is {rating!r}; allowed: a number from 1 to 10")
    if not 1 <= rating <= 10:
        raise RecordError(f"{what} is {rating:g}; allowed: 1 to 10")
    return float(rating)
