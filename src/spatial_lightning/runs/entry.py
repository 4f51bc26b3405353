"""What happens around a run on the command line: Hydra, the run directory, errors in words, the sweep's last words."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.modules import NonFiniteLossError
from spatial_lightning.records import RecordError
from spatial_lightning.runs.config import CONF, ConfigError, check_command_line, register, resolve_path
from spatial_lightning.runs.directory import write_error
from spatial_lightning.runs.training import say, train
from spatial_lightning.tree import TreeError

EXPECTED = (
    ConfigError,
    BackboneError,
    RecordError,
    TreeError,
    NonFiniteLossError,
    FileNotFoundError,
    ValueError,
    OSError,
)
"""Errors that a user can act on: shown as a sentence, with the traceback in ``error.txt``."""


def main() -> int:
    """Entry point of ``train.py``; returns the exit code."""
    _quiet()
    failed: list[tuple[str, str]] = []
    try:
        check_command_line(sys.argv[1:])
    except ConfigError as error:
        say(f"error: {error}")
        return 2
    register()

    def job(config: DictConfig) -> None:
        run = resolve_path(HydraConfig.get().runtime.output_dir)
        try:
            train(config, run)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            write_error(run, error)
            _explain(error, run)
            failed.append((str(run), str(error).split("\n")[0]))
            if HydraConfig.get().mode is not RunMode.MULTIRUN:
                raise SystemExit(_goodbye(run, 1)) from error
        _goodbye(run, 0)

    hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(job)()
    if failed:
        say(f"{len(failed)} jobs failed:")
        for run, reason in failed:
            say(f"  {run}: {reason}")
    return 1 if failed else 0


def _explain(error: Exception, run: Path) -> None:
    kind = "error" if isinstance(error, EXPECTED) else f"unexpected {type(error).__name__}"
    say(f"{kind}: {error}\nmore in {run / 'error.txt'}")


def _goodbye(run: Path, code: int) -> int:
    say(f"run directory: {run}")
    return code


def _quiet() -> None:
    """Leave out what other libraries say about themselves."""
    for name in ("lightning.pytorch", "lightning.fabric", "wandb", "httpx", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

