"""What a finished run or comparison leaves on W&B: figures in its summary, tables, plots, and what was made from what.

Artifacts hold the order in which things were made: corpus, then checkpoint, then evaluation. ``docs/wandb.md`` says how
to read them.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from spatial_lightning.records import BadRows
from spatial_lightning.runs.config import resolve_path
from spatial_lightning.runs.directory import newest_checkpoint
from spatial_lightning.runs.loggers import wandb_mode
from spatial_lightning.runs.samples import Sample, pick_samples, read_samples

SAMPLES = 40
"""Rows of the table of answers."""
_KEPT = (
    "summary.json",
    "config.yaml",
    "metrics.csv",
    "samples.jsonl",
    "predictions.jsonl",
    "report.md",
    "comparison.md",
)
_KEPT_TOO = ("runs.csv", "groups.csv", "report.html", "plots")


@rank_zero_only
def log_finished(loggers: Sequence[Logger], run: Path, say: Callable[[str], None] = print) -> None:
    """Put what a finished run directory holds on its W&B run; without one, nothing happens.

    ``final/...``, ``baseline/...`` and ``throughput/...`` go to the run's summary, up to 40 answers to the table
    ``answers``. An online run names its corpus, or the checkpoint that it evaluates, as what it used; W&B cannot do so
    offline, where ``config.lineage`` holds the same names. What W&B refuses is said and fails no finished run.
    """
    logger = next((logger for logger in loggers if isinstance(logger, WandbLogger)), None)
    if logger is None:
        return
    own = logger.experiment
    with excused(say):
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        own.summary.update(dict(final_figures(summary)))
        rows = read_samples(run / "samples.jsonl", BadRows())
        if rows:
            own.log({"answers": _answers(pick_samples(rows, SAMPLES))})
        source, made = _lineage(run, summary)
        names = {"used": [source.name], "made": [artifact.name for artifact in made]}
        own.config.update({"lineage": names}, allow_val_change=True)
        if not own.offline:
            own.use_artifact(source)
        for artifact in made:
            own.log_artifact(artifact)


@rank_zero_only
def log_comparison(folder: Path, settings: Mapping[str, Any], figures: Mapping[str, float]) -> None:
    """Log a comparison as a run of its own with job type ``compare``: groups and runs as tables, plots, and the page.

    Args:
        folder: what the comparison wrote.
        figures: for the run's summary.

    Raises:
        ConfigError: an unknown W&B mode.
    """
    mode = wandb_mode(settings)
    if mode == "off":
        return
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    own = wandb.init(
        name=folder.name,
        dir=str(folder),
        project=settings.get("project", "spatial_lightning"),
        mode="online" if mode == "online" else "offline",
        job_type="compare",
    )
    try:
        own.summary.update(dict(figures))
        logged: dict[str, Any] = {path.stem: _table(path) for path in (folder / "groups.csv", folder / "runs.csv")}
        plots = sorted((folder / "plots").rglob("*.png"))
        logged |= {
            f"plots/{path.relative_to(folder / 'plots').with_suffix('')}": wandb.Image(str(path)) for path in plots
        }
        own.log(logged | {"report": wandb.Html(str(folder / "report.html"))})
        own.log_artifact(_directory(folder, "comparison", folder.name, {}))
    finally:
        own.finish()


def final_figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Figures of a ``summary.json`` under the names that W&B shows them by."""
    for place, prefix in (("metrics", "final/"), ("baseline", "baseline/"), ("throughput", "throughput/"), ("", "")):
        node = summary.get(place) or {} if place else {name: summary.get(name) for name in ("wall_s", "steps")}
        yield from ((prefix + name, value) for name, value in _flat(node))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value


def _lineage(run: Path, summary: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """What a run was made from, and what it made: corpus and checkpoint, or checkpoint and evaluation."""
    stem = f"{summary.get('experiment')}-{summary.get('config_hash')}"
    facts = {
        name: summary.get(name) for name in ("experiment", "seed", "git_sha", "config_hash", "corpus", "benchmark")
    }
    if "benchmark" in summary:
        asked = summary.get("checkpoint")
        folder = None if asked is None else resolve_path(asked)
        source = _described("backbone", summary.get("backbone"), facts) if folder is None else _checkpoint(folder)
        return source, [_directory(run, "evaluation", f"{summary['benchmark']}-{stem}", facts)]
    source = _described(
        "corpus", summary.get("corpus"), {"corpus": summary.get("corpus"), "dropped": summary.get("dropped")}
    )
    made = [_directory(run, "run", stem, facts)]
    checkpoint = newest_checkpoint(run)
    return source, [*([] if checkpoint is None else [_checkpoint(checkpoint)]), *made]


def _checkpoint(folder: Path) -> Any:
    """A checkpoint by reference, named alike by the run that makes it and by those that use it; no weights are copied."""
    import wandb

    run = folder.parent.parent
    with contextlib.suppress(OSError, ValueError):
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        name = f"checkpoint-{summary.get('experiment')}-{summary.get('config_hash')}"
        artifact = wandb.Artifact(
            _artifact_name(name), "model", metadata={"run": str(run), "seed": summary.get("seed")}
        )
        artifact.add_reference(folder.resolve().as_uri())
        return artifact
    return _described("checkpoint", folder.name, {"path": str(folder)})


def _described(kind: str, name: Any, facts: Mapping[str, Any]) -> Any:
    """What has no files worth keeping (a corpus is made or read from elsewhere): its description."""
    import wandb

    types = {"corpus": "dataset", "backbone": "model", "checkpoint": "model"}
    artifact = wandb.Artifact(_artifact_name(f"{kind}-{name}"), types[kind], metadata=dict(facts))
    with artifact.new_file("description.json") as file:
        json.dump(dict(facts), file, indent=1, default=str)
    return artifact


def _directory(folder: Path, kind: str, name: str, facts: Mapping[str, Any]) -> Any:
    import wandb

    artifact = wandb.Artifact(_artifact_name(f"{kind}-{name}"), kind, metadata=dict(facts))
    for own in (*_KEPT, *_KEPT_TOO):
        path = folder / own
        if path.is_dir():
            artifact.add_dir(str(path), name=own)
        elif path.is_file():
            artifact.add_file(str(path), name=own)
    return artifact


def _artifact_name(text: str) -> str:
    """A name that W&B allows: letters, digits, dots, dashes and underscores, 128 at most."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII)[:128]


def _answers(rows: Sequence[Sample]) -> Any:
    import wandb

    columns = list(dict.fromkeys(column for row in rows for column in row.answers))
    head: list[Any] = ["id", "kind", "question", "true answer", "picture"]
    head += [name for column in columns for name in (column, f"{column} is right")]
    table = wandb.Table(columns=head)
    for row in rows:
        cells: list[Any] = [*map(_writable, (row.id, row.kind, row.question, row.answer)), _image(row)]
        for column in columns:
            cells += [_writable(row.answers.get(column, "")), row.correct.get(column)]
        table.add_data(*cells)
    return table


def _image(row: Sample) -> Any:
    import wandb

    # One that cannot be read is left out: the page of answers says so.
    with contextlib.suppress(OSError, ValueError, SyntaxError):
        return wandb.Image(str(row.images[0])) if row.images and row.images[0].is_file() else None
    return None


def _table(path: Path) -> Any:
    import wandb

    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    return wandb.Table(
        columns=list[Any](head), data=[[_cell(text) for text in row] for row in rows], allow_mixed_types=True
    )


def _cell(text: str) -> float | str | None:
    with contextlib.suppress(ValueError):
        return float(text)
    return text or None


def _writable(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode("utf-8")


@contextlib.contextmanager
def excused(say: Callable[[str], None]) -> Iterator[None]:
    """A finished run or comparison stays finished when W&B refuses something."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError, ValueError, TypeError) as error:
        say(
            f"W&B did not take the results ({type(error).__name__}: {error}); they are in the directory of the run or comparison"
        )
