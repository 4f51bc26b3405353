"""Finished runs as a comparison needs them: settings, verdicts question by question, curves; and why others are left out."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from spatial_lightning.records import BadRows
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.runs.curves import Curve, read_curves
from spatial_lightning.runs.directory import CHECKPOINTS
from spatial_lightning.runs.samples import Sample, read_samples

_HOW = ("run", "device", "batch_size", "share")
NOT_CONTENT = ("outputs", "cache", "logger", "export", "resume", "inspect", "redo", "isolate", *_HOW)
"""Run-level keys that do not change what is learned or asked."""
_NESTED = ("metrics", "figures", "baseline", "benchmark_version", "unused")
_MOST_PLACES = 5
"""Unreadable rows that are named."""
_LONGEST_REASON = 500
_PASSED_OVER = {CHECKPOINTS, "wandb", "plots", "compare", "doctor", "export"}


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training or evaluation run.

    Attributes:
        path: its directory.
        summary: ``summary.json``.
        settings: the resolved configuration by dotted key, without seed, paths and logging; of an evaluation run also
            that of the training run whose checkpoint it asked, with ``trained.`` before its keys.
        seeds: whatever a key named ``seed`` says, by dotted key: part of the settings unless it follows the run's seed.
        seed: of the training run, where the run evaluates one.
        name: of the experiment.
        answers: by question (:func:`question_key`), with the run's result as last column.
        column: name of that last column.
        curves: what was logged, by name.
        missing: questions without a verdict: rows of ``samples.jsonl`` that cannot be read or were not judged.
        problems: what a reader has to know about it, in words.
    """

    path: Path
    summary: Mapping[str, Any]
    settings: Mapping[str, Any]
    seeds: Mapping[str, Any]
    seed: int
    name: str
    answers: Mapping[str, Sample]
    column: str
    curves: Mapping[str, Curve]
    missing: int = 0
    problems: tuple[str, ...] = ()

    @property
    def benchmark(self) -> str:
        """The benchmark, or of a training run the corpus, that its questions are from."""
        return str(self.summary.get("benchmark") or self.summary.get("corpus") or "unnamed questions")

    @property
    def questions(self) -> str:
        """Digest of what was asked: equal for runs that answered the same questions."""
        return hashlib.blake2b("\0".join(sorted(self.answers)).encode(), digest_size=8).hexdigest()

    def right(self, question: str) -> bool:
        """Whether the run's result answers a question right."""
        return self.answers[question].correct[self.column]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run directory that cannot be compared, and the reason in words."""

    path: Path
    reason: str


def find_runs(given: str | Sequence[str]) -> list[Path]:
    """Run directories that paths, folders of runs (a sweep) and patterns stand for, sorted, each once.

    Raises:
        ConfigError: something given does not exist or holds no run.
    """
    found: set[Path] = set()
    for text in [given] if isinstance(given, str) else given:
        path = resolve_path(text)
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)] if glob.has_magic(text) else [path]
        matches = [match for match in matches if match.is_dir()]
        own = {run.resolve() for match in matches for run in _below(match)}
        if not own:
            what = (
                "holds no run directory"
                if matches
                else "matches no directory"
                if glob.has_magic(text)
                else "is no directory"
            )
            raise ConfigError(
                f"runs={text}: {path} {what}; give run directories, folders of them (a sweep) or patterns, "
                "e.g. runs=[outputs/NAME/TIME,outputs/OTHER/TIME] or runs=outputs/SWEEP/TIME"
            )
        found |= own
    return sorted(found)


def read_run(path: Path) -> Run | LeftOut:
    """One run directory, or why it cannot be compared."""
    summary = _json(path / "summary.json")
    if summary is None:
        return LeftOut(path, _why_unfinished(path))
    if odd := [key for key in _NESTED if not isinstance(summary.get(key) or {}, Mapping)]:
        return LeftOut(path, f"finished, but {odd[0]!r} in summary.json does not hold figures by name")
    config = _yaml(path / "config.yaml")
    problems: list[str] = []
    if not config:
        problems.append("config.yaml is missing or cannot be read, so its settings are unknown")
    bad = BadRows()
    rows = read_samples(path / "samples.jsonl", bad)
    if not rows:
        missing = "holds no answers" if (path / "samples.jsonl").is_file() else "is missing"
        return LeftOut(path, f"finished, but samples.jsonl {missing}")
    column = list(rows[0].answers)[-1] if rows[0].answers else ""
    judged = [row for row in rows if column in row.correct]
    if not judged:
        return LeftOut(path, f"finished, but no answer in column {column!r} of samples.jsonl was judged")
    if bad.bad:
        more = f"; and {bad.bad - _MOST_PLACES} more" if bad.bad > _MOST_PLACES else ""
        problems.append(
            f"{bad.bad} of {bad.bad + bad.good} rows of samples.jsonl cannot be read and do not count "
            f"({'; '.join(bad.places[:_MOST_PLACES])}{more})"
        )
    if len(judged) < len(rows):
        problems.append(f"{len(rows) - len(judged)} of {len(rows)} answers were not judged and do not count")
    problems += _disagreement(summary, judged, column)
    if not summary.get("benchmark") and not (path / "metrics.csv").is_file():
        problems.append("metrics.csv is missing, so its curves are not drawn")
    try:
        curves = read_curves(path / "metrics.csv")
    except ValueError as error:
        curves = {}
        problems.append(f"metrics.csv cannot be read ({error})")
    trained = _trained(summary)
    # Where questions were read from does not matter among runs that answered the same ones.
    settings = {key: value for key, value in flatten(config).items() if not key.startswith("benchmark.reader.")}
    seed = trained.get("seed", summary.get("seed", config.get("seed")))
    if not _is_whole(seed):
        given = "states no seed" if seed is None else f"has seed {seed!r}, which is no whole number"
        problems.append(f"{given}, so seed 0 is assumed")
    if trained:
        settings.pop("checkpoint", None)
        settings |= {f"trained.{key}": value for key, value in flatten(trained).items()}
    if config.get("warm_start"):
        settings["warm_start"] = _start(str(config["warm_start"]))
    return Run(
        path=path,
        summary=summary,
        settings={key: value for key, value in settings.items() if not _is_seed(key)},
        seeds={key: value for key, value in settings.items() if _is_seed(key)},
        seed=seed if _is_whole(seed) else 0,
        name=str(trained.get("name") or summary.get("experiment") or config.get("name") or path.name),
        answers=dict(_keyed(judged)),
        column=column,
        curves=curves,
        missing=bad.bad + len(rows) - len(judged),
        problems=tuple(problems),
    )


def by_text(said: Iterable[tuple[Path, str]]) -> Iterator[str]:
    """Each distinct text once, after the run that it is about, and how many others it is about as well."""
    paths: dict[str, list[Path]] = {}
    for path, text in said:
        paths.setdefault(text.strip().removesuffix("."), []).append(path)
    for text, (first, *others) in paths.items():
        more = f" and {len(others)} other run{'' if len(others) == 1 else 's'}" if others else ""
        yield f"{first}{more}: {text}."


def question_key(row: Sample) -> str:
    """What makes two rows the same question: its words, its true answer and the names of its pictures; not the answers."""
    content = (row.id, row.kind, row.style, row.question, row.answer, row.options, [path.name for path in row.images])
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=10).hexdigest()


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, without the keys of :data:`NOT_CONTENT` and the run's seed; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and (key in NOT_CONTENT or key == "seed"):
            continue
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _below(folder: Path) -> Iterator[Path]:
    """Run directories at or below a folder: those with a summary, an error or a training's configuration."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _PASSED_OVER)
        path = Path(place)
        if path.name in _PASSED_OVER or "doctor.json" in files or "comparison.md" in files:
            folders.clear()
        elif {"summary.json", "error.txt"} & set(files) or ("config.yaml" in files and "data.html" not in files):
            folders.clear()
            yield path


def _why_unfinished(path: Path) -> str:
    if (path / "summary.json").exists():
        return "summary.json cannot be read"
    errors = sorted(path.glob("error*.txt"))
    if not errors:
        return "unfinished: neither summary.json nor error.txt, so it still runs or was killed"
    # The error itself is the first line after the last traceback that is not indented.
    text = errors[0].read_text(encoding="utf-8", errors="replace").rpartition("Traceback (most recent call last):")[2]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    if not lines:
        return "failed, and error.txt is empty"
    said = lines[0].strip()
    if said.endswith(":"):  # what is wrong follows in the next lines
        said = " ".join(text[text.index(lines[0]) :].split())
    return f"failed: {said if len(said) <= _LONGEST_REASON else f'{said[:_LONGEST_REASON]} …'}"


def _disagreement(summary: Mapping[str, Any], rows: Sequence[Sample], column: str) -> list[str]:
    stated = (summary.get("metrics") or {}).get("accuracy")
    if not isinstance(stated, int | float):
        return ["summary.json states no accuracy, so the verdicts of samples.jsonl could not be checked against it"]
    counted = sum(row.correct[column] for row in rows) / len(rows)
    if abs(stated - counted) > 1e-6:
        return [
            f"summary.json states {100 * stated:.1f} % right, samples.jsonl holds {100 * counted:.1f} %, which counts"
        ]
    return []


def _keyed(rows: Sequence[Sample]) -> Iterator[tuple[str, Sample]]:
    """Rows by question; one that a corpus asks twice counts twice."""
    times: dict[str, int] = {}
    for row in rows:
        key = question_key(row)
        times[key] = times.get(key, 0) + 1
        yield (key if times[key] == 1 else f"{key}-{times[key]}"), row


def _trained(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration of the training run whose checkpoint an evaluation run asked; empty where there is none."""
    return _config_above(str(summary["checkpoint"])) if summary.get("checkpoint") else {}


def _start(given: str) -> str:
    """A warm start by what it is, not where it lies, so that seeds that each start from their own one stay together."""
    config = _config_above(given)
    if not config:
        return given
    content = {key: value for key, value in flatten(config).items() if not _is_seed(key)}
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=3).hexdigest()
    return f"{config.get('name', 'run')} ({digest})"


def _config_above(given: str) -> dict[str, Any]:
    path = resolve_path(given)
    return next((own for place in (path, *path.parents[:2]) if (own := _yaml(place / "config.yaml"))), {})


def _is_seed(key: str) -> bool:
    return re.split(r"[._]", key)[-1] == "seed"


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
