"""The run directory: what a run leaves behind, whether it finished or failed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spatial_lightning.runs.config import PROJECT

_NOT_CONTENT = ("outputs", "cache", "logger", "export", "resume")
"""Run-level keys that do not change what is learned."""


def config_hash(config: DictConfig) -> str:
    """Content hash of everything in a configuration that changes what is learned."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    content = {key: value for key, value in content.items() if key not in _NOT_CONTENT}
    return hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def write_config(run: Path, config: DictConfig) -> None:
    """Write the resolved configuration."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", OmegaConf.to_yaml(config, resolve=True))


def write_summary(run: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``, which marks the run as finished."""
    write_text(run / "summary.json", json.dumps(summary, indent=1, default=float))


def write_error(run: Path, error: BaseException) -> None:
    """Write ``error.txt`` with the error and where it came from."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "error.txt", "".join(traceback.format_exception(error)))


def write_text(path: Path, text: str) -> None:
    """Write a file in one step, so that nobody ever reads half of it."""
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
    for path in sorted((outputs / name).glob("**/summary.json"), reverse=True):
        try:
            summary = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError):
            continue
        if summary.get("config_hash") == content and (path.parent / "checkpoints" / "last.ckpt").is_file():
            return path.parent
    return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()
