"""One job of a sweep: skipped where it has finished, gone on with where it was begun, recorded whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from spatial_lightning.locks import locked
from spatial_lightning.runs.config import PROJECT, ConfigError
from spatial_lightning.runs.directory import CHECKPOINTS, config_hash
from spatial_lightning.runs.launch import ranks_of
from spatial_lightning.runs.sweeping import Record

Once = Callable[[DictConfig, Path], str | None]
"""Runs a configuration in a directory and returns why it failed, if it did."""


def run_job(config: DictConfig, run: Path, once: Once, say: Callable[[str], None]) -> None:
    """Run one job of a multirun as :attr:`HydraConfig` describes it."""
    hydra = HydraConfig.get()
    record, number = Record(run.parent), int(hydra.job.num) + 1
    head = f"job {number} of {record.read()['total']}"
    shown = " ".join(filter(None, (str(config.name), *_overridden(hydra))))
    facts = {"job": number, "overrides": list(hydra.overrides.task), "reason": None}
    # What its summary gives as its command: this job alone.
    sys.argv[:] = [
        "train.py",
        *(text for text in facts["overrides"] if not text.startswith(("+sweep=", "resume=auto"))),
    ]
    summary = None if config.redo else finished(config, run)
    if summary is not None:
        say(f"{head} finished already: {run}")
        record.note(run, **facts, state="skipped", wall_s=summary["wall_s"])
        return
    record.note(run, **facts, state="running", wall_s=None)
    say(f"\n{head}: {shown}{record.time_left()}")
    began = time.monotonic()
    reason: str | None = "interrupted"
    try:
        reason = apart(run) if _isolated(config) else alone(config, run, once, say)
    finally:
        state = "finished" if reason is None else "failed"
        record.note(run, state=state, reason=reason, wall_s=time.monotonic() - began)


def finished(config: DictConfig, run: Path) -> dict[str, Any] | None:
    """The summary of a finished run of the same content in a directory."""
    try:
        summary = json.loads((run / "summary.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return summary if summary.get("config_hash") == config_hash(config) else None


def alone(config: DictConfig, run: Path, once: Once, say: Callable[[str], None]) -> str | None:
    """Run where no other process is at it, and not again what another one has finished meanwhile.

    Returns:
        Why it failed; None where it did not.
    """
    first = rank_zero_only.rank == 0
    with locked(run / ".lock", say) if first else contextlib.nullcontext():
        if not config.redo and finished(config, run):
            say(f"finished already: {run}")
            return None
        if first:
            for left in (run / "summary.json", *run.glob("error*.txt")):
                left.unlink(missing_ok=True)
            if config.redo:
                shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
        return once(config, run)


def apart(run: Path) -> str | None:
    """Run the job whose configuration Hydra has put into a directory in a process of its own.

    Returns:
        Why it failed, a signal in words; None where it did not.
    """
    configuration = ["-cp", str(run / ".hydra"), "-cn", "config", f"hydra.run.dir='{run}'"]
    code = subprocess.run([sys.executable, str(PROJECT / "train.py"), *configuration]).returncode
    if code == 0:
        return None
    error = run / "error.txt"
    if code > 0:
        return _said(error) or f"the process ended with exit code {code}"
    name = signal.Signals(-code).name
    words = {"SIGKILL": "as the system does when memory runs out", "SIGSEGV": "a crash in compiled code"}.get(name)
    reason = f"the process was killed by {name}" + (f", {words}" if words else "")
    error.write_text(reason + "\n")
    return reason


def _isolated(config: DictConfig) -> bool:
    if "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return False
    # Lightning's own further processes start the command again, which must be that of one run.
    with contextlib.suppress(ConfigError):
        return bool(config.isolate) or ranks_of(config) > 1
    return bool(config.isolate)


def _overridden(hydra: Any) -> list[str]:
    constant = set(hydra.job.config.override_dirname.exclude_keys)
    return [text for text in hydra.overrides.task if text.partition("=")[0].lstrip("+~") not in constant]


def _said(error: Path) -> str | None:
    """The message of the error that a process left with its traceback."""
    if not error.is_file():
        return None
    last = error.read_text().split('\n  File "')[-1]
    message = next((line for line in last.split("\n")[1:] if line and not line.startswith(" ")), "")
    return re.sub(r"^[\w.]+: ", "", message) or None
