"""One run from configuration to report: corpus, warm start, baseline answers, training, answers, comparison."""

from __future__ import annotations

import contextlib
import resource
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import format_report
from spatial_lightning.data import TreeDataModule
from spatial_lightning.evaluation import Summary, compare, majority_baseline, table
from spatial_lightning.locks import locked
from spatial_lightning.modules import FineTuner
from spatial_lightning.modules.sharding import FSDP2Strategy
from spatial_lightning.runs.answerers import answerer
from spatial_lightning.runs.answering import (
    AnswerDuringTraining,
    Answered,
    Asked,
    Evaluation,
    by_family,
    choose,
    evaluate,
    write_samples,
)
from spatial_lightning.runs.build import build, build_backbone, plain
from spatial_lightning.runs.checkpoints import AtomicCheckpointIO, Checkpoints, checkpoint_of, load_weights
from spatial_lightning.runs.combinations import require_fitting
from spatial_lightning.runs.config import AUTO, ConfigError, compose_run, resolve_path
from spatial_lightning.runs.corpus_files import CorpusFiles
from spatial_lightning.runs.directory import (
    CHECKPOINTS,
    config_hash,
    finished_run,
    git_sha,
    write_config,
    write_summary,
)
from spatial_lightning.runs.engines import ensure_engines_agree
from spatial_lightning.runs.export import export_run, require_free
from spatial_lightning.runs.identity import identity_of, read_identity, require_same
from spatial_lightning.runs.launch import ranks_of, require_devices
from spatial_lightning.runs.loggers import finish_loggers, make_loggers
from spatial_lightning.runs.memory import MemoryReport
from spatial_lightning.runs.mixed import ENCODING, MixedFiles, build_data, kinds_of, prepare_data
from spatial_lightning.runs.progress import Progress, clock
from spatial_lightning.runs.report import write_report
from spatial_lightning.runs.resuming import keep_rows, logged_rows, own_checkpoint
from spatial_lightning.runs.rollouts import Arena, arena_of
from spatial_lightning.runs.stopping import StopEarly, require_validation
from spatial_lightning.runs.tracking import log_finished

_TRAINS_ON = {
    "SFTModule": {"questions": "spatialvlm", "traces": "traces", "preferences": "preferences"},
    "OfflineRLModule": {"traces": "traces"},
}
"""Kinds of corpora that an objective takes, each with its data option; others take preferences."""


@dataclass
class _Parts:
    """What a run is made of."""

    backbone: Backbone
    data: TreeDataModule[Any]
    module: FineTuner
    files: CorpusFiles | MixedFiles
    asked: list[Asked]
    evaluation: Evaluation
    warm_start: Path | None
    arena: Arena | None = None


def train(config: DictConfig, run: Path) -> Path:
    """Run one training job and leave everything about it in ``run``.

    Returns:
        The run directory.

    Raises:
        ConfigError: an invalid combination, refused before anything is loaded.
    """
    began = time.monotonic()
    check(config)
    write_config(run, config)
    L.seed_everything(config.seed, workers=True, verbose=False)
    parts = _assemble(config)
    say(format_report(parts.module.tower_report))
    earlier = logged_rows(run)
    loggers = make_loggers(run, plain(config.logger), plain(config))
    try:
        memory = MemoryReport(say)
        trainer = _trainer(config, run, loggers, parts, memory)
        resume = _resume(config, run, trainer, parts)
        if resume is not None and config.resume == AUTO:
            keep_rows(loggers, earlier, resume)
        questions = by_family(parts.asked)
        majority = majority_baseline(by_family(parts.files.questions("train")), questions)
        say(f"answering {len(questions)} held-out questions before training")
        before = _answer(parts, trainer)
        _log(loggers, before, 0)
        with memory.explaining():
            trainer.fit(parts.module, parts.data, ckpt_path=resume and str(resume), weights_only=True)
        parts.data.teardown("fit")
        say(f"answering {len(questions)} held-out questions after training")
        after = _answer(parts, trainer)
        _log(loggers, after, trainer.global_step)
        answered = {"warm start": before, "after": after}
        write_samples(run, parts.asked, answered)
        _conclude(config, run, parts, trainer, majority, answered, began)
        log_finished(loggers, run, say)
        if config.export and trainer.is_global_zero:
            say(f"exported to {export_run(run, resolve_path(config.export))}")
    finally:
        finish_loggers(loggers)
    return run


def check(config: DictConfig) -> None:
    """Refuse combinations that cannot work, before anything is loaded.

    Raises:
        ConfigError: what does not go together and what to change.
    """
    objective, kinds = plain(config.objective), kinds_of(config)
    name = str(objective.get("_target_", "")).rsplit(".", 1)[-1]
    wanted = _TRAINS_ON.get(name, {"preferences": "preferences"})
    if not kinds <= set(wanted):
        raise ConfigError(
            f"objective {name} trains on {' or '.join(wanted)}, data.corpus.kind is {', '.join(sorted(kinds))}: choose "
            f"data={' or '.join(wanted.values())}, or another objective"
        )
    if str(config.trainer.get("precision")) == "16-true":
        raise ConfigError(
            "trainer.precision=16-true keeps the weights themselves in half precision, where small steps round to nothing: "
            "choose 16-mixed, bf16-mixed, bf16-true or 32-true"
        )
    require_fitting(config)
    require_devices(config)
    require_validation(config)
    if config.evaluation.get("guidance") and objective.get("kind") != "ilql":
        raise ConfigError(
            f"evaluation.guidance={config.evaluation.guidance} needs values of tokens, which only objective=ilql learns: "
            "set it to 0"
        )
    if config.export:
        require_free(resolve_path(config.export))
    if objective.get("shuffle_segments") and objective.get("segment_context") == "independent":
        raise ConfigError("objective.shuffle_segments needs objective.segment_context=single_pass")


def _assemble(config: DictConfig) -> _Parts:
    cache = resolve_path(config.cache)
    objective = {key: value for key, value in plain(config.objective).items() if key not in ENCODING}
    evaluation = Evaluation(**plain(config.evaluation))
    warm_start = _warm_start(config)
    files = prepare_data(config, cache, say=say)
    backbone = build_backbone(config)
    if warm_start is not None:
        load_weights(backbone, warm_start)
        say(f"warm start: {warm_start}")
    ensure_engines_agree(backbone, say)
    module = build(
        objective,
        backbone=backbone,
        towers=build(config.towers),
        optimization=build(config.optimization),
        reference=config.reference.kind,
        cache_folder=cache / "reference",
    )
    data = build_data(config, backbone.processor, files)
    data.pack_keys = config.reference.kind == "cached"
    asked = choose(files.questions("val"), evaluation)
    return _Parts(backbone, data, module, files, asked, evaluation, warm_start, _arena(config, cache, files))


def _arena(config: DictConfig, cache: Path, files: CorpusFiles | MixedFiles) -> Arena | None:
    return arena_of(build(config.data.corpus), cache, files) if isinstance(files, CorpusFiles) else None


def _warm_start(config: DictConfig) -> Path | None:
    """The run to start from: a run directory, or an experiment's finished run, trained first if there is none."""
    if config.warm_start is None:
        return None
    path = resolve_path(config.warm_start)
    if path.is_dir():
        checkpoint_of(path)
        return path
    theirs = compose_run([f"+experiment={config.warm_start}"])
    theirs.outputs, theirs.cache = config.outputs, config.cache
    outputs = resolve_path(config.outputs)
    theirs.resume = AUTO
    content = config_hash(theirs)
    found = finished_run(outputs, theirs.name, content)
    if found is None and ranks_of(config) > 1:
        raise ConfigError(
            f"warm start {config.warm_start} has no finished run of the same content, and the processes of this run cannot "
            f"train it on the side: train it first, python train.py +experiment={config.warm_start}"
        )
    if found is None:
        own = outputs / theirs.name / f"warm_start-{content}"
        # Of jobs that need it at once, one trains it and the others wait.
        with locked(own / ".lock", say):
            found = finished_run(outputs, theirs.name, content)
            if found is None:
                say(f"warm start {config.warm_start} has no finished run of the same content: training it first")
                found = train(theirs, own)
    return found


def _trainer(config: DictConfig, run: Path, loggers: list[Any], parts: _Parts, memory: MemoryReport) -> L.Trainer:
    callbacks = [
        memory,
        Progress(say),
        AnswerDuringTraining(
            parts.asked, parts.evaluation, lambda metrics: _log_metrics(loggers, metrics, trainer), parts.arena
        ),
        *([StopEarly(say, **plain(config.early_stopping))] if config.early_stopping.patience is not None else []),
        Checkpoints(run / CHECKPOINTS, parts.evaluation.checkpoint_every),
    ]
    trainer = build(
        config.trainer,
        logger=loggers,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    return trainer


def _resume(config: DictConfig, run: Path, trainer: L.Trainer, parts: _Parts) -> Path | None:
    """The checkpoint to go on from, once it is known to be of the same run; checkpoints from now on say what they are of."""
    identity = identity_of(config, parts.backbone, parts.files, parts.warm_start, trainer.world_size)
    io = trainer.strategy.checkpoint_io
    assert isinstance(io, AtomicCheckpointIO)
    io.identity = identity
    if config.resume is None:
        return None
    if config.resume == AUTO:
        return None if config.redo else own_checkpoint(run, identity, say)
    checkpoint = checkpoint_of(resolve_path(config.resume))
    require_same(read_identity(checkpoint), identity, checkpoint)
    return checkpoint


def _answer(parts: _Parts, trainer: L.Trainer) -> Answered:
    """Answers on the device that trains, where the weights are not yet or no longer outside of fitting."""
    if not isinstance(trainer.strategy, FSDP2Strategy):
        parts.backbone.to(trainer.strategy.root_device)
    return evaluate(answerer(parts.module, parts.evaluation.guidance), parts.asked, parts.evaluation, parts.arena)


@rank_zero_only
def _conclude(
    config: DictConfig,
    run: Path,
    parts: _Parts,
    trainer: L.Trainer,
    majority: Summary,
    answered: dict[str, Answered],
    began: float,
) -> None:
    before, after = answered["warm start"].summary, answered["after"].summary
    columns = {"majority baseline": majority, "warm start": before, "after": after}
    images = [str(paths) for paths, _ in parts.asked]
    comparison = compare(before.correct, after.correct, groups=images, seed=config.seed)
    wall = time.monotonic() - began
    metrics = answered["after"].metrics() | {
        name.replace("/", "_"): float(value) for name, value in trainer.callback_metrics.items() if "val/" in name
    }
    write_summary(
        run,
        {
            "experiment": config.name,
            "objective": str(config.objective["_target_"]).rsplit(".", 1)[-1],
            "backbone": str(config.backbone.path),
            "corpus": parts.files.name,
            "seed": config.seed,
            "git_sha": git_sha(),
            "config_hash": config_hash(config),
            "metrics": metrics,
            "baseline": {
                "majority": columns["majority baseline"].metrics(),
                "warm_start": answered["warm start"].metrics(),
                "difference": comparison.difference,
                "difference_low": comparison.low,
                "difference_high": comparison.high,
            },
            "throughput": _throughput(parts.module),
            "wall_s": wall,
            "steps": trainer.global_step,
            "warm_start": None if parts.warm_start is None else str(parts.warm_start),
            "command": shlex.join(["python", *sys.argv]),
            "pixel_limits": list(parts.backbone.processor.pixel_limits or ()) or None,
            "dropped": dict(parts.data.dropped),
        },
    )
    results = table(columns)
    conclusion = comparison.conclusion
    notes = [*parts.files.notes, *(f"left out {count}: {reason}" for reason, count in parts.data.dropped.items())]
    games = [f"{name}: {own.rollouts.report()}" for name, own in answered.items() if own.rollouts is not None]
    towers = format_report(parts.module.tower_report)
    write_report(run, table=results, conclusion=conclusion, towers=towers, notes=[*notes, *games])
    results = "\n".join((results, *games, conclusion))
    say(f"\n{results}\n{clock(wall)} in all; report: {run / 'report.md'}")


def _throughput(module: FineTuner) -> dict[str, float]:
    seconds = max(module.training_seconds, 1e-9)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    return {
        "tokens_per_s": module.tokens_timed / seconds,
        "examples_per_s": module.examples_timed / seconds,
        "peak_memory_gb": peak,
    }


def _log(loggers: list[Any], answered: Answered, step: int) -> None:
    for logger in loggers:
        logger.log_metrics(answered.metrics("eval/"), step=step)
        logger.save()


def _log_metrics(loggers: list[Any], metrics: dict[str, float], trainer: L.Trainer) -> None:
    say(f"step {trainer.global_step}: accuracy {100 * metrics['eval_part/accuracy']:.1f} % on a part of the questions")
    for logger in loggers:
        logger.log_metrics(metrics, step=trainer.global_step)


@rank_zero_only
def say(text: str) -> None:
    """Print one message at once, so that it is seen in a log file while the run goes on; the first process does."""
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)
