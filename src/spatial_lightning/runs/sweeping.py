"""A sweep as a whole: where its jobs live, so that the same command finds them again, and the record of how they went."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from spatial_lightning.locks import locked
from spatial_lightning.runs.config import AUTO, CONF, ConfigError, compose_run, register, require_known, resolve_path
from spatial_lightning.runs.directory import NOT_CONTENT, SWEEP_RECORD, config_hash, write_text
from spatial_lightning.runs.optuna_search import RANGES, first_trial
from spatial_lightning.runs.progress import clock

_LONGEST = 80
"""Characters of a job directory's name that are for people to read."""
_NEEDS = {"submitit": "cluster", "joblib": "sweep", "optuna": "sweep"}
"""Packages behind launchers and sweepers, each with the extra that brings it."""

Job = dict[str, Any]


def job_directory(name: str, overridden: str, *, _root_: DictConfig) -> str:
    """Name of a job's directory: the experiment, what is overridden, and a hash of the whole configuration."""
    content = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    last = re.sub(r"(^|-)\+*(?:\w+\.)+(?=[a-zA-Z])", r"\1", overridden)  # objective.alpha_0.3 is alpha_0.3
    read = "-".join(filter(None, (name, re.sub(r"[^\w.-]+", "_", _rounded(last)).strip("_"))))
    return f"{read[:_LONGEST]}-{config_hash(content)[:8]}"


# At import, because the processes of a launcher import this and call no `main`.
OmegaConf.register_new_resolver("job_directory", job_directory, replace=True)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A multirun that a command line asks for.

    Attributes:
        folder: directory of the sweep, the same for the same command line.
        jobs: overrides of each job; empty where a sweeper makes them up as it goes.
        total: number of jobs.
        overrides: what Hydra has to be told in addition.
    """

    folder: Path
    jobs: tuple[tuple[str, ...], ...]
    total: int
    overrides: tuple[str, ...]


def plan(arguments: Sequence[str]) -> Sweep | None:
    """The sweep of a command line; None where it asks for one run, or for Hydra's own information.

    The directory is named after the command line's overrides, launcher, cache, outputs and the like left out.

    Raises:
        ConfigError: a launcher or sweeper is not installed, the sweeper cannot take a range of numbers, a range holds no
            number, or a key does not exist.
    """
    flags = {argument for argument in arguments if argument.startswith("-")}
    if flags - {"-m", "--multirun"}:
        return None
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        given = _parsed(parser, [argument for argument in arguments if argument not in flags])
        single = [str(override.input_line) for override in given if not override.is_sweep_override()]
        try:
            config = compose("train", single, return_hydra_config=True)
        except HydraException as error:
            _require_installed(str(error))
            _require_settings(given, single)
            raise
        if not flags and config.hydra.mode is not RunMode.MULTIRUN:
            return None
        for plugin in (config.hydra.launcher, config.hydra.sweeper):
            _require_installed(str(plugin.get("_target_")))
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        own = [override for override in given if not override.is_hydra_override()]
        chosen = {override.get_key_element(): override for override in (*_parsed(parser, params), *own)}
        jobs, total = _jobs(list(chosen.values()), config)
    # Keys are the same in all jobs, and a mistyped one is said as that of a single run is.
    compose_run(jobs[0] if jobs else first_trial(list(chosen.values()), config.hydra.sweeper))
    folder = _folder(config, own, "experiment" in {o.key_or_group for o in chosen.values() if o.is_sweep_override()})
    constant = {override.key_or_group for override in chosen.values() if not override.is_sweep_override()}
    quoted = ",".join(f"'{key}'" for key in sorted({*constant, "experiment", "resume"}))
    overrides = [f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]"]
    if "resume" not in constant:
        overrides.append(f"resume={AUTO}")
    if not config.hydra.sweep.dir:
        overrides.append(f"hydra.sweep.dir='{folder}'")
    else:
        folder = resolve_path(config.hydra.sweep.dir)
    return Sweep(folder, jobs, total, tuple(overrides))


def _jobs(chosen: Sequence[Override], config: DictConfig) -> tuple[tuple[tuple[str, ...], ...], int]:
    trials = config.hydra.sweeper.get("n_trials")
    if trials is not None:
        if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
            raise ConfigError(f"hydra.sweeper.n_trials is {trials}; allowed: a whole number of trials, at least 1")
        return (), trials
    values: list[list[str]] = []
    for override in chosen:
        key = override.get_key_element()
        if override.is_interval_sweep():
            raise ConfigError(
                f"{override.input_line}: a range of real numbers has no end of jobs; list values, or choose "
                "hydra/sweeper=optuna"
            )
        if override.is_sweep_override():
            values.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            values.append([str(override.input_line)])
    total = math.prod(map(len, values))
    if not total:
        raise ConfigError("this sweep has no jobs: one of its lists of values is empty")
    jobs: list[tuple[str, ...]] = [()]
    for options in values:
        jobs = [(*job, option) for job in jobs for option in options]
    return tuple(jobs), total


def _folder(config: DictConfig, own: Sequence[Override], several: bool) -> Path:
    sweep = next((str(override.value()) for override in own if override.key_or_group == "sweep"), None)
    content = sorted(
        str(override.input_line)
        for override in own
        if override.key_or_group != "sweep" and override.key_or_group.split(".")[0] not in NOT_CONTENT
    )
    name = sweep or ("multirun" if several else str(config.name))
    digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=4).hexdigest()
    return resolve_path(config.outputs) / name / digest


def _parsed(parser: OverridesParser, given: Sequence[str]) -> list[Override]:
    try:
        return parser.parse_overrides(list(given))
    except OverrideParseException as error:
        # The first line repeats the override, the last one points to Hydra's grammar.
        reason = (str(error).splitlines()[1:2] or [str(error)])[0].rpartition("': ")[2]
        raise ConfigError(f"{error.override}: {reason}; allowed: {RANGES}") from error


def _require_settings(given: Sequence[Override], single: Sequence[str]) -> None:
    """Refuse settings that the chosen sweeper does not have."""
    own = "hydra.sweeper."
    config = compose("train", [text for text in single if own not in text.partition("=")[0]], return_hydra_config=True)
    names = [override.key_or_group.removeprefix(own) for override in given if override.key_or_group.startswith(own)]
    require_known(
        (name.partition(".")[0] for name in names), map(str, config.hydra.sweeper), "setting of hydra.sweeper"
    )


def _require_installed(text: str) -> None:
    for package, extra in _NEEDS.items():
        plugin = package if package == "optuna" else f"hydra_plugins.hydra_{package}_launcher"
        if package in text.lower() and (find_spec(plugin.split(".")[0]) is None or find_spec(plugin) is None):
            raise ConfigError(f"{package} is not installed: pip install 'spatial-lightning[{extra}]'")


@final
class Record:
    """``sweep.json`` in the directory of a sweep: its jobs, and how each went. Several processes may write it.

    Args:
        folder: directory of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / SWEEP_RECORD

    def begin(self, total: int, command: Sequence[str], *, keep: bool) -> None:
        """Start a record, with the finished jobs of an earlier one where the sweeper does not run through them again."""
        jobs = [job for job in self.jobs() if job["state"] in ("finished", "skipped")] if keep else []
        self._write({"command": shlex.join(["python", *command]), "total": total, "jobs": jobs})

    @rank_zero_only
    def note(self, run: Path, **facts: Any) -> None:
        """Write down facts about the job in a run directory."""
        with locked(self.folder / f".{SWEEP_RECORD}.lock"):
            record = self.read()
            jobs = {job["directory"]: job for job in record["jobs"]}
            jobs[run.name] = {"directory": run.name, **jobs.get(run.name, {}), **facts}
            record["jobs"] = sorted(jobs.values(), key=lambda job: job["job"])
            self._write(record)

    def read(self) -> dict[str, Any]:
        """The record as it is now; empty where there is none."""
        try:
            return json.loads(self.path.read_text())
        except (OSError, json.JSONDecodeError):
            return {"command": "", "total": 0, "jobs": []}

    def jobs(self) -> list[Job]:
        """The jobs that have begun, in order."""
        return self.read()["jobs"]

    def time_left(self) -> str:
        """About how long the rest will take, judging by the jobs that are done; empty where none is."""
        record = self.read()
        walls = [job["wall_s"] for job in record["jobs"] if job["state"] in ("finished", "skipped")]
        done = sum(job["state"] != "running" for job in record["jobs"])
        at_once = max(1, sum(job["state"] == "running" for job in record["jobs"]))
        if not walls:
            return ""
        return f", about {clock((record['total'] - done) * sum(walls) / len(walls) / at_once)} left"

    def conclude(self, say: Callable[[str], None]) -> int:
        """Say how all jobs went; returns the exit code."""
        jobs = self.jobs()
        failed = [job for job in jobs if job["state"] == "failed"]
        say("\n" + "\n".join(self._table(jobs)))
        if failed:
            many = "1 job" if len(failed) == 1 else f"{len(failed)} jobs"
            say(f"{many} failed; the same command tries again:")
            for job in failed:
                say(f"  {self.folder / job['directory']}: {job['reason']}")
        say(f"compare: python compare.py runs={self.folder}\nsweep directory: {self.folder}")
        return 1 if failed or not jobs else 0

    def _table(self, jobs: Sequence[Job]) -> list[str]:
        settings = [_settings(job["overrides"]) for job in jobs]
        keys = list(dict.fromkeys(key for own in settings for key in own))
        keys = [key for key in keys if len({own.get(key) for own in settings}) > 1]
        rows = [["job", *keys, "before", "after", "time", "state"]]
        for job, own in zip(jobs, settings, strict=True):
            before, after = headline(self.folder / job["directory"])
            wall = "" if job.get("wall_s") is None else clock(job["wall_s"])
            rows.append([str(job["job"]), *(own.get(key, "") for key in keys), before, after, wall, job["state"]])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

    def _write(self, record: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(record, indent=1))


def headline(run: Path) -> tuple[str, str]:
    """The first figure of a finished run before and after training, e.g. ``41.0 %``; empty where there is none."""
    try:
        summary = json.loads((run / "summary.json").read_text())
        name, after = next(iter(summary["metrics"].items()))
        return f"{100 * summary['baseline']['warm_start'][name]:.1f} %", f"{100 * after:.1f} %"
    except (OSError, ValueError, LookupError, StopIteration, TypeError):
        return "", ""


def _settings(overrides: Sequence[str]) -> dict[str, str]:
    parts = (override.partition("=") for override in overrides)
    return {key.lstrip("+"): _rounded(value) for key, _, value in parts}


def _rounded(text: str) -> str:
    """The text with long numbers, as a search draws them, in four digits."""
    return re.sub(r"\d+\.\d{5,}(?:e[+-]?\d+)?", lambda number: f"{float(number[0]):.4g}", text)
