"""Answers that were stopped: which directory goes on, and what it must have in common with what is asked for now."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from spatial_lightning.runs.benchmarks import Benchmark, Opened
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.runs.directory import write_text
from spatial_lightning.runs.evaluated import Evaluated
from spatial_lightning.runs.identity import IDENTITY

_LOCK = ".lock"
_held: dict[Path, FileLock] = {}
"""Directories that this process writes to; a lock of a killed process is released by the system."""


def identity_of(config: DictConfig, benchmark: Benchmark, opened: Opened, evaluated: Evaluated) -> dict[str, Any]:
    """What answers depend on: two evaluations with the same identity give the same answers."""
    backbone = evaluated.backbone
    return {
        "benchmark": benchmark.name,
        "questions": opened.version["content"],
        "placeholders": opened.version["placeholders"],
        "prompt": benchmark.prompt,
        "weights": backbone.fingerprint(),
        "pixel_limits": list(backbone.processor.pixel_limits or ()) or None,
        "dtype": str(backbone.model.dtype).removeprefix("torch."),
        "system": evaluated.system,
        "engine": config.engine,
        "max_new_tokens": config.max_new_tokens,
    }


def claim(config: DictConfig, fresh: Path, identity: dict[str, Any], say: Callable[[str], None]) -> Path:
    """The directory to write to: ``config.run``, else the newest unfinished one of the same identity, else ``fresh``.

    Raises:
        ConfigError: ``config.run`` holds answers of another identity, or another process writes there.
    """
    if config.run is not None:
        run = resolve_path(config.run)
        _require_same(run, identity)
        if not _lock(run):
            raise ConfigError(f"run={run} is in use by another process: wait for it, or leave run out")
    else:
        run = _unfinished(fresh.parent, identity) or fresh
        if run != fresh:
            say(f"unfinished work of the same content was found; run=NEW_DIRECTORY starts anew: {run}")
        elif not _lock(run):
            raise ConfigError(f"{run} is in use by another process: start again")
    leave_fresh(fresh, run)
    write_text(run / IDENTITY, json.dumps(identity, indent=1))
    return run


def leave_fresh(fresh: Path, run: Path) -> None:
    """Remove the empty directory of a new run where another is used."""
    if fresh != run and fresh.is_dir() and not any(fresh.iterdir()):
        fresh.rmdir()


def leave() -> None:
    """Let go of all directories."""
    while _held:
        run, lock = _held.popitem()
        lock.release()
        (run / _LOCK).unlink(missing_ok=True)


def _unfinished(folder: Path, identity: dict[str, Any]) -> Path | None:
    """The newest directory of this identity without a summary that no other process writes to; it is locked."""
    for path in sorted(folder.glob(f"*/{IDENTITY}"), reverse=True):
        if (path.parent / "summary.json").exists() or _read(path) != identity:
            continue
        if _lock(path.parent):
            return path.parent
    return None


def _require_same(run: Path, identity: dict[str, Any]) -> None:
    if run.exists() and not run.is_dir():
        raise ConfigError(f"run={run} is a file: give a new or empty directory")
    stored = _read(run / IDENTITY)
    if stored is None:
        if run.is_dir() and any(path.name != _LOCK for path in run.iterdir()):
            raise ConfigError(f"run={run} holds something that is no evaluation: give a new or empty directory")
        return
    different = [key for key in identity if stored.get(key) != identity[key]]
    if different:
        shown = "".join(f"\n  {key}: {stored.get(key)} there, {identity[key]} now" for key in different)
        raise ConfigError(
            f"run={run} holds answers to something else:{shown}\ngive the settings that it has (its config.yaml), or "
            "another directory"
        )


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text(encoding="utf-8"))
    return None


def _lock(run: Path) -> bool:
    """Whether this process may write to a directory from now on."""
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    _held[run] = lock
    return True
