"""General benchmarks by lmms-eval (arXiv:2407.12772): a checkpoint as a Hugging Face directory, its command line, its results."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.directory import git_sha, write_summary
from spatial_lightning.runs.evaluated import Evaluated
from spatial_lightning.runs.progress import clock
from spatial_lightning.runs.report import write_evaluation_report
from spatial_lightning.runs.vllm_engine import directory_of

_CLASSES = MappingProxyType(
    {
        "qwen2_vl": "qwen2_vl",
        "qwen2_5_vl": "qwen2_5_vl",
        "qwen3_vl": "qwen3_vl",
        "llava": "llava_hf",
        "llava_onevision": "llava_hf",
        "internvl": "internvl_hf",
        "gemma3": "gemma3",
        "glm4v": "glm4v",
    }
)
"""lmms-eval's names of the classes that load a Hugging Face directory of an architecture."""
_TAKES_PIXELS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Classes that resize pictures by bounds of their own unless they are told."""
_INSTALL = "pip install lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval)"


@dataclass(frozen=True)
class LmmsTasks:
    """What lmms-eval is asked to do.

    Attributes:
        tasks: its names of benchmarks, e.g. ``mmmu_val``, ``pope``, ``textvqa_val``.
        model: its name of the model class; null goes by the architecture.
        model_args: further arguments of the class, by name.
        arguments: further arguments of the command line.
        program: what is run; null runs ``python -m lmms_eval`` with this Python.

    Raises:
        ConfigError: no task.
    """

    tasks: Sequence[str]
    name: str = "lmms"
    model: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    program: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tasks, str) or not self.tasks:
            raise ConfigError(f"benchmark.tasks is {self.tasks!r}; give a list, e.g. benchmark.tasks=[mmmu_val,pope]")


def command_of(tasks: LmmsTasks, evaluated: Evaluated, model: Path, output: Path, limit: int | None) -> list[str]:
    """The command line.

    Args:
        model: the Hugging Face directory.
        output: folder for the results.
        limit: questions of each task at most; None asks all.

    Raises:
        ConfigError: lmms-eval is not installed, or no class is known for the architecture.
    """
    if tasks.program is None and importlib.util.find_spec("lmms_eval") is None:
        raise ConfigError(f"benchmark=lmms needs lmms-eval, which is not installed: {_INSTALL}")
    architecture = evaluated.backbone.model.config.model_type
    name = tasks.model or _CLASSES.get(architecture)
    if name is None:
        raise ConfigError(f"no class of lmms-eval is known for {architecture}: name one with benchmark.model=NAME")
    settings = {"pretrained": str(model), **tasks.model_args}
    limits = evaluated.backbone.processor.pixel_limits
    if name in _TAKES_PIXELS and limits is not None:
        settings = {"min_pixels": limits[0], "max_pixels": limits[1], **settings}
    for key, value in settings.items():
        if "," in str(value):
            raise ConfigError(
                f"{key}={value}: lmms-eval cuts its arguments at commas, give a path or value without one"
            )
    program = tasks.program or [sys.executable, "-m", "lmms_eval"]
    options = ["--model", name, "--model_args", ",".join(f"{key}={value}" for key, value in settings.items())]
    options += ["--tasks", ",".join(tasks.tasks), "--batch_size", "1", "--log_samples", "--output_path", str(output)]
    return [*program, *options, *(["--limit", str(limit)] if limit is not None else []), *tasks.arguments]


def read_results(output: Path) -> dict[str, float]:
    """Figures by ``task/metric``, from the newest results file below a folder; standard errors as ``metric_stderr``.

    Raises:
        ConfigError: there is no such file, or it holds no figure.
    """
    files = sorted(output.glob("**/*results.json"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        # It says what went wrong and ends with exit code 0.
        raise ConfigError(f"lmms-eval left no *results.json below {output}: what it said above says why")
    results = json.loads(files[-1].read_text(encoding="utf-8")).get("results") or {}
    figures = {
        f"{task}/{key.removesuffix(',none')}": float(value)
        for task, own in results.items()
        for key, value in own.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    if not figures:
        raise ConfigError(f"{files[-1]} holds no figure: see what lmms-eval said above")
    return figures


def run_lmms(
    tasks: LmmsTasks,
    evaluated: Evaluated,
    run: Path,
    facts: dict[str, Any],
    *,
    began: float,
    limit: int | None,
    say: Callable[[str], None],
) -> Path:
    """Write the model out, run lmms-eval on it and keep its figures in ``summary.json``.

    Raises:
        ConfigError: lmms-eval is not installed, failed, or left no figures.
    """
    output = run / "lmms"
    model = directory_of(evaluated, run, write=False)
    command = command_of(tasks, evaluated, model, output, limit)
    directory_of(evaluated, run)
    say(shlex.join(command))
    code = subprocess.run(command, check=False).returncode
    if code:
        raise ConfigError(f"lmms-eval ended with exit code {code}: what it said above says why")
    figures = read_results(output)
    wall = time.monotonic() - began
    versions = {
        "tasks": list(tasks.tasks),
        "warnings": [] if limit is None else [f"only {limit} questions of each task"],
    }
    write_summary(
        run,
        {
            **facts,
            "git_sha": git_sha(),
            "benchmark": tasks.name,
            "benchmark_version": versions,
            "prompt": "as lmms-eval writes it",
            "placeholders": False,
            "metrics": figures,
            "baseline": {},
            "wall_s": wall,
            "command": shlex.join(["python", *sys.argv]),
            "lmms_eval": command,
        },
    )
    rows = "".join(f"| {name} | {value:.4f} |\n" for name, value in figures.items())
    table = f"| figure | value |\n| :--- | ---: |\n{rows}"
    notes = ["prompts, answers and scores are lmms-eval's; its samples are below lmms/", *versions["warnings"]]
    if evaluated.system:
        notes.append("the system turn of the training run is not put: lmms-eval writes its own")
    conclusion = f"{len(tasks.tasks)} tasks of lmms-eval on {evaluated.experiment}."
    write_evaluation_report(run, table=table, conclusion=conclusion, notes=notes)
    say(f"\n{table}\n{clock(wall)} in all; report: {run / 'report.md'}")
    return run
