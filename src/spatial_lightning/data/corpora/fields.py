"""Fields of published rows that tables and JSON files spell differently: blanks around text, lists and objects as strings."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from spatial_lightning.data.corpora.turns import require, require_text
from spatial_lightning.records import RecordError


def is_empty(value: Any) -> bool:
    """Whether a table says nothing here: null, not a number, blank, or ``nan`` as text."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, float) and value != value)


def first_filled(row: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of several columns that says something, e.g. a picture or else its name.

    Raises:
        RecordError: none does and the first is missing.
    """
    filled = [row[name] for name in names if not is_empty(row.get(name))]
    return filled[0] if filled else require(row, names[0])


def text_field(row: Mapping[str, Any], name: str) -> str:
    """The text in a field, without blanks around it.

    Raises:
        RecordError: missing, not text, or blank.
    """
    return require_text(row, name).strip()


def plain_field(row: Mapping[str, Any], name: str) -> str:
    """Text or a number in a field, as text.

    Raises:
        RecordError: missing, neither, or blank.
    """
    value = require(row, name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return text_field(row, name)


def list_field(row: Mapping[str, Any], name: str) -> Sequence[Any]:
    """The list in a field, given as such or as a string that holds it.

    Raises:
        RecordError: missing, or no list.
    """
    value = nested(require(row, name), name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise RecordError(f"{name} must be a list, got {type(value).__name__} ({str(value)[:80]})")
    return value


def object_field(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object in a field, given as such or as a string that holds it.

    Raises:
        RecordError: missing, or no object.
    """
    value = nested(require(row, name), name)
    if not isinstance(value, Mapping):
        raise RecordError(f"{name} must be an object, got {type(value).__name__} ({str(value)[:80]})")
    return value


def nested(value: Any, name: str) -> Any:
    """``value``, read as JSON or as a Python literal where it is a string; arrays become lists.

    Raises:
        RecordError: a string that is neither.
    """
    if not isinstance(value, str):
        return value.tolist() if hasattr(value, "tolist") else value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise RecordError(f"{name} is a string that holds no JSON: {value[:80]!r}") from error


def choose(option: str, given: str, allowed: Sequence[str]) -> None:
    """Refuse a value of a reader's option that is not allowed.

    Raises:
        RecordError: it is not.
    """
    if given not in allowed:
        raise RecordError(f"{option} is {given!r}; allowed: {', '.join(allowed)}")
