"""Summaries as tables that a reader sees, beside the best answer that ignores the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from spatial_lightning.evaluation.majority import majority_answers, majority_baseline
from spatial_lightning.evaluation.scoring import BANDS, Score, score_answer
from spatial_lightning.evaluation.summary import KindSummary, Summary, summarise

__all__ = [
    "BANDS",
    "KindSummary",
    "Score",
    "Summary",
    "figure_text",
    "figures_table",
    "majority_answers",
    "majority_baseline",
    "score_answer",
    "summarise",
    "table",
]


def table(columns: Mapping[str, Summary]) -> str:
    """Markdown table of runs on the same questions: one row per kind, then all questions and the mean over kinds.

    A cell reads ``accuracy % [95 % interval]``, with the share of format failures where there were any. Runs that were
    asked for lengths get a second table with the share of answers within each band of :data:`BANDS`.

    Args:
        columns: summaries by name, in order, e.g. majority baseline, warm start, after.

    Raises:
        ValueError: no columns, or columns with other kinds or numbers of questions.
    """
    if not columns:
        raise ValueError("a table needs at least one column")
    first = next(iter(columns.values()))
    sizes = {name: kind.n for name, kind in first.kinds.items()}
    for column, summary in columns.items():
        if (other := {name: kind.n for name, kind in summary.kinds.items()}) != sizes:
            raise ValueError(f"column {column!r} answers other questions: {other}; the first column answers {sizes}")
    rows = [["question kind", "n", *columns]]
    rows += [[name, str(n), *(_cell(s.kinds[name]) for s in columns.values())] for name, n in sizes.items()]
    rows += [["overall", str(first.overall.n), *(_cell(summary.overall) for summary in columns.values())]]
    rows += [["macro", "", *(_percent(summary.macro, summary.macro_interval) for summary in columns.values())]]
    text = _markdown(rows)
    if first.overall.bands:
        bands = [["length within", *columns]]
        bands += [[band, *(f"{100 * s.overall.bands[band]:.1f}" for s in columns.values())] for band in BANDS]
        text += "\n" + _markdown(bands)
    return text


def figures_table(columns: Mapping[str, Summary]) -> str:
    """Markdown table of the protocol's own figures, the headline first, then of format failures, in per cent.

    Figures that are no shares (``..._abs_rel``) are given as they are. A figure that a column does not have is a dash.

    Raises:
        ValueError: no columns.
    """
    if not columns:
        raise ValueError("a table needs at least one column")
    rows = {name: None for summary in columns.values() for name in summary.figures}
    values = {name: [summary.figures.get(name, math.nan) for summary in columns.values()] for name in rows}
    values["unreadable"] = [summary.overall.unparsed_share for summary in columns.values()]
    values["right among readable"] = [summary.overall.readable_accuracy for summary in columns.values()]
    return _markdown(
        [["figure", *columns], *([name, *(figure_text(name, value) for value in own)] for name, own in values.items())]
    )


def figure_text(name: str, value: float) -> str:
    """A protocol's figure as tables show it: in per cent, but ``..._abs_rel`` as it is; a dash for what is not a number."""
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if name.endswith("_abs_rel") else f"{100 * value:.1f}"


def _cell(kind: KindSummary) -> str:
    unparsed = f", {100 * kind.unparsed_share:.0f} % unreadable" if kind.unparsed else ""
    return _percent(kind.accuracy, kind.interval) + unparsed


def _percent(share: float, interval: tuple[float, float]) -> str:
    return f"{100 * share:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    # Names to the left, figures to the right.
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])
