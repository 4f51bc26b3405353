"""The answers a run saved: read from ``samples.jsonl``, and a fair choice of them to look at."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from spatial_lightning.records import BadRows


@dataclass(frozen=True, slots=True)
class Answered:
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


def read_answers(path: Path, bad: BadRows) -> list[Answered]:
    """Rows of a ``samples.jsonl``; those that cannot be used go to ``bad`` with ``path:line``. No file, no rows."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                rows.append(_answered(json.loads(line)))
            except KeyError as error:
                bad.add(f"{path}:{number}", f"field {error.args[0]!r} is missing")
            except (ValueError, TypeError, AttributeError) as error:
                bad.add(f"{path}:{number}", f"not a row of answers ({error})", "not a row of answers")
            else:
                bad.good += 1
    return rows


def pick(rows: Sequence[Answered], limit: int) -> list[Answered]:
    """At most ``limit`` rows, the kinds as evenly as their sizes allow, changed verdicts before unchanged ones.

    The choice follows from ids and verdicts alone, so two runs on the same questions that changed the same ones show
    the same rows, in whatever order they were saved.

    Raises:
        ValueError: a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}; allowed: 1 sample or more")
    by_kind: dict[str, list[Answered]] = {}
    for row in sorted(rows, key=lambda row: (row.change == "same", _shuffled(row))):
        by_kind.setdefault(row.kind, []).append(row)
    turns = zip_longest(*(by_kind[kind] for kind in sorted(by_kind)))
    chosen = [row for turn in turns for row in turn if row is not None][:limit]
    return sorted(chosen, key=lambda row: row.change == "same")


def _shuffled(row: Answered) -> tuple[str, ...]:
    """A sort key in no relation to the order of the corpus, and the same on every machine."""
    return hashlib.sha256(f"{row.kind}\0{row.id}".encode(errors="replace")).hexdigest(), row.style, row.question


def _answered(row: Mapping[str, Any]) -> Answered:
    value = row.get("value")
    return Answered(
        id=str(row["id"]),
        kind=str(row["kind"]),
        style=str(row.get("style", "direct")),
        question=str(row["question"]),
        answer=str(row["answer"]),
        options=tuple(str(option) for option in row.get("options") or ()),
        value=None if value is None else float(value),
        images=tuple(Path(path) for path in row.get("images") or ()),
        answers={str(column): str(text) for column, text in row["answers"].items()},
        correct={str(column): bool(verdict) for column, verdict in (row.get("correct") or {}).items()},
        parsed={
            str(column): found is not None and found is not False for column, found in (row.get("parsed") or {}).items()
        },
    )
