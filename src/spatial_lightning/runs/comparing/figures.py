"""Plots that lay groups beside each other: learning curves, question kinds, distances, reward margins, accuracy for cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spatial_lightning.records import SEGMENTS
from spatial_lightning.runs.answering import family
from spatial_lightning.runs.comparing.grouping import Section
from spatial_lightning.runs.comparing.outcomes import Outcome, Sureness, interval
from spatial_lightning.runs.curves import BLUE, GREEN, GREY, ORANGE, RED, STYLE, Curve, Plot

PALETTE = (BLUE, ORANGE, GREEN, RED, "#cc79a7", "#56b4e9", GREY, "#b0a030")
"""Okabe and Ito's colours, olive for their black, which hides what is drawn on it, and without yellow, which white hides."""
_MARKS, _LINES = "osD^v", ("-", "--", "-.")
_EDGES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Edges in metres between bins of true lengths."""

# Title, unit, factor and column of what may be drawn as learning curves.
_LEARNING = (
    ("Accuracy on a part of the questions", "%", 100.0, "eval_part/accuracy"),
    ("Accuracy before and after", "%", 100.0, "eval/accuracy"),
    ("Validation loss", "loss", 1.0, "val/loss"),
    ("Training loss", "loss", 1.0, "train/loss"),
)
_MARGINS = (
    ("Reward margin", "nats", 1.0, "train/reward_margin"),
    *((f"Margin before beta: {segment}", "nats", 1.0, f"train/margin_{segment}") for segment in SEGMENTS),
)


@dataclass(frozen=True, slots=True)
class Look:
    """How one group is drawn, the same in every plot."""

    color: str
    mark: str
    line: str


def looks(section: Section) -> dict[str, Look]:
    """Colour, mark and line of each group."""
    # Marks and dashes go round on their own, so that lines on top of each other are still seen.
    return {
        group.name: Look(PALETTE[index % len(PALETTE)], _MARKS[index % len(_MARKS)], _LINES[index % len(_LINES)])
        for index, group in enumerate(section.groups)
    }


def draw_comparison(section: Section, found: Sequence[Outcome], folder: Path, sureness: Sureness) -> list[Plot]:
    """Draw every plot that has something to show into ``folder``, as PNG, and return them in reading order."""
    drawn = []
    for name, caption, draw in _plots(section, found, sureness):
        with matplotlib.rc_context(STYLE):
            figure = draw()
            if figure is not None:
                folder.mkdir(parents=True, exist_ok=True)
                figure.savefig(folder / f"{name}.png", dpi=130, metadata={"Software": None})
                drawn.append(Plot(folder / f"{name}.png", caption))
    return drawn


def mean_curve(curves: Sequence[Curve]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps that lie within all curves, and the curves' values there, (curves, steps); between points straight lines."""
    steps = np.unique(np.concatenate([curve.steps for curve in curves]))
    first, last = max(curve.steps[0] for curve in curves), min(curve.steps[-1] for curve in curves)
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.array([np.interp(steps, curve.steps, curve.values) for curve in curves])


def _plots(
    section: Section, found: Sequence[Outcome], sureness: Sureness
) -> Iterator[tuple[str, str, Callable[[], Figure | None]]]:
    level = f"{100 * sureness.level:g} % intervals"
    kinds = _masks(_kinds(section), section)
    yield (
        "accuracy_by_kind",
        f"Accuracy by question kind, mean over runs, with {level}",
        lambda: _bars(section, kinds, sureness, "question kind (number of questions)") if len(kinds) > 1 else None,
    )
    bins = _masks({k: _bin(row.value) for k, row in section.questions.items() if row.value is not None}, section)
    bins = {name: bins[name] for name in _BINS if name in bins}
    yield (
        "accuracy_by_distance",
        f"Accuracy of lengths by the true length, mean over runs, with {level}",
        lambda: _bars(section, bins, sureness, "true length in metres (number of questions)") if bins else None,
    )
    band = "line: mean over runs; band: from the lowest run to the highest"
    yield (
        "learning",
        f"Learning curves ({band}); losses of other objectives are other quantities",
        lambda: _panels(section, _LEARNING),
    )
    yield "margins", f"Margins of preference training ({band})", lambda: _panels(section, _MARGINS)
    yield (
        "cost",
        f"Accuracy for its cost, with {level}; line: what no other group beats in both",
        lambda: _costs(section, found),
    )


def _kinds(section: Section) -> dict[str, str]:
    """Kind of each question, as the runs' own reports name it: forms of one relation together where they do so."""
    reported = {name for group in section.groups for run in group.runs for name in run.summary.get("metrics") or {}}
    kinds = {}
    for key, row in section.questions.items():
        together = family(row.kind, row.style)
        kinds[key] = together if f"accuracy/{together}" in reported else row.kind
    return kinds


def _masks(labels: Mapping[str, str], section: Section) -> dict[str, NDArray[np.bool_]]:
    names = [labels.get(key) for key in section.questions]
    found = sorted({name for name in names if name is not None})
    return {name: np.array([own == name for own in names]) for name in found}


_BINS = (
    f"below {_EDGES[0]:g}",
    *(f"{low:g} to {high:g}" for low, high in pairwise(_EDGES)),
    f"{_EDGES[-1]:g} and more",
)


def _bin(value: float) -> str:
    return _BINS[int(np.searchsorted(_EDGES, value, side="right"))]


def _bars(section: Section, masks: Mapping[str, NDArray[np.bool_]], sureness: Sureness, label: str) -> Figure:
    """Horizontal bars, groups beside each other within each label, as high as it takes."""
    look, many = looks(section), len(section.groups)
    figure = Figure(figsize=(7.2, 1.3 + len(masks) * (0.22 + 0.13 * many)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(masks))
    thick = 0.8 / many
    for index, group in enumerate(section.groups):
        centre = places + (index - (many - 1) / 2) * thick
        means = np.array([100 * group.right[:, mask].mean() for mask in masks.values()])
        ends = np.array([interval(group, section, sureness, mask) for mask in masks.values()]) * 100
        axes.barh(centre, means, thick * 0.9, color=look[group.name].color, alpha=0.85, label=group.name)
        spread = np.abs(ends.T - means)
        axes.errorbar(means, centre, xerr=spread, fmt="none", ecolor="#333333", elinewidth=0.8, capsize=1.5)
    axes.set_yticks(places, [f"{name} ({int(mask.sum())})" for name, mask in masks.items()], parse_math=False)
    axes.set_ylim(len(masks) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("right answers in %")
    axes.set_ylabel(label)
    axes.grid(visible=False, axis="y")
    _legend(figure, axes)
    return figure


def _panels(section: Section, wanted: Sequence[tuple[str, str, float, str]]) -> Figure | None:
    logged = {name for group in section.groups for run in group.runs for name in run.curves}
    shown = [panel for panel in wanted if panel[-1] in logged]
    if not shown:
        return None
    columns = min(len(shown), 2)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(4.0 * columns, 2.8 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, unit, scale, column) in zip(grid.flat, shown, strict=False):
        for group, look in zip(section.groups, looks(section).values(), strict=True):
            own = [run.curves[column] for run in group.runs if column in run.curves]
            if own:
                _curve(axes, own, look, scale, group.name)
        axes.set_title(title, loc="left")
        axes.set_ylabel(unit)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    for axes in grid.flat[len(shown) :]:
        axes.set_visible(False)
    _legend(figure, *grid.flat[: len(shown)])
    return figure


def _curve(axes: Axes, curves: Sequence[Curve], look: Look, scale: float, label: str) -> None:
    steps, values = mean_curve([Curve(own.steps, own.smoothed()) if len(own.values) > 60 else own for own in curves])
    if not len(steps):
        return
    mark = look.mark if len(steps) <= 30 else ""
    axes.plot(steps, scale * values.mean(axis=0), look.line, color=look.color, marker=mark, markersize=3, label=label)
    if len(curves) > 1:
        axes.fill_between(
            steps, *(scale * end(axis=0) for end in (values.min, values.max)), color=look.color, alpha=0.15, linewidth=0
        )


def _costs(section: Section, found: Sequence[Outcome]) -> Figure | None:
    costs = {
        "wall time in minutes": [None if own.wall_s is None else own.wall_s / 60 for own in found],
        "peak memory in GB": [own.memory_gb for own in found],
    }
    shown = {name: cost for name, cost in costs.items() if sum(value is not None for value in cost) > 1}
    if not shown:
        return None
    figure = Figure(figsize=(4.0 * len(shown), 3.3), layout="constrained")
    grid = figure.subplots(1, len(shown), squeeze=False, sharey=True)
    for axes, (name, cost) in zip(grid.flat, shown.items(), strict=True):
        known = [(value, own) for value, own in zip(cost, found, strict=True) if value is not None]
        for value, own in known:
            look, mean = looks(section)[own.group.name], 100 * own.accuracy
            spread = [[mean - 100 * own.interval[0]], [100 * own.interval[1] - mean]]
            axes.errorbar(value, mean, yerr=spread, fmt=look.mark, color=look.color, capsize=2, label=own.group.name)
        front = pareto([(value, own.accuracy) for value, own in known])
        axes.plot(
            [v for v, _ in front],
            [100 * a for _, a in front],
            color=GREY,
            linewidth=1,
            zorder=0,
            drawstyle="steps-post",
        )
        axes.set_xlabel(name)
    grid[0, 0].set_ylabel("right answers in %")
    _legend(figure, *grid.flat)
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, accuracy) that none with lower or equal cost and higher or equal accuracy beats, by cost."""
    front: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((cost, accuracy))
    return front


def _legend(figure: Figure, *axes: Axes) -> None:
    """One legend for all axes, above them; names are cut to what fits."""
    handles = {label: handle for own in axes for handle, label in zip(*own.get_legend_handles_labels(), strict=True)}
    short = [label if len(label) <= 60 else f"{label[:59]}…" for label in handles]
    legend = figure.legend(handles.values(), short, loc="outside upper left", ncols=2 if len(handles) > 1 else 1)
    for text in legend.get_texts():
        text.set_parse_math(False)
