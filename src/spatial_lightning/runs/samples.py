"""The answers that a run saved in ``samples.jsonl``, and an even choice of them to look at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from spatial_lightning.records import BadRows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample:
    """One evaluation question with what each column (e.g. ``warm start``, ``after``) answered.

    Attributes:
        options: allowed answers of a closed question; empty for an open one.
        value: the true length in metres of a quantitative question, else None.
        answers: text by column, in order of time.
        correct: verdict by column; a column that nobody judged is absent.
        parsed: by column, whether an answer of the asked kind was found.
    """

    id: str
    kind: str
    style: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    value: float | None = None
    images: tuple[Path, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    correct: Mapping[str, bool] = field(default_factory=dict)
    parsed: Mapping[str, bool] = field(default_factory=dict)

    @property
    def change(self) -> str:
        """``gained`` or ``lost`` where the last column's verdict differs from the first one's, else ``same``."""
        judged = [self.correct[column] for column in self.answers if column in self.correct]
        if len(judged) < 2 or judged[0] == judged[-1]:
            return "same"
        return "gained" if judged[-1] else "lost"

    @property
    def wrong(self) -> bool:
        """Whether the last column's answer is wrong."""
        return bool(self.answers) and self.correct.get(list(self.answers)[-1]) is False


def read_samples(path: Path, bad: BadRows) -> list[Sample]:
    """Rows of a ``samples.jsonl``; those that cannot be used go to ``bad`` with ``path:line``. No file, no rows."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                rows.append(_sample(json.loads(line)))
            except KeyError as error:
                bad.add(f"{path}:{number}", f"field {error.args[0]!r} is missing")
            except (ValueError, TypeError, AttributeError) as error:
                bad.add(f"{path}:{number}", f"not a row of answers ({error})", "not a row of answers")
            else:
                bad.good += 1
    return rows


def pick_samples(
    rows: Sequence[Sample], limit: int, *, first: Callable[[Sample], bool] = lambda row: row.change != "same"
) -> list[Sample]:
    """At most ``limit`` rows, kinds (direct and reasoned apart) as evenly as their sizes allow, changed verdicts first.

    Args:
        first: which rows come first, if not those with a changed verdict.

    The choice follows from ids and verdicts alone, so two runs on the same questions that changed the same ones show
    the same rows, in whatever order they were saved.

    Raises:
        ValueError: a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}; allowed: 1 sample or more")
    by_kind: dict[tuple[str, str], list[Sample]] = {}
    for row in sorted(rows, key=lambda row: (not first(row), _shuffled(row))):
        by_kind.setdefault((row.kind, row.style), []).append(row)
    turns = zip_longest(*(by_kind[kind] for kind in sorted(by_kind)))
    chosen = [row for turn in turns for row in turn if row is not None][:limit]
    return sorted(chosen, key=lambda row: not first(row))


def _shuffled(row: Sample) -> tuple[str, ...]:
    """A sort key in no relation to the order of the corpus, and the same on every machine."""
    return hashlib.sha256(f"{row.kind}\0{row.id}".encode(errors="replace")).hexdigest(), row.style, row.question


def _sample(row: Mapping[str, Any]) -> Sample:
    value, parsed = row.get("value"), row.get("parsed") or {}
    return Sample(
        id=str(row["id"]),
        kind=str(row["kind"]),
        style=str(row.get("style", "direct")),
        question=str(row["question"]),
        answer=str(row["answer"]),
        options=tuple(str(option) for option in row.get("options") or ()),
        value=None if value is None else float(value),
        images=tuple(Path(path) for path in row.get("images") or ()),
        answers=_by_column(row["answers"], str),
        correct=_by_column(row.get("correct") or {}, bool),
        # A verdict, or what was found in the answer: a length of 0 was found, None was not.
        parsed={str(column): found is not None and found is not False for column, found in parsed.items()},
    )


def _by_column(given: Mapping[str, Any], to: Callable[[Any], T]) -> dict[str, T]:
    return {str(column): to(value) for column, value in given.items() if value is not None}
