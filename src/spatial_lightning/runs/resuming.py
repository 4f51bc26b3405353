"""Going on in a run's own directory: from its newest checkpoint, with what it had logged until there."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.directory import newest_checkpoint
from spatial_lightning.runs.identity import Identity, read_identity, require_same


def own_checkpoint(run: Path, identity: Identity, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that an earlier process left in the directory of a run, if the run may go on from it."""
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        return None
    try:
        require_same(read_identity(checkpoint), identity, checkpoint)
    except ConfigError as error:
        say(f"{error}\nstarting anew")
        return None
    say(f"going on from {checkpoint}")
    return checkpoint


def logged_rows(run: Path) -> list[dict[str, str]]:
    """Rows of the ``metrics.csv`` that an earlier process left in a run directory."""
    path = run / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@rank_zero_only
def keep_rows(loggers: list[Logger], rows: list[dict[str, str]], checkpoint: Path) -> None:
    """Put back what was logged in training before the checkpoint that a run goes on from; the rest is logged again."""
    step = int(checkpoint.name.rpartition("-")[2])
    kept = [{key: value for key, value in row.items() if value} for row in rows if int(row["step"]) < step]
    kept = [row for row in kept if not any(key.startswith("eval/") for key in row)]
    loggers[0].experiment.metrics[:0] = kept  # pyright: ignore[reportAttributeAccessIssue]
