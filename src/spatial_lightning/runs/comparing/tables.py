"""Tables of a comparison: groups and runs as rows of text, as markdown and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spatial_lightning.evaluation.metrics import figure_text
from spatial_lightning.runs.comparing.grouping import MOST_COLUMNS, Section
from spatial_lightning.runs.comparing.outcomes import Outcome
from spatial_lightning.runs.directory import write_text

Row = dict[str, str]
FIGURES = "Figures of the benchmark"
ABOUT_FIGURES = (
    "Means over runs as each run states them, the benchmark's headline first. No interval or test was made of them, so small "
    "differences may be chance."
)


def group_rows(section: Section, found: Sequence[Outcome]) -> list[Row]:
    """One row a group, as shown: what tells it apart, accuracy, difference and cost; columns that say nothing are left out."""
    rows = []
    for outcome in found:
        group, low_high = outcome.group, _range(outcome.interval)
        row = {"group": group.name, "accuracy %": f"{_percent(outcome.accuracy)} [{low_high}]"}
        row["unreadable %"] = _percent(outcome.unreadable)
        if len(found) > 1:
            row["difference"], row["corrected p"] = _difference(outcome)
        row |= {"majority %": _percent(outcome.majority), "warm start %": _percent(outcome.warm_start)}
        row |= dict(list(group.values.items())[:MOST_COLUMNS])
        row |= {"runs": str(len(group.runs)), "seeds": " ".join(map(str, group.seeds))}
        row |= {"wall time": _duration(outcome.wall_s), "tokens/s": _figure(outcome.tokens_per_s, ",.0f")}
        row["peak GB"] = _figure(outcome.memory_gb, ".2f")
        rows.append(row)
    names = {run.name for group in section.groups for run in group.runs}
    # The names of the groups say it already.
    told = set() if len(names) == len(section.groups) else set(section.columns)
    said = [name for name in rows[0] if name not in told and any(row[name] for row in rows)]
    return [{name: row[name] for name in said} for row in rows]


def figure_rows(found: Sequence[Outcome]) -> list[Row]:
    """One row a group with the benchmark's own figures, the headline first; nothing where there are none beside accuracy."""
    names = list(dict.fromkeys(name for outcome in found for name in outcome.figures))
    if not set(names) - {"accuracy"}:
        return []
    shown = [{name: figure_text(name, own.figures.get(name, math.nan)) for name in names} for own in found]
    heads = {name: name if name.endswith("_abs_rel") else f"{name} %" for name in names}
    return [
        {"group": own.group.name, **{heads[name]: text for name, text in row.items()}}
        for own, row in zip(found, shown, strict=True)
    ]


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A markdown table, names to the left and figures to the right."""
    names = list(rows[0])
    cells = [[cell(name) for name in names], *([cell(row[name]) for name in names] for row in rows)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(names))]
    lines = [
        [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        for line in cells
    ]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])


def differing(section: Section) -> list[str]:
    """What tells the groups apart, a line a setting; settings that differ in the same way are named together."""
    lines = []
    for column, keys in section.columns.items():
        values = "; ".join(f"{group.name}: {group.values[column]}" for group in section.groups)
        first, *more = keys
        others = f" (and with it {', '.join(more)})" if more else ""
        lines.append(f"{first}{others}: {values}")
    return lines


def write_groups(path: Path, sections: Sequence[tuple[Section, Sequence[Outcome]]]) -> None:
    """Write one row a group, figures unrounded; what tells groups apart under the settings' full names."""
    rows = []
    for section, found in sections:
        for own in found:
            difference = own.difference and own.difference.compared
            row: dict[str, Any] = {
                "questions": section.name,
                "group": own.group.name,
                "runs": len(own.group.runs),
                "seeds": " ".join(map(str, own.group.seeds)),
                "accuracy": own.accuracy,
                "accuracy_low": own.interval[0],
                "accuracy_high": own.interval[1],
                "unreadable": own.unreadable,
                "majority": own.majority,
                "warm_start": own.warm_start,
                "difference": difference and difference.difference,
                "difference_low": difference and difference.low,
                "difference_high": difference and difference.high,
                "p": difference and difference.p_value,
                "p_corrected": own.difference and own.difference.corrected,
                "wall_s": own.wall_s,
                "tokens_per_s": own.tokens_per_s,
                "peak_memory_gb": own.memory_gb,
            }
            row |= {f"figures.{name}": value for name, value in own.figures.items()}
            row |= {keys[0]: own.group.values[column] for column, keys in section.columns.items()}
            rows.append(row)
    _write(path, rows)


def write_runs(path: Path, sections: Sequence[Section]) -> None:
    """Write one row a run, with every figure of its summary."""
    rows = []
    for section in sections:
        for group in section.groups:
            for run, right in zip(group.runs, group.right, strict=True):
                row = {"questions": section.name, "group": group.name, "experiment": run.name, "seed": run.seed}
                row |= {"accuracy": float(right.mean()), "n": len(right), "path": str(run.path)}
                rows.append(row | {name: value for name, value in _flat(run.summary) if name not in row})
    _write(path, rows)


def cell(text: str) -> str:
    """One line of markdown in which nothing is taken for an HTML tag or the edge of a cell."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", "\\|")


def _flat(summary: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in summary.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, writable(text.getvalue()))


def writable(text: str) -> str:
    """Text with whatever cannot be written replaced: a model may break a character in two."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _difference(outcome: Outcome) -> tuple[str, str]:
    if outcome.difference is None:
        return "baseline", ""
    own = outcome.difference.compared
    return f"{100 * own.difference:+.1f} [{_range((own.low, own.high), '+')}]", f"{outcome.difference.corrected:.2g}"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _range(interval: tuple[float, float], sign: str = "") -> str:
    return ", ".join(f"{100 * end:{sign}.1f}" for end in interval)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"
