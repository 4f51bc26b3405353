"""What runs and comparisons leave on W&B, offline: figures, tables and artifacts, and a run that is always closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wandb
from comparable import asked, write_run
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from spatial_lightning.runs.checkpoints import STATE
from spatial_lightning.runs.comparing import Comparing, compare_runs
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.loggers import finish_loggers, make_loggers, sweep_of, wandb_mode
from spatial_lightning.runs.tracking import final_figures, log_comparison, log_finished


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that W&B writes lies below the test's folder, and nothing is sent."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_places"))


def _log(run: Path) -> bytes:
    """The log of the one offline run below a directory."""
    # Ends the process that writes it, so that all of it is there.
    wandb.teardown()
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    return file.read_bytes()


def _finish(run: Path, **config: Any) -> bytes:
    loggers = make_loggers(run, {"wandb": "offline"}, {"name": "sft"} | config)
    try:
        said: list[str] = []
        log_finished(loggers, run, said.append)
        assert not said
    finally:
        finish_loggers(loggers)
    assert wandb.run is None
    return _log(run)


def test_a_finished_training_leaves_figures_answers_and_where_it_came_from(tmp_path: Path) -> None:
    sweep = tmp_path / "vit_freeze" / "2026-01-02"
    run = write_run(sweep / "0", asked(tmp_path / "pictures", 2), [0])
    samples = run / "samples.jsonl"
    samples.write_text(samples.read_text().replace("nothing at all", "half \\ud800 a character"))
    (sweep / "sweep.json").write_text("{}")
    checkpoint = run / "checkpoints" / "step-000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / STATE).write_bytes(b"weights")
    log = _finish(run)
    for expected in (
        b"final/accuracy",
        b"baseline/majority/accuracy",
        b"throughput/tokens_per_s",
        b"vit_freeze/2026-01-02",
        b"train",
        b"answers",
        b"checkpoint-sft-",
        b"run-sft-",
        b"corpus-small_corpus",
    ):
        assert expected in log, expected
    # By reference: the weights themselves are in no artifact.
    staged = [path for path in (tmp_path / "wandb_places").rglob("*") if path.is_file()]
    assert not [path for path in staged if path.read_bytes() == b"weights"]
    (table,) = run.glob("wandb/offline-run-*/files/media/table/answers*.json")
    assert "half ? a character" in table.read_text()


def test_an_evaluation_names_the_checkpoint_as_its_training_named_it(tmp_path: Path) -> None:
    questions = asked(tmp_path / "pictures", 2)
    trained = write_run(tmp_path / "train", questions, [0], experiment="fdpo")
    checkpoint = trained / "checkpoints" / "step-000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / STATE).write_bytes(b"weights")
    facts = {"benchmark": "whatsup_a", "checkpoint": str(checkpoint)}
    run = write_run(tmp_path / "evaluate", questions, [0], experiment="fdpo", **facts)
    log, theirs = _finish(run), _finish(trained)
    name = b"checkpoint-fdpo-"
    start = theirs.index(name)
    whole = theirs[start : start + len(name) + 16]
    assert whole in log
    assert b"evaluation-whatsup_a-fdpo-" in log


def test_a_comparison_is_a_run_of_its_own_and_closed_even_where_logging_fails(tmp_path: Path) -> None:
    questions = asked(tmp_path / "pictures", 3)
    runs = [write_run(tmp_path / name, questions, w, experiment=name) for name, w in (("a", [0]), ("b", [1, 2]))]
    settings = Comparing([str(run) for run in runs], to=str(tmp_path / "to"), resamples=50, wandb="offline")
    to = compare_runs(settings, say=lambda text: None)
    log = _log(to)
    for expected in (b"compare", b"groups", b"report", b"comparison-to", b"accuracy/small corpus/a"):
        assert expected in log, expected
    assert wandb.run is None
    (to / "groups.csv").unlink()
    with pytest.raises(FileNotFoundError):
        log_comparison(to, {"wandb": "offline"}, {})
    assert wandb.run is None


def test_a_comparison_stays_when_wandb_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", asked(tmp_path / "pictures", 2), [0])
    monkeypatch.setenv("WANDB_API_KEY", "too short")
    said: list[str] = []
    settings = Comparing(str(run), to=str(tmp_path / "to"), resamples=50, wandb="online")
    to = compare_runs(settings, said.append)
    assert "W&B did not take the results" in said[-1]
    assert (to / "report.html").is_file()


def test_without_wandb_only_the_table_is_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", asked(tmp_path / "pictures", 2), [0])
    loggers = make_loggers(run, {"wandb": "off"}, {"name": "sft"})
    log_finished(loggers, run)
    finish_loggers(loggers)
    assert [type(logger) for logger in loggers] == [CSVLogger]
    assert not (run / "wandb").exists()


def test_a_finished_run_stays_finished_when_its_results_cannot_be_logged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", asked(tmp_path / "pictures", 2), [0])
    (run / "summary.json").unlink()
    loggers = make_loggers(run, {"wandb": "offline"}, {"name": "sft"})
    said: list[str] = []
    try:
        log_finished(loggers, run, said.append)
    finally:
        finish_loggers(loggers)
    assert "W&B did not take the results" in said[0]


@pytest.mark.parametrize(
    ("given", "key", "mode"), [("auto", "", "offline"), ("auto", "x", "online"), (False, "", "off")]
)
def test_modes(monkeypatch: pytest.MonkeyPatch, given: Any, key: str, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert wandb_mode({"wandb": given}) == mode


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(ConfigError, match="logger.wandb is 'never'; allowed: auto, online, offline, off"):
        wandb_mode({"wandb": "never"})


def test_groups_are_sweeps_else_experiments(tmp_path: Path) -> None:
    assert sweep_of(tmp_path / "a" / "b" / "0") is None
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "sweep.json").touch()
    assert sweep_of(tmp_path / "a" / "b" / "0") == "a/b"
    loggers = make_loggers(tmp_path / "run", {"wandb": "offline"}, {"name": "sft"}, job_type="evaluate")
    (logger,) = (logger for logger in loggers if isinstance(logger, WandbLogger))
    assert (logger._wandb_init["group"], logger._wandb_init["job_type"]) == ("sft", "evaluate")


def test_figures_are_flat_numbers() -> None:
    summary = {"metrics": {"accuracy": 0.5}, "baseline": {"majority": {"accuracy": 0.25}, "note": "x"}, "wall_s": 3}
    assert dict(final_figures(summary)) == {"final/accuracy": 0.5, "baseline/majority/accuracy": 0.25, "wall_s": 3}
