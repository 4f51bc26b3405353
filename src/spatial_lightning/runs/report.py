"""The report of a finished run: what was run, what may be concluded, and what it takes to check it or run it again."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from spatial_lightning.records import BadRows
from spatial_lightning.runs.curves import Curve, Plot, draw_plots, read_curves
from spatial_lightning.runs.directory import write_text
from spatial_lightning.runs.pages import write_samples_page
from spatial_lightning.runs.samples import read_samples

EVALUATION_PLOTS = ("accuracy", "accuracy_by_kind")

_HOW_TO_READ = "Where a line is drawn twice, the thin one is every logged step and the thick one its running mean."


def write_report(run: Path, *, table: str, conclusion: str, towers: str, notes: Sequence[str] = ()) -> Path:
    """Write ``report.md``, its plots and the page of answers into a finished run directory.

    Only ``summary.json`` has to be there. Without ``metrics.csv`` there are no plots, without ``samples.jsonl`` no
    page, and the report says so.

    Args:
        run: the run directory.
        table: results as a markdown table.
        conclusion: one sentence on what the results allow one to conclude.
        towers: what was trained, as plain text in columns.
        notes: what a reader has to know about the corpus, e.g. rows left out and why.

    Returns:
        Path of ``report.md``.

    Raises:
        FileNotFoundError: no ``summary.json`` in ``run``.
        ValueError: ``metrics.csv`` or ``summary.json`` cannot be read.
    """
    summary = _read_summary(run / "summary.json")
    curves = read_curves(run / "metrics.csv")
    plots = draw_plots(curves, run / "plots")
    in_results = [plot for plot in plots if plot.path.stem in EVALUATION_PLOTS]
    in_training = [plot for plot in plots if plot.path.stem not in EVALUATION_PLOTS]
    sections = [
        f"# {_plain(summary.get('experiment') or run.name)}",
        _what_was_run(summary, curves),
        f"**{_plain(conclusion)}**",
        "## Results",
        table.strip(),
        *_pictures(in_results),
        _samples(run, summary),
        "## Training",
        *([_HOW_TO_READ, *_pictures(in_training)] if in_training else ["No training curves were logged."]),
        "### What was trained",
        _block(towers),
        "### Throughput",
        _throughput(summary),
        "## Corpus",
        _corpus(summary, notes),
        "## Run it again",
        _provenance(run, summary),
    ]
    path = run / "report.md"
    write_text(path, "\n\n".join(sections) + "\n")
    return path


def write_evaluation_report(run: Path, *, table: str, conclusion: str, notes: Sequence[str] = ()) -> Path:
    """Write ``report.md`` and the page of answers of a finished evaluation; see :func:`write_report`.

    Args:
        notes: what a reader has to know about the benchmark and the answers, e.g. another file than the published one.
    """
    summary = _read_summary(run / "summary.json")
    names = ("backbone", "checkpoint", "predictions", "prompt", "system", "pixel_limits", "max_new_tokens")
    asked = {name: summary.get(name) for name in names}
    version = {name: fact for name, fact in (summary.get("benchmark_version") or {}).items() if name != "warnings"}
    settings = [
        f"- {name.replace('_', ' ')}: {'none' if value is None else _code(value)}"
        for name, value in {**asked, **version}.items()
    ]
    sections = [
        f"# {_plain(summary.get('experiment') or run.name)} on {_plain(summary.get('benchmark'))}",
        f"**{_plain(conclusion)}**",
        "## Results",
        table.strip(),
        _samples(run, summary),
        "## What was asked",
        "\n".join(settings),
        "\n".join(f"- {_plain(note)}" for note in notes) or "- Nothing was reported as left out.",
        "## Run it again",
        _provenance(run, summary),
    ]
    path = run / "report.md"
    write_text(path, "\n\n".join(sections) + "\n")
    return path


def _read_summary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no summary at {path}: a report needs the directory of a run that finished")
    summary = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(summary, dict):
        raise ValueError(f"{path} holds a {type(summary).__name__}; it must be a JSON object")
    return summary


def _what_was_run(summary: Mapping[str, Any], curves: Mapping[str, Curve]) -> str:
    text = (
        f"Backbone {_code(summary.get('backbone'))} trained on corpus {_code(summary.get('corpus'))} with objective "
        f"{_code(summary.get('objective'))} and seed {_code(summary.get('seed'))}"
    )
    if (steps := _finite(summary.get("steps"))) is not None:
        text += f", for {steps:,.0f} optimizer steps"
    elif curves:
        text += f", logged up to optimizer step {max(int(curve.steps[-1]) for curve in curves.values()):,}"
    if (seconds := _finite(summary.get("wall_s"))) is not None:
        text += f", in {_duration(seconds)}"
    return text + "."


def _pictures(plots: Sequence[Plot]) -> list[str]:
    return [f"![{plot.caption}]({plot.path.parent.name}/{plot.path.name})\n\n*{plot.caption}.*" for plot in plots]


def _samples(run: Path, summary: Mapping[str, Any]) -> str:
    bad = BadRows()
    rows = read_samples(run / "samples.jsonl", bad)
    unread = ""
    if bad.bad:
        first = _plain(bad.places[0].removeprefix(f"{run}/"))
        unread = f"{bad.bad:,} of {bad.bad + bad.good:,} rows of samples.jsonl could not be read, the first: {first}."
    if not rows:
        return unread or "No answers were saved."
    title = f"Answers of {summary.get('experiment') or run.name}"
    shown = write_samples_page(run / "samples.html", rows, title=title)
    link = f"[Look at {shown:,} of {len(rows):,} answers](samples.html), with their pictures."
    return f"{link} {unread}".strip()


def _throughput(summary: Mapping[str, Any]) -> str:
    names = {"tokens_per_s": "tokens/s", "examples_per_s": "examples/s", "peak_memory_gb": "peak memory (GB)"}
    measured = summary.get("throughput") or {}
    cells = {label: _finite(measured.get(name)) for name, label in names.items()}
    figures = ["not measured" if value is None else f"{value:,.4g}" for value in cells.values()]
    return f"| {' | '.join(cells)} |\n|{' ---: |' * len(cells)}\n| {' | '.join(figures)} |"


def _corpus(summary: Mapping[str, Any], notes: Sequence[str]) -> str:
    said = [f"- {_plain(note)}" for note in notes] or ["- Nothing was reported as left out."]
    return f"Corpus: {_code(summary.get('corpus'))}.\n\n" + "\n".join(said)


def _provenance(run: Path, summary: Mapping[str, Any]) -> str:
    lines = []
    if command := _command(run, summary):
        lines += [_block(command, "bash"), ""]
    sha = summary.get("git_sha")
    changed = " (the working tree differed from it)" if str(sha).endswith("+") else ""
    lines += [f"- git commit: {_code(sha)}{changed}", f"- config hash: {_code(summary.get('config_hash'))}"]
    if "warm_start" in summary:
        start = summary["warm_start"]
        lines.append(f"- warm start: {'the weights the backbone comes with' if start is None else _code(start)}")
    if (run / "config.yaml").is_file():
        lines.append("- every setting, resolved: [config.yaml](config.yaml)")
    return "\n".join(lines)


def _command(run: Path, summary: Mapping[str, Any]) -> str:
    """The command line as the summary states it, else from the overrides that Hydra keeps; empty where neither does."""
    stated = summary.get("command")
    if isinstance(stated, str):
        return stated
    if stated:
        return shlex.join(str(word) for word in stated)
    overrides = run / ".hydra" / "overrides.yaml"
    if not overrides.is_file():
        return ""
    return shlex.join(["python", "train.py", *(str(word) for word in OmegaConf.load(overrides))])


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _plain(text: Any) -> str:
    """One line of markdown in which nothing is taken for an HTML tag."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(str(text).split()))


def _code(value: Any) -> str:
    text = "unknown" if value is None else " ".join(str(value).split())
    ticks = "`" * (_longest_ticks(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _block(text: str, language: str = "text") -> str:
    fence = "`" * max(3, _longest_ticks(text) + 1)
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def _longest_ticks(text: str) -> int:
    return max((len(ticks) for ticks in re.findall("`+", text)), default=0)
