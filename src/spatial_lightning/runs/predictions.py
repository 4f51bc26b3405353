"""Answers on disk: those that a run has written so far, and files of answers that somebody else's model gave."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spatial_lightning.data.corpora.rows import open_rows
from spatial_lightning.records import BadRows, RecordError
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.directory import json_line

PREDICTIONS = "predictions.jsonl"
_IDS = ("id", "question_id", "idx", "index", "qid")
# What a benchmark's own rows call the true answer, many files of results keep beside the model's.
_ANSWERS = ("prediction", "pred", "response", "output", "answer", "text")
_SHOWN = 12


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


class Predictions(NamedTuple):
    """Answers of a file.

    Attributes:
        answers: by the id of their question; a question that has none is not in it.
        bad: rows that could not be used, and questions without an answer.
        notes: how the file was read, where that was a choice.
    """

    answers: dict[str, str]
    bad: BadRows
    notes: list[str]


def read_predictions(
    path: Path, ids: Sequence[str], max_bad_fraction: float, beyond: Collection[str] = ()
) -> Predictions:
    """Answers by the id of their question.

    Args:
        path: JSON lines, a JSON array of rows, one object of answers by id or with a list of rows, CSV or TSV. The id is in
            the field called id, question_id, idx, index or qid that names most questions; the number behind the last
            ``/`` of an id will do where it is that of one question only. The answer is in the first of the fields
            prediction, pred, response, output, answer and text that any row has. Numbers, true and false are answers.
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
    rows = list(_rows(path))
    columns = list(dict.fromkeys(key for _, row, _ in rows for key in row or ()))
    numbers = _numbers([*ids, *beyond])
    id_column = _id_column([row for _, row, _ in rows if row], known, numbers)
    present = [name for name in _ANSWERS if name in columns]
    answer_column, *others = present or [""]
    numbered = 0
    for place, row, problem in rows:
        if row is None:
            bad.add(place, problem)
            continue
        given, answer = row.get(id_column), _as_text(row.get(answer_column))
        identity = "" if given is None else str(given).strip()
        if identity not in known and identity not in beyond and identity in numbers:
            identity, numbered = numbers[identity], numbered + 1
        if not identity:
            bad.add(place, f"has no id: it needs one of {', '.join(_IDS)}; {_has(row)}", "no id")
        elif identity in beyond:
            continue
        elif identity not in known:
            bad.add(
                place, f"id {identity!r} is no question of the benchmark, whose ids look like {ids[0]!r}", "wrong id"
            )
        elif identity in answers:
            bad.add(place, f"id {identity!r} occurs twice; the first answer counts", "duplicate id")
        elif answer is None:
            value = row.get(answer_column)
            said = "no answer" if value is None else f"an answer that is no text ({str(value)[:80]})"
            wanted = answer_column or f"one of {', '.join(_ANSWERS)}"
            bad.add(place, f"id {identity!r} has {said}; it needs text in {wanted}; {_has(row)}", "no text")
        else:
            answers[identity] = answer
    bad.good = len(answers)
    for identity in ids:
        if identity not in answers:
            bad.add(str(path), f"question {identity!r} has no answer", "missing answer")
    try:
        bad.check()
    except RecordError as error:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in bad.reasons.items())
        raise RecordError(f"{error}\nCounted: {kinds}. What is then missing counts as unreadable.") from error
    notes = [f"answers were taken from {answer_column}, not from {', '.join(others)}"] if others else []
    notes += [f"{numbered} ids were numbers of rows, e.g. {next(iter(numbers))!r}"] if numbered else []
    return Predictions(answers, bad, notes)


def _numbers(ids: Sequence[str]) -> dict[str, str]:
    """Ids by what stands behind their last ``/``, where that is a number and of one id only."""
    found: dict[str, list[str]] = {}
    for identity in ids:
        head, slash, number = identity.rpartition("/")
        if head and slash and number.isdecimal():
            found.setdefault(number, []).append(identity)
    return {number: those[0] for number, those in found.items() if len(those) == 1}


def _id_column(rows: Sequence[Mapping[str, Any]], known: Collection[str], numbers: Collection[str]) -> str:
    """The field whose values are ids of most questions; of equals, the first of the usual names."""

    def hits(name: str) -> int:
        values = {str(row[name]).strip() for row in rows if row.get(name) is not None}
        return sum(2 if value in known else value in numbers for value in values)

    present = [name for name in _IDS if any(name in row for row in rows)]
    return max(present, key=hits, default=_IDS[0])


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def _has(row: Mapping[str, Any]) -> str:
    """The columns of a row, in words."""
    names = [str(name) for name in row]
    hint = "; are they separated by ; instead of a comma?" if len(names) == 1 and ";" in names[0] else ""
    return f"it has {', '.join(names[:_SHOWN]) or 'nothing'}{hint}"


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any] | None, str]]:
    """Place, row or None, and what is wrong where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of predictions {path}")
    content = _one_object(path)
    if content is None:
        yield from ((found.place, found.row, found.error) for found in open_rows(path).scan())
    elif len(content) == 1 and isinstance(listed := next(iter(content.values())), list):
        for number, row in enumerate(listed, start=1):
            usable = isinstance(row, Mapping)
            yield f"{path}:row {number}", row if usable else None, "" if usable else "is no object"
    else:
        yield from ((f"{path}:{key}", {"id": key, "answer": answer}, "") for key, answer in content.items())


def _one_object(path: Path) -> Mapping[str, Any] | None:
    """The object of a file that holds one, of answers by id or of a list of rows; None for any other file."""
    if path.suffix.lower() != ".json":
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        return None  # lines, or damaged: read row by row
    if not isinstance(content, dict):
        return None
    is_row = any(name in content for name in _IDS) and any(name in content for name in _ANSWERS)
    return None if is_row else content
