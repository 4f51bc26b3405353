"""Answers on disk: those that a run has written so far, and files of answers that somebody else's model gave."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spatial_lightning.data.corpora.rows import open_rows
from spatial_lightning.records import BadRows, RecordError
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.directory import json_line

PREDICTIONS = "predictions.jsonl"
_IDS = ("id", "question_id", "idx", "index")
_ANSWERS = ("answer", "prediction", "pred", "text")


class Journal:
    """The answers of a run, a line each, written while it goes on so that a killed one goes on where it was.

    Args:
        path: of the file; a last line that a kill cut short is removed.

    Raises:
        ConfigError: a line is no answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, str] = {}
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        for number, line in enumerate(whole.decode("utf-8").split("\n")[:-1], start=1):
            try:
                row = json.loads(line)
                self.answers[row["id"]] = row["answer"]
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{path}:{number} is no answer ({error}): remove the line to have it answered again"
                ) from error

    def append(self, ids: Sequence[str], answers: Sequence[str]) -> None:
        """Add answers; they are on the disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            for identity, answer in zip(ids, answers, strict=True):
                file.write(json_line({"id": identity, "answer": answer}))
                self.answers[identity] = answer
            file.flush()
            os.fsync(file.fileno())


def read_predictions(
    path: Path, ids: Sequence[str], max_bad_fraction: float, beyond: Collection[str] = ()
) -> tuple[dict[str, str], BadRows]:
    """Answers by the id of their question; a question that has none is not in it.

    Args:
        path: JSON lines, a JSON array of rows or one object of answers by id, CSV or TSV. The id is in a field called id,
            question_id, idx or index, the answer in answer, prediction, pred or text.
        ids: of the questions that were asked.
        max_bad_fraction: share in [0, 1] of rows that cannot be used and questions without an answer, of all, above which
            the file is refused.
        beyond: ids of questions of the benchmark that were not asked; their answers are passed over.

    Raises:
        FileNotFoundError: no such file.
        RecordError: too many unusable rows or missing answers; the message lists them with ``path:line``.
    """
    known, answers = set(ids), dict[str, str]()
    bad = BadRows(max_bad_fraction, setting="max_bad_fraction")
    for place, row, problem in _rows(path):
        if row is None:
            bad.add(place, problem)
            continue
        identity, answer = _first(row, _IDS), _first(row, _ANSWERS)
        if identity is None or str(identity).strip() == "":
            bad.add(place, f"has no id: it needs one of {', '.join(_IDS)}", "no id")
        elif str(identity) in beyond:
            continue
        elif str(identity) not in known:
            bad.add(
                place, f"id {identity!r} is no question of the benchmark, whose ids look like {ids[0]!r}", "wrong id"
            )
        elif str(identity) in answers:
            bad.add(place, f"id {identity!r} occurs twice; the first answer counts", "duplicate id")
        elif not isinstance(answer, str):
            given = "no answer" if answer is None else f"an answer that is no text ({answer!r})"
            bad.add(place, f"id {identity!r} has {given}; it needs text in one of {', '.join(_ANSWERS)}", "no text")
        else:
            answers[str(identity)] = answer
    bad.good = len(answers)
    for identity in ids:
        if identity not in answers:
            bad.add(str(path), f"question {identity!r} has no answer", "missing answer")
    try:
        bad.check()
    except RecordError as error:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in bad.reasons.items())
        raise RecordError(f"{error}\nCounted: {kinds}. What is then missing counts as unreadable.") from error
    return answers, bad


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | None, str]]:
    """Place, row or None, and what is wrong where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of predictions {path}")
    if (answers := _one_object(path)) is not None:
        yield from ((f"{path}:{key}", {"id": key, "answer": answer}, "") for key, answer in answers.items())
        return
    for found in open_rows(path).scan():
        yield found.place, found.row, found.error


def _one_object(path: Path) -> Mapping[str, Any] | None:
    """The answers of a file that holds one object of answers by id; None for any other file."""
    if path.suffix.lower() != ".json":
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # lines, or damaged: read row by row
    is_row = isinstance(content, dict) and _first(content, _IDS) is not None and _first(content, _ANSWERS) is not None
    return content if isinstance(content, dict) and not is_row else None


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
