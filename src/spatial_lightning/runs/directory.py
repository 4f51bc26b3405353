"""The run directory: what a run leaves behind, whether it finished or failed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from spatial_lightning.runs.config import PROJECT

CHECKPOINTS = "checkpoints"
"""Folder of a run directory that holds its checkpoints."""
SWEEP_RECORD = "sweep.json"
"""File that lists the jobs of a sweep, in the sweep's directory."""
NOT_CONTENT = ("outputs", "cache", "logger", "export", "resume", "redo", "isolate")
"""Run-level keys that do not change what is learned."""


def config_hash(config: DictConfig) -> str:
    """Content hash of everything in a configuration that changes what is learned."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    content = {key: value for key, value in content.items() if key not in NOT_CONTENT}
    if (content.get("early_stopping") or {}).get("patience") is None:
        content.pop("early_stopping", None)
    return hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def write_config(run: Path, config: DictConfig) -> None:
    """Write the resolved configuration."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", OmegaConf.to_yaml(config, resolve=True))


def write_summary(run: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``, which marks the run as finished."""
    write_text(run / "summary.json", json.dumps(summary, indent=1, default=float))


def write_error(run: Path, error: BaseException) -> None:
    """Write ``error.txt`` (``error-RANK.txt`` of a further process) with the error and where it came from."""
    run.mkdir(parents=True, exist_ok=True)
    rank = rank_zero_only.rank
    (run / f"error{f'-{rank}' if rank else ''}.txt").write_text("".join(traceback.format_exception(error)))


def json_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON; escaped where it holds half of a character, which a file cannot."""
    line = json.dumps(row, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


@rank_zero_only
def write_text(path: Path, text: str) -> None:
    """Write a file in one step, so that nobody ever reads half of it; of all processes of a run, the first does."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def git_sha() -> str:
    """Commit of the project, with ``+`` where the working tree differs from it; ``unknown`` outside a checkout."""
    try:
        sha = _git("rev-parse", "HEAD")
        return sha + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def finished_run(outputs: Path, name: str, content: str) -> Path | None:
    """The newest finished run of an experiment with the same content hash."""
    found = (outputs / name).glob("**/summary.json")
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            summary = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError):
            continue
        if summary.get("config_hash") == content and newest_checkpoint(path.parent):
            return path.parent
    return None


def newest_checkpoint(run: Path, kind: Literal["step", "best"] = "step") -> Path | None:
    """The newest whole checkpoint of a run; by time of writing, because a folder may be used by one run after another."""
    found = [path for path in (run / CHECKPOINTS).glob(f"{kind}-*/state.pt") if path.parent.suffix != ".part"]
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()
