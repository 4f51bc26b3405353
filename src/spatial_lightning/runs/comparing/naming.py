"""Short names of what tells groups of runs apart: of the settings that differ, of their values, and of the groups."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

OFF: tuple[Any, ...] = (None, False, 0, "", [], {})
"""Values that count as not set."""
_MISSING = "-"


def setting_columns(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Settings that differ, by short name; those that differ in the same way are one column, named after the plainest."""
    keys = sorted({key for own in settings for key in own} - {"name", "trained.name"})
    patterns: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for key in keys:
        shown = [plain(None if own.get(key) in OFF else own[key]) for own in settings]
        if len(set(shown)) > 1:
            patterns[tuple(map(shown.index, shown))].append(key)

    def plainness(key: str) -> tuple[int, int, str]:
        """A class says most where every group has one, and least where one group simply lacks it."""
        lacking = any(own.get(key) in OFF for own in settings)
        return (2 if lacking else 0) if key.endswith("_target_") else 1, key.count("."), key

    merged = [sorted(own, key=plainness) for own in patterns.values()]
    merged.sort(key=lambda own: (own[0].count("."), own[0]))
    heads = [own[0] for own in merged]
    return {_short(own[0], heads): tuple(own) for own in merged}


def _short(key: str, others: Sequence[str]) -> str:
    """The shortest end of a dotted key that no other key shares."""
    parts = key.removesuffix("._target_").split(".")
    rest = [other.removesuffix("._target_") for other in others if other != key]
    for start in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[start:])
        if parts[start] not in _VAGUE and not any(f".{other}".endswith(f".{name}") for other in rest):
            return name
    return ".".join(parts)


_VAGUE = {"mode", "kind", "path", "value", "name", "rank", "size"}


def group_names(names: Sequence[str], values: Sequence[Mapping[str, str]], classes: Collection[str] = ()) -> list[str]:
    """Experiment names where they tell everything, else with the settings that tell the groups of one name apart.

    Args:
        names: of the groups' experiments.
        values: of each group's settings (:func:`shown_value`).
        classes: settings whose values are names of classes. These, and values that are missing, are named only where the
            groups could not be told apart otherwise.
    """
    told: list[Mapping[str, str]] = [{}] * len(names)
    for name in dict.fromkeys(names):
        alike = [index for index, other in enumerate(names) if other == name]
        for index, own in zip(alike, _telling([values[index] for index in alike], classes), strict=True):
            told[index] = own
    labels = [
        f"{name} ({', '.join(f'{column}={value}' for column, value in own.items())})" if own else name
        for name, own in zip(names, told, strict=True)
    ]
    # Lists or texts that look alike when shortened still have to be told apart.
    return [
        f"{label} #{labels[:index].count(label) + 1}" if labels.count(label) > 1 else label
        for index, label in enumerate(labels)
    ]


def _telling(values: Sequence[Mapping[str, str]], classes: Collection[str]) -> list[dict[str, str]]:
    """Of groups of one experiment, the settings that tell them apart."""
    columns = [column for column in values[0] if len({own[column] for own in values}) > 1]
    told = [{column: own[column] for column in columns} for own in values]
    for column in reversed(columns):
        tries = [{own[column] for own in values}, {_MISSING}] if column in classes else [{_MISSING}]
        for odd in tries:
            fewer = [{c: value for c, value in own.items() if c != column or value not in odd} for own in told]
            if len(set(map(plain, fewer))) == len(set(map(plain, told))):
                told = fewer
                break
    return told


def plain(value: Any) -> str:
    """A value as JSON: equal for equal ones."""
    return json.dumps(value, sort_keys=True, default=str)


def shown_value(value: Any) -> str:
    """A value as a table shows it: short, classes of this package by their bare name."""
    text = _MISSING if value is None else value if isinstance(value, str) else plain(value)
    text = text.rpartition(".")[2] if text.startswith("spatial_lightning.") else text
    return text if len(text) <= 40 else f"{text[:39]}…"
