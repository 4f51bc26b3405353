"""Where metrics go: always ``metrics.csv`` in the run directory, and W&B unless it is switched off."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.directory import SWEEP_RECORD

MODES = ("auto", "online", "offline", "off")


def make_loggers(
    run: Path, settings: dict[str, Any], config: dict[str, Any], *, job_type: str = "train"
) -> list[Logger]:
    """Loggers of one run; ``wandb: auto`` logs online where a key is set and offline elsewhere.

    Jobs of one sweep are one group on W&B; other runs are grouped by experiment.

    Args:
        job_type: ``train`` or ``evaluate``.

    Raises:
        ConfigError: an unknown W&B mode.
    """
    mode = wandb_mode(settings)
    table = CSVLogger(save_dir=run, name="", version="")
    with warnings.catch_warnings():
        # That the run directory is not empty: the configuration is there already.
        warnings.simplefilter("ignore")
        _ = table.experiment
    loggers: list[Logger] = [table]
    if mode != "off":
        os.environ.setdefault("WANDB_SILENT", "true")
        name = str(config.get("name") or run.parent.name)
        logger = WandbLogger(
            name=f"{name}/{run.name}",
            save_dir=str(run),
            project=settings.get("project", "spatial_lightning"),
            offline=mode == "offline",
            config=config,
            group=sweep_of(run) or name,
            job_type=job_type,
        )
        # W&B has done away with this setting and warns of it, even where Lightning hands it over unset.
        logger._wandb_init.pop("anonymous", None)
        loggers.append(logger)
    return loggers


def wandb_mode(settings: Mapping[str, Any], key: str = "logger.wandb") -> str:
    """``online``, ``offline`` or ``off``.

    Args:
        key: what the user calls the setting.

    Raises:
        ConfigError: an unknown W&B mode.
    """
    mode = settings.get("wandb", "auto")
    mode = "off" if mode is False else mode
    if mode not in MODES:
        raise ConfigError(f"{key} is {mode!r}; allowed: {', '.join(MODES)}")
    if mode == "auto":
        return "online" if os.environ.get("WANDB_API_KEY") else "offline"
    return mode


def sweep_of(run: Path) -> str | None:
    """Name and time of the sweep that a run is a job of; None for a run of its own."""
    sweep = run.parent
    return f"{sweep.parent.name}/{sweep.name}" if (sweep / SWEEP_RECORD).is_file() else None


def finish_loggers(loggers: list[Logger]) -> None:
    """Close W&B, so that the next job of a sweep starts a run of its own."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        wandb.finish()
