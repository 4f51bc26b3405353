"""One evaluation from configuration to report: the benchmark, a model or stored answers, scores, the best constant answer."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf

from spatial_lightning.evaluation import Summary, majority_answers, summarise, table
from spatial_lightning.evaluation.metrics import figures_table
from spatial_lightning.evaluation.protocols import General, Judged, Protocol
from spatial_lightning.runs.answering import Answered, said, write_samples
from spatial_lightning.runs.benchmarks import Benchmark, Opened
from spatial_lightning.runs.build import build, plain
from spatial_lightning.runs.chat import Chat
from spatial_lightning.runs.config import CONF, ConfigError, resolve_path
from spatial_lightning.runs.directory import config_hash, git_sha, write_config, write_summary
from spatial_lightning.runs.evaluated import Evaluated, load_evaluated
from spatial_lightning.runs.generating import AnswerBatch, answer_all, by_transformers, require_askable
from spatial_lightning.runs.judging import with_progress
from spatial_lightning.runs.lmms import LmmsTasks, run_lmms
from spatial_lightning.runs.loggers import finish_loggers, make_loggers
from spatial_lightning.runs.placeholders import NOTE
from spatial_lightning.runs.predictions import PREDICTIONS, Journal, read_predictions
from spatial_lightning.runs.progress import clock
from spatial_lightning.runs.report import write_evaluation_report
from spatial_lightning.runs.tracking import log_finished
from spatial_lightning.runs.unfinished import claim, identity_of, leave, leave_fresh
from spatial_lightning.runs.vllm_engine import by_vllm, require_vllm

CONSTANT, ANSWER = "best constant answer", "answer"
"""Columns of the table; samples hold the second only."""
_ANYWHERE = ("run", "device", "batch_size", "share")
"""Keys that do not change what is asked or answered."""


@dataclass
class _Given:
    """Answers and what they are from.

    Attributes:
        facts: entries of ``summary.json``.
        notes: what a reader of the report has to know.
    """

    run: Path
    answers: list[str]
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def evaluate_benchmark(
    config: DictConfig,
    fresh: Path,
    say: Callable[[str], None],
    *,
    claimed: Callable[[Path], None] = lambda run: None,
) -> Path:
    """Answer a benchmark, or score stored answers, and leave everything about it in a run directory.

    Args:
        fresh: directory of a new run; left out where an unfinished one goes on.
        claimed: told the run directory as soon as it is known, so that an error after that is written there.

    Returns:
        The run directory.

    Raises:
        ConfigError: nothing to evaluate, or a checkpoint that does not fit what is asked for.
        RecordError: too many rows of the benchmark or of the stored answers cannot be used.
    """
    began = time.monotonic()
    benchmark = _benchmark(config)
    L.seed_everything(config.seed, workers=True, verbose=False)
    if isinstance(benchmark, LmmsTasks):
        evaluated = load_evaluated(config)
        run = resolve_path(config.run) if config.run else fresh
        write_config(run, config)
        claimed(run)
        facts = _facts(config, evaluated)
        leave_fresh(fresh, run)
        return run_lmms(benchmark, evaluated, run, facts, began=began, limit=config.limit, say=say)
    opened = benchmark.open(
        resolve_path(config.cache), max_bad_fraction=config.max_bad_fraction, say=say, placeholders=config.placeholders
    )
    warned = len(opened.version["warnings"])
    opened = opened.at_most(config.limit)
    for warning in opened.version["warnings"][warned:]:
        say(f"warning: {warning}")
    (benchmark.protocol or General()).check(opened.scored)
    try:
        given = (_stored if config.predictions else _generated)(config, benchmark, opened, fresh, say, claimed)
        _conclude(config, benchmark, opened, given, began, say)
    finally:
        leave()
    return given.run


def _benchmark(config: DictConfig) -> Benchmark | LmmsTasks:
    """The benchmark, once what can be known without reading anything is known to fit."""
    if config.benchmark is None:
        names = ", ".join(sorted(path.stem for path in (CONF / "benchmark").glob("*.yaml")))
        raise ConfigError(f"benchmark is missing: benchmark=NAME, one of {names}")
    if config.engine not in ("transformers", "vllm"):
        raise ConfigError(f"engine is {config.engine!r}; allowed: transformers, vllm")
    if config.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {config.max_new_tokens}; it must be at least 1")
    if not 0 <= config.max_bad_fraction <= 1:
        raise ConfigError(f"max_bad_fraction is {config.max_bad_fraction}; it is a share, from 0 to 1")
    if config.predictions and (config.checkpoint or config.backbone):
        raise ConfigError("predictions=FILE are answers that are there already: leave checkpoint and backbone out")
    if config.engine == "vllm" and not config.predictions:
        require_vllm()
    benchmark = build(config.benchmark)
    if not isinstance(benchmark, Benchmark | LmmsTasks):
        raise ConfigError(f"benchmark is a {type(benchmark).__name__}; see conf/benchmark for what it may be")
    if isinstance(benchmark, LmmsTasks):
        if config.predictions:
            raise ConfigError("benchmark=lmms asks the questions itself: give checkpoint=..., not predictions=...")
        if config.judge:
            raise ConfigError("benchmark=lmms scores the answers itself: leave judge out")
        return benchmark
    if config.judge is None:
        if config.judge_always:
            raise ConfigError("judge_always=true needs a judge: judge=chat judge.base_url=URL judge.model=NAME")
        return benchmark
    judge: Chat = build(config.judge)
    judge = replace(judge, cache=None if judge.cache is None else resolve_path(judge.cache))
    protocol = Judged(benchmark.protocol or General(), judge, config.judge_always)
    return replace(benchmark, protocol=protocol)


def _facts(config: DictConfig, evaluated: Evaluated) -> dict[str, Any]:
    return {
        "experiment": evaluated.experiment,
        "backbone": evaluated.backbone.path,
        "seed": evaluated.seed,
        "checkpoint": None if evaluated.checkpoint is None else str(evaluated.checkpoint),
        "pixel_limits": list(evaluated.backbone.processor.pixel_limits or ()) or None,
        "engine": config.engine,
        "system": evaluated.system,
        "max_new_tokens": config.max_new_tokens,
        "config_hash": _hash(config),
    }


def _generated(
    config: DictConfig,
    benchmark: Benchmark,
    opened: Opened,
    fresh: Path,
    say: Callable[[str], None],
    claimed: Callable[[Path], None],
) -> _Given:
    """A model's answers; those that an unfinished run of the same content has are taken over."""
    evaluated = load_evaluated(config)
    asked = [(images, benchmark.put(question)) for images, question in opened.asked]
    require_askable(asked, evaluated)
    identity = identity_of(config, benchmark, opened, evaluated)
    run = claim(config, fresh, identity, say)
    claimed(run)
    write_config(run, config)
    (run / "error.txt").unlink(missing_ok=True)
    journal = Journal(run / PREDICTIONS)
    there = len(journal.answers)
    if there:
        say(f"going on with {run}: {there} of {len(asked)} answers are there")
    answers = answer_all(asked, journal, _answerer(config, evaluated, run, say), batch_size=config.batch_size, say=say)
    notes = [f"{there} of the answers are from before the run was stopped"] if 0 < there < len(asked) else []
    return _Given(run, answers, _facts(config, evaluated), notes)


def _answerer(config: DictConfig, evaluated: Evaluated, run: Path, say: Callable[[str], None]) -> AnswerBatch:
    if config.engine == "vllm":
        return by_vllm(evaluated, run, max_new_tokens=config.max_new_tokens)
    return by_transformers(
        evaluated, max_new_tokens=config.max_new_tokens, share=config.share, device=config.device, say=say
    )


def _stored(
    config: DictConfig,
    benchmark: Benchmark,
    opened: Opened,
    fresh: Path,
    say: Callable[[str], None],
    claimed: Callable[[Path], None],
) -> _Given:
    """Answers from a file; a question that has none there has an empty one."""
    path = resolve_path(config.predictions)
    ids = [question.id for _, question in opened.asked]
    found, bad, said_of_file = read_predictions(path, ids, config.max_bad_fraction, opened.beyond)
    run = resolve_path(config.run) if config.run else fresh
    if any((run / name).exists() for name in ("summary.json", PREDICTIONS)):
        raise ConfigError(f"run={run} holds an evaluation already: give a new directory, or leave run out")
    write_config(run, config)
    claimed(run)
    leave_fresh(fresh, run)
    journal = Journal(run / PREDICTIONS)
    journal.append([identity for identity in ids if identity in found], [found[i] for i in ids if i in found])
    notes = [f"answers are from {path}", *said_of_file, *(f"{kind}: {count}" for kind, count in bad.reasons.items())]
    for warning in (*said_of_file, *bad.places[:20]):
        say(f"warning: {warning}")
    unknown = dict.fromkeys(("backbone", "checkpoint", "pixel_limits", "engine", "system", "max_new_tokens"))
    facts = {**unknown, "experiment": path.stem, "seed": config.seed, "predictions": str(path)}
    answers = [found.get(identity, "") for identity in ids]
    return _Given(run, answers, {**facts, "config_hash": _hash(config), "unused": dict(bad.reasons)}, notes)


def _conclude(
    config: DictConfig,
    benchmark: Benchmark,
    opened: Opened,
    given: _Given,
    began: float,
    say: Callable[[str], None],
) -> None:
    protocol = benchmark.protocol or General()
    texts = [said(text) for text in given.answers]
    summary = summarise(opened.scored, texts, with_progress(protocol, opened.scored, texts, say))
    constant, notes = _constant(opened, protocol, say)
    write_samples(given.run, opened.asked, {ANSWER: Answered(given.answers, summary)})
    metrics = {**summary.figures, **summary.metrics()}
    wall = time.monotonic() - began
    reasons = {f"left out: {kind}": count for kind, count in opened.bad.reasons.items()}
    write_summary(
        given.run,
        {
            **given.facts,
            "git_sha": git_sha(),
            "benchmark": benchmark.name,
            "benchmark_version": {**opened.version, **reasons},
            "prompt": benchmark.prompt,
            "judge": None if config.judge is None else str(config.judge.model),
            "placeholders": bool(opened.version["placeholders"]),
            "metrics": metrics,
            "figures": dict(summary.figures),
            "rules": dict(summary.rules),
            "baseline": {} if constant is None else {CONSTANT: constant.metrics()},
            "wall_s": wall,
            "command": shlex.join(["python", *sys.argv]),
        },
    )
    log_results(config, given.run, metrics)
    columns = {ANSWER: summary} if constant is None else {CONSTANT: constant, ANSWER: summary}
    results = f"{table(columns)}\n{figures_table(columns)}"
    conclusion = _conclusion(benchmark, opened, summary, constant)
    notes += [*given.notes, *opened.version["warnings"], *(f"{reason}: {n}" for reason, n in reasons.items())]
    write_evaluation_report(given.run, table=results, conclusion=conclusion, notes=notes)
    say(f"\n{results}\n{conclusion}\n{clock(wall)} in all; report: {given.run / 'report.md'}")


def _constant(opened: Opened, protocol: Protocol, say: Callable[[str], None]) -> tuple[Summary | None, list[str]]:
    """What the best constant answer to each kind scores, chosen on these very questions, and why there may be none."""
    try:
        texts = majority_answers(opened.scored, opened.scored, protocol)
        return summarise(opened.scored, texts, with_progress(protocol, opened.scored, texts, say)), []
    except ValueError as error:
        return None, [f"no {CONSTANT}: {error}"]


def _conclusion(benchmark: Benchmark, opened: Opened, summary: Summary, constant: Summary | None) -> str:
    overall = summary.overall
    low, high = overall.interval
    headline = next(iter(summary.figures.items()), ("accuracy", overall.accuracy))
    text = f"{benchmark.name}: "
    if headline[0] != "accuracy":
        text += f"{headline[0]} {headline[1]:.4f}; "
    text += f"{100 * overall.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {overall.n} answers are right"
    if constant is not None:
        text += f"; the {CONSTANT} to each kind, chosen on these questions: {100 * constant.overall.accuracy:.1f} %"
    text += f"; {100 * overall.unparsed_share:.1f} % could not be read and count as wrong"
    return f"{text}. {NOTE.capitalize()}." if opened.version["placeholders"] else f"{text}."


def log_results(config: DictConfig, run: Path, metrics: dict[str, float]) -> None:
    """Send figures to the loggers of the configuration."""
    name = f"evaluate/{config.benchmark.name}"
    loggers = make_loggers(run, plain(config.logger), {**plain(config), "name": name}, job_type="evaluate")
    try:
        for logger in loggers:
            logger.log_metrics({f"eval/{key}": value for key, value in metrics.items()}, step=0)
            logger.save()
        log_finished(loggers, run)
    finally:
        finish_loggers(loggers)


def _hash(config: DictConfig) -> str:
    return config_hash(OmegaConf.masked_copy(config, [str(key) for key in config if key not in _ANYWHERE]))
