"""Plots of what a run logged: losses, accuracies and, for preference runs, margins and log-probabilities."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spatial_lightning.records import SEGMENTS

WARM_START = "warm start"
# Okabe and Ito's palette: tells lines apart for colour-blind readers too.
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#666666"

STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_SMOOTH_FROM = 60


@dataclass(frozen=True, slots=True)
class Curve:
    """One logged quantity: optimizer steps, rising, and the value at each."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def at_start(self) -> float | None:
        """Value before the first optimizer step; None where nothing was logged at step 0."""
        return float(self.values[0]) if self.steps[0] == 0 else None

    def smoothed(self) -> NDArray[np.float64]:
        """Centred running mean over a twentieth of the points, shorter at both ends."""
        width = max(3, len(self.values) // 20) | 1
        known, window = np.isfinite(self.values), np.ones(width)
        # "full" cut by hand, since "same" is as long as the longer of the two.
        cut = slice(width // 2, width // 2 + len(self.values))
        sums = np.convolve(np.where(known, self.values, 0.0), window)[cut]
        counts = np.convolve(known.astype(float), window)[cut]
        return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


@dataclass(frozen=True, slots=True)
class Line:
    """A column of the log, and how its line looks.

    Attributes:
        from_start: also draw a dashed level at the value before any training.
    """

    column: str
    label: str
    color: str
    dashed: bool = False
    from_start: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share one pair of axes.

    Attributes:
        scale: factor on every value, e.g. 100 for shares shown as per cent.
        limits: fixed range of the y axis; None follows the data.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: float = 1.0
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture on disk with the words that describe it."""

    path: Path
    caption: str


def read_curves(path: Path) -> dict[str, Curve]:
    """Columns of a sparse ``metrics.csv`` that hold at least one finite number; nothing where there is no file.

    Where a resumed run logged a step again, the later row counts.

    Raises:
        ValueError: a cell that is no number, with ``path:line``.
    """
    if not path.is_file():
        return {}
    columns: dict[str, dict[int, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, restkey="")
        for row in reader:
            step = _number(row.pop("step", None), "step", path, reader.line_num)
            for name, cell in row.items():
                value = _number(cell, name, path, reader.line_num)
                if step is not None and value is not None:
                    columns.setdefault(name, {})[int(step)] = value
    return {
        name: Curve(np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for name, points in columns.items()
        if any(math.isfinite(value) for value in points.values())
    }


def draw_plots(curves: Mapping[str, Curve], folder: Path) -> list[Plot]:
    """Draw every plot that has something to show into ``folder``, as PNG, and return them in reading order."""
    drawn = []
    for name, caption, panels in _plots(curves):
        shown = [panel for panel in panels if any(line.column in curves for line in panel.lines)]
        if shown:
            folder.mkdir(parents=True, exist_ok=True)
            drawn.append(Plot(folder / f"{name}.png", caption))
            _draw(shown, curves, drawn[-1].path)
    return drawn


def _plots(curves: Mapping[str, Curve]) -> Iterator[tuple[str, str, Sequence[Panel]]]:
    """File name, caption and panels of every plot a run may have."""
    prefix = "eval/accuracy/"
    kinds = sorted(column.removeprefix(prefix) for column in curves if column.startswith(prefix))
    accuracy = (
        Line("eval/accuracy", "all questions", BLUE, from_start=True),
        Line("eval/macro_accuracy", "mean over kinds", GREEN, from_start=True),
    )
    yield (
        "accuracy",
        "Accuracy on the evaluation questions; dashed: before training",
        [Panel("Accuracy", "%", accuracy, scale=100)],
    )
    by_kind = [
        Panel(kind, "%", (Line(prefix + kind, "", BLUE, from_start=True),), scale=100, limits=(-4, 104))
        for kind in kinds
    ]
    yield "accuracy_by_kind", "Accuracy of each question kind; dashed: before training", by_kind
    yield "loss", "Loss in training and validation", [Panel("Loss", "loss", _train_and_val("loss"))]
    margins = [
        Panel("Reward margin", "nats", _train_and_val("reward_margin")),
        Panel("Pairs ranked right", "%", _train_and_val("reward_accuracy"), scale=100),
    ]
    yield "margin", "Implicit reward of chosen over rejected responses", margins
    logps = (*_chosen_and_rejected("train/logps"), *_chosen_and_rejected("val/logps", ", validation"))
    # Apart, because the margin can grow while both of them fall.
    sides = [
        Panel("Log-probability", "nats", logps),
        Panel("Implicit reward", "nats", _chosen_and_rejected("train/reward")),
    ]
    yield "logps", "Log-probability and implicit reward of the two responses, apart", sides
    segments = [
        Panel("Beta", "beta", _by_segment("train/beta")),
        Panel("Margin before beta", "nats", _by_segment("train/margin")),
    ]
    yield "segments", "Strength and margin of each segment", segments


def _train_and_val(name: str) -> tuple[Line, ...]:
    return Line(f"train/{name}", "training", BLUE), Line(f"val/{name}", "validation", ORANGE)


def _chosen_and_rejected(name: str, suffix: str = "") -> tuple[Line, ...]:
    sides = (("chosen", GREEN), ("rejected", RED))
    return tuple(Line(f"{name}_{side}", side + suffix, color, dashed=bool(suffix)) for side, color in sides)


def _by_segment(name: str) -> tuple[Line, ...]:
    return tuple(Line(f"{name}_{s}", s, color) for s, color in zip(SEGMENTS, (BLUE, ORANGE), strict=True))


def _draw(panels: Sequence[Panel], curves: Mapping[str, Curve], path: Path) -> None:
    columns = min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    is_grid = len(panels) > 2
    width, height = (2.4, 1.9) if is_grid else (4.8, 3.2)
    with matplotlib.rc_context({**STYLE, "axes.titlesize": 8 if is_grid else 10}):
        # A figure of its own, not pyplot's: no global state, no display, nothing left open.
        figure = Figure(figsize=(width * columns, height * rows), dpi=130, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=panels[0].limits is not None)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, panel, curves)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        if panels[0].limits is not None:
            for axes in grid[:, 1:].flat:
                axes.set_ylabel("")
        for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("optimizer step")
        figure.savefig(path, metadata={"Software": None})


def _draw_panel(axes: Axes, panel: Panel, curves: Mapping[str, Curve]) -> None:
    for line in panel.lines:
        if (curve := curves.get(line.column)) is not None:
            _draw_line(axes, line, curve, panel.scale)
    axes.set_title(panel.title, loc="left", parse_math=False)
    axes.set_ylabel(panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    if any(line.label for line in panel.lines):
        axes.legend()


def _draw_line(axes: Axes, line: Line, curve: Curve, scale: float) -> None:
    style = "--" if line.dashed else "-"
    values = curve.values * scale
    if len(values) >= _SMOOTH_FROM:
        axes.plot(curve.steps, values, style, color=line.color, alpha=0.25, linewidth=0.8)
        axes.plot(curve.steps, curve.smoothed() * scale, style, color=line.color, linewidth=1.8, label=line.label)
    else:
        mark = "o" if len(values) <= 30 else ""
        axes.plot(curve.steps, values, style, color=line.color, marker=mark, markersize=3.5, label=line.label)
    if line.from_start and curve.at_start is not None:
        label = f"{line.label}, {WARM_START}" if line.label else ""
        axes.axhline(curve.at_start * scale, color=line.color, linestyle="--", linewidth=1.0, alpha=0.8, label=label)


def _number(cell: object, name: str, path: Path, line: int) -> float | None:
    if cell is None or cell == "":
        return None
    try:
        return float(cell)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        raise ValueError(f"{path}:{line}: column {name!r} holds {cell!r}; allowed: a number, or nothing") from None
