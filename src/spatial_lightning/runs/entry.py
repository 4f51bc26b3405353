"""What happens around a run on the command line: Hydra, the run directory, errors in words, the sweep's last words."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from lightning import seed_everything
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from transformers.utils.logging import disable_progress_bar

from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.modules import NonFiniteLossError
from spatial_lightning.records import RecordError
from spatial_lightning.runs.build import build, build_backbone
from spatial_lightning.runs.chat import ChatError
from spatial_lightning.runs.comparing import Comparing, compare_runs
from spatial_lightning.runs.config import (
    AUTO,
    CONF,
    ConfigError,
    check_command_line,
    is_sweep,
    register,
    require_known,
    resolve_path,
)
from spatial_lightning.runs.directory import write_config, write_error
from spatial_lightning.runs.doctor import examine
from spatial_lightning.runs.evaluating import evaluate_benchmark
from spatial_lightning.runs.export import export_run
from spatial_lightning.runs.inspection import inspect
from spatial_lightning.runs.jobs import alone, run_job
from spatial_lightning.runs.launch import shared_directory
from spatial_lightning.runs.memory import OutOfMemory
from spatial_lightning.runs.sweeping import Record, plan
from spatial_lightning.runs.synthesizing import synthesize
from spatial_lightning.runs.training import say, train
from spatial_lightning.tree import TreeError

EXPECTED = (
    ConfigError,
    BackboneError,
    RecordError,
    TreeError,
    NonFiniteLossError,
    OutOfMemory,
    ChatError,
    FileNotFoundError,
    ValueError,
    OSError,
)
"""Errors that a user can act on: shown as a sentence, with the traceback in ``error.txt``."""


def main() -> int:
    """Entry point of ``train.py``; returns the exit code."""
    arguments = sys.argv[1:]
    if not _ready("train"):
        return 2
    try:
        sweep = plan(arguments)
    except (ConfigError, HydraException) as error:
        say(f"error: {error}")
        return 2
    failed: list[str] = []
    if sweep is not None:
        # Hydra's parser takes no override behind a flag that stands between overrides.
        sys.argv[1:] = ["--multirun", *(text for text in sys.argv[1:] if "=" in text), *sweep.overrides]
        record = Record(sweep.folder)
        record.begin(sweep.total, [sys.argv[0], *arguments], keep=not sweep.jobs)

    def job(config: DictConfig) -> None:
        run = resolve_path(HydraConfig.get().runtime.output_dir)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            run_job(config, run, run_once, say)
        else:
            reason = alone(config, run, run_once, say) if config.resume == AUTO else run_once(config, run)
            failed.extend(filter(None, (reason,)))
        say(f"run directory: {run}")

    hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(job)()
    return 1 if failed else 0 if sweep is None else record.conclude(say)


def run_once(config: DictConfig, run: Path) -> str | None:
    """Train, or show the corpus, and leave an error in words and in the run directory; returns the error's first line."""
    _quiet()  # in the processes of a launcher nobody else has
    try:
        if config.inspect is None:
            train(config, run)
        else:
            inspect(config, run, say=say)
    except Exception as error:
        write_error(run, error)
        _explain(error, run)
        return str(error).split("\n")[0] or type(error).__name__
    return None


def doctor_main() -> int:
    """Entry point of ``doctor.py``; returns the exit code, 1 when the engines disagree."""
    if not _ready("doctor"):
        return 2
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        run = resolve_path(HydraConfig.get().runtime.output_dir)
        write_config(run, config)
        try:
            seed_everything(config.seed, verbose=False)
            report = examine(build_backbone(config), build(config.towers), tolerance=config.tolerance)
        except Exception as error:
            write_error(run, error)
            _explain(error, run)
            codes.append(1)
        else:
            say(report.table())
            report.write(run / "doctor.json")
            codes.append(0 if report.passed else 1)
        say(f"run directory: {run}")

    hydra.main(version_base="1.3", config_path=str(CONF), config_name="doctor")(job)()
    return max(codes, default=0)


def export_main() -> int:
    """Entry point of ``export.py``; returns the exit code."""
    if not _ready("export"):
        return 2
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        try:
            for name in ("run", "to"):
                if config[name] is None:
                    raise ConfigError(f"{name} is missing: python export.py run=RUN_DIRECTORY to=NEW_DIRECTORY")
            to = export_run(resolve_path(config.run), resolve_path(config.to), config.checkpoint)
        except Exception as error:
            run = resolve_path(HydraConfig.get().runtime.output_dir)
            write_error(run, error)
            _explain(error, run)
            codes.append(1)
        else:
            say(f"exported to {to}")

    hydra.main(version_base="1.3", config_path=str(CONF), config_name="export")(job)()
    return max(codes, default=0)


def evaluate_main() -> int:
    """Entry point of ``evaluate.py``; returns the exit code."""
    return _answering("evaluate", evaluate_benchmark)


def synthesize_main() -> int:
    """Entry point of ``synthesize.py``; returns the exit code."""
    return _answering("synthesize", synthesize)


def _answering(config_name: str, work: Callable[..., Path]) -> int:
    """Run what a model answers in; an error is left in the directory that was claimed, or in the new one before that."""
    if not _ready(config_name):
        return 2
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        run = resolve_path(HydraConfig.get().runtime.output_dir)

        def claimed(found: Path) -> None:
            nonlocal run
            run = found

        try:
            work(config, run, say, claimed=claimed)
        except Exception as error:
            write_error(run, error)
            _explain(error, run)
            codes.append(1)
        say(f"run directory: {run}")

    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
    return max(codes, default=0)


def compare_main() -> int:
    """Entry point of ``compare.py``; returns the exit code."""
    ConfigStore.instance().store(name="compare_schema", node=Comparing)
    if not _ready("compare"):
        return 2
    several = [text for text in sys.argv[1:] if text in ("-m", "--multirun", "hydra.mode=MULTIRUN") or is_sweep(text)]
    if several:
        say(
            f"error: compare.py compares runs in one go, so {several[0]} is none of its arguments: give runs as a list in "
            "brackets, runs=[DIRECTORY,DIRECTORY,...], and one value for any other key"
        )
        return 2
    codes: list[int] = []

    def job(config: DictConfig) -> None:
        try:
            require_known(map(str, config), Comparing.__dataclass_fields__, "key")
            settings = OmegaConf.to_object(config)
            assert isinstance(settings, Comparing)
            to = compare_runs(settings, say)
        except Exception as error:
            folder = resolve_path(config.outputs) / "compare"
            write_error(folder, error)
            _explain(error, folder)
            codes.append(1)
        else:
            say(f"comparison: {to}")
            codes.append(0)

    hydra.main(version_base="1.3", config_path=str(CONF), config_name="compare")(job)()
    return max(codes, default=0)


def _ready(config_name: str) -> bool:
    """Whether the command line composes; if not, the reason has been said."""
    _quiet()
    register()
    try:
        check_command_line(sys.argv[1:], config_name)
    except ConfigError as error:
        say(f"error: {error}")
        return False
    sys.argv += shared_directory(sys.argv[1:])
    return True


def _explain(error: Exception, run: Path) -> None:
    kind = "error" if isinstance(error, EXPECTED) else f"unexpected {type(error).__name__}"
    rank = rank_zero_only.rank
    print(f"{f'process {rank}: ' if rank else ''}{kind}: {error}\nmore in {run}/error*.txt", flush=True)


def _quiet() -> None:
    """Leave out what other libraries say about themselves."""
    for name in ("lightning.pytorch", "lightning.fabric", "wandb", "httpx", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    disable_progress_bar()
