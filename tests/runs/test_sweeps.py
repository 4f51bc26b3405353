"""Sweeps that run unattended: found again, gone on with, recorded; early stopping, locks, Optuna and W&B sweeps."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf
from small_runs import small

from spatial_lightning.locks import locked
from spatial_lightning.modules import SFTModule
from spatial_lightning.runs.checkpoints import checkpoint_of
from spatial_lightning.runs.config import CONF, PROJECT, ConfigError, compose_run
from spatial_lightning.runs.directory import config_hash
from spatial_lightning.runs.jobs import apart
from spatial_lightning.runs.sweeping import Record, job_directory, plan
from spatial_lightning.runs.training import check, train

SWEEPS = sorted(path.stem for path in (PROJECT / "sweeps").glob("*.yaml"))
WANDB = sorted((PROJECT / "sweeps" / "wandb").glob("*.yaml"))


def test_there_are_sweeps() -> None:
    assert {"vit_freeze", "fdpo_alpha_lambda", "optuna_fdpo"} <= set(SWEEPS)
    assert len(WANDB) >= 2


@pytest.mark.parametrize("name", SWEEPS)
def test_every_job_of_every_sweep_composes_and_is_consistent(name: str) -> None:
    assert f"`{name}`" in (PROJECT / "sweeps" / "README.md").read_text()
    if "optuna" in name:
        pytest.importorskip("optuna", reason="needs the extra [sweep]")
    sweep = plan([f"+sweep={name}"])
    assert sweep is not None
    assert sweep.total > 1
    jobs = sweep.jobs or corners(name)
    hashes = set()
    for job in jobs:
        config = compose_run(job)
        check(config)
        hashes.add(config_hash(config))
    assert len(hashes) == len(jobs)


def corners(name: str) -> list[list[str]]:
    """The lowest and the highest settings that a search may draw."""
    from spatial_lightning.runs.optuna_search import search_space

    params = yaml.safe_load((PROJECT / "sweeps" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    overrides = parsed(*(f"{key}={value}" for key, value in params.items()))
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    space: dict[str, Any] = search_space(overrides)
    return [[*fixed, *(f"{key}={getattr(own, end)}" for key, own in space.items())] for end in ("low", "high")]


def parsed(*overrides: str) -> list[Any]:
    return OverridesParser.create().parse_overrides(list(overrides))


def test_the_same_command_has_the_same_directories_and_another_has_others(tmp_path: Path) -> None:
    def folder(*arguments: str) -> Path:
        sweep = plan([*arguments, f"outputs={tmp_path}"])
        assert sweep is not None
        return sweep.folder

    first = folder("+sweep=vit_freeze")
    assert first.parent == tmp_path / "vit_freeze"
    assert first == folder("+sweep=vit_freeze", "redo=true", "isolate=true", "cache=elsewhere", "logger.wandb=off")
    assert first != folder("+sweep=vit_freeze", "trainer.max_steps=20")
    assert folder("-m", "seed=0,1", "trainer.max_steps=3") == folder("trainer.max_steps=3", "seed=0,1", "--multirun")
    assert folder("-m", "+experiment=sft_traces,awr_traces").parent.name == "multirun"
    assert folder("-m", "+experiment=sft_traces", "seed=0,1").parent.name == "sft_traces"
    assert folder("-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'own'}") == tmp_path / "own"


def test_one_run_is_no_sweep() -> None:
    assert plan(["seed=1", "+experiment=sft_traces"]) is None
    assert plan(["--cfg", "job", "+sweep=vit_freeze"]) is None


def test_a_job_is_named_after_what_is_overridden_and_its_content(tmp_path: Path) -> None:
    def name(*overrides: str) -> str:
        sweep = plan(["-m", "+experiment=fdpo_vit_unfrozen", "objective.alpha=0.1,0.2", "trainer.max_steps=7"])
        assert sweep is not None
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", [*sweep.overrides, *overrides], return_hydra_config=True)
        overridden = config.hydra.job.override_dirname
        return job_directory(config.name, overridden, _root_=config)

    given = ("+experiment=fdpo_vit_unfrozen", "objective.alpha=0.1", "trainer.max_steps=7")
    assert name(*given).startswith("fdpo_vit_unfrozen-alpha_0.1-")
    assert name(*given).endswith(config_hash(compose_run(given))[:8])
    assert name(*given, f"outputs={tmp_path}", "redo=true").split("-")[-1] == name(*given).split("-")[-1]
    assert name(*given[:2], "trainer.max_steps=8") != name(*given)
    assert "," not in name("data.corpus.kinds=[left_right,distance]")


@pytest.mark.parametrize(
    ("arguments", "missing", "words"),
    [
        (["-m", "seed=0,1", "hydra/launcher=parallel"], True, r"pip install 'spatial-lightning\[sweep\]'"),
        (["+sweep=optuna_fdpo"], True, "optuna is not installed"),
        (["-m", "objective.alpha=interval(0,1)", "objective=fdpo"], False, "choose hydra/sweeper=optuna"),
        (["-m", "sed=0,1"], False, "there is no key 'sed'; did you mean seed"),
    ],
)
def test_what_a_sweep_cannot_do_is_said_in_words(
    arguments: list[str], missing: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing:
        monkeypatch.setattr("spatial_lightning.runs.sweeping.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=words):
        plan(arguments)


def test_a_record_keeps_what_several_processes_write(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.begin(8, ["train.py"], keep=False)
    note = lambda number: Record(tmp_path).note(  # noqa: E731
        tmp_path / f"job{number}", job=number, overrides=[f"seed={number}"], state="finished", wall_s=60.0
    )
    threads = [threading.Thread(target=note, args=(number,)) for number in (3, 1, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job["job"] for job in record.jobs()] == [1, 2, 3, 4]
    assert record.time_left() == ", about 4 min 00 s left"
    record.note(tmp_path / "job5", job=5, overrides=["seed=5"], state="failed", reason="no luck", wall_s=1.0)
    said: list[str] = []
    assert record.conclude(said.append) == 1
    assert f"{tmp_path / 'job5'}: no luck" in "\n".join(said)
    assert f"compare.py runs={tmp_path}" in "\n".join(said)


def test_who_waits_for_a_lock_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / ".lock", said.append):
            order.append("second")

    with locked(tmp_path / ".lock", said.append):
        thread = threading.Thread(target=second)
        thread.start()
        while not said:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert said == [f"waiting for another process to finish its work in {tmp_path}"]


# ------------------------------------------------------------------ one job that goes on


def losses(run: Path) -> dict[tuple[str, str], str]:
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    names = ("train/loss", "val/loss", "eval/accuracy")
    return {(row["step"], name): row[name] for row in rows for name in names if row.get(name)}


def test_a_run_goes_on_in_its_own_directory(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = small(place, "trainer.max_steps=4", "resume=auto", "backbone.check=off")
    whole = train(compose_run(overrides), place / "outputs" / "auto" / "whole")
    original = SFTModule.training_step

    def step(self: SFTModule, batch: Any, batch_idx: int) -> None:
        if self.global_step == 3:
            raise KeyboardInterrupt
        original(self, batch, batch_idx)

    monkeypatch.setattr(SFTModule, "training_step", step)
    run = place / "outputs" / "auto" / "half"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(compose_run(overrides), run)
    monkeypatch.setattr(SFTModule, "training_step", original)
    train(compose_run(overrides), run)
    assert f"going on from {run / 'checkpoints' / 'step-000003'}" in capsys.readouterr().out
    assert losses(run) == losses(whole)

    (run / "summary.json").unlink()
    train(compose_run([*overrides, "optimization.lr=1e-5"]), run)
    said = capsys.readouterr().out
    assert "optimization.lr" in said
    assert "starting anew" in said
    assert json.loads((run / "summary.json").read_text())["steps"] == 4


# ------------------------------------------------------------------ early stopping

STILL = (
    "early_stopping.min_delta=100",
    "trainer.max_steps=6",
    "trainer.val_check_interval=1",
    "early_stopping.patience=2",
)


def test_training_ends_when_validation_no_longer_improves(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose_run(small(place, *STILL, "backbone.check=off"))
    run = train(config, place / "outputs" / "early" / "stopped")
    assert json.loads((run / "summary.json").read_text())["steps"] == 3
    assert checkpoint_of(run).name == "step-000003"
    assert "stopped at step 3: val/loss has not improved" in capsys.readouterr().out


def test_a_metric_that_is_never_logged_is_named(place: Path) -> None:
    config = compose_run(small(place, *STILL, "early_stopping.monitor=val/acuracy", "backbone.check=off"))
    with pytest.raises(ConfigError, match=r"val/acuracy is never logged; validation logs .*val/loss"):
        train(config, place / "outputs" / "early" / "unknown")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["early_stopping.patience=1", "early_stopping.mode=least"], "allowed: min, max"),
        (["early_stopping.patience=0"], "at least 1"),
        (["early_stopping.patience=1", "trainer.max_steps=50"], "val_check_interval=100"),
        (["early_stopping.patiense=1"], "patience"),
    ],
)
def test_early_stopping_that_cannot_work_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(compose_run(overrides))


def test_a_run_without_early_stopping_is_the_run_it_was_before_there_was_any() -> None:
    config = compose_run([])
    before = config_hash(config)
    older = OmegaConf.create({key: value for key, value in config.items() if key != "early_stopping"})
    assert config_hash(older) == before
    assert config_hash(compose_run(["early_stopping.patience=3"])) != before


# ------------------------------------------------------------------ Optuna


class Quadratic(Launcher):
    """Stands for training: the figure is best at alpha = 0.3."""

    def __init__(self, folder: Path, stop: int | None = None, metric: str = "accuracy") -> None:
        self.folder, self.stop, self.metric = folder, stop, metric
        self.seen: list[str] = []

    def setup(self, **_: Any) -> None: ...

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        returns = []
        for overrides in job_overrides:
            if len(self.seen) == self.stop:
                raise KeyboardInterrupt
            self.seen.append(overrides[-1])
            run = self.folder / f"run{len(self.seen)}"
            run.mkdir(parents=True, exist_ok=True)
            value = 1 - (float(overrides[-1].partition("=")[2]) - 0.3) ** 2
            (run / "summary.json").write_text(json.dumps({"metrics": {self.metric: value}}))
            runtime = SimpleNamespace(output_dir=str(run))
            returns.append(SimpleNamespace(hydra_cfg=SimpleNamespace(hydra=SimpleNamespace(runtime=runtime))))
        return returns


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., None]:
    pytest.importorskip("optuna", reason="needs the extra [sweep]")
    from spatial_lightning.runs.optuna_search import search

    def run(launcher: Quadratic, n_trials: int, n_jobs: int = 1) -> None:
        settings: dict[str, Any] = {"metric": "accuracy", "direction": "maximize", "seed": 0}
        params = {"+experiment": "fdpo_vit_unfrozen", "objective.alpha": "interval(0.05, 0.6)"}
        folder = str(launcher.folder)
        search(launcher, None, folder, ["seed=1"], n_trials=n_trials, n_jobs=n_jobs, params=params, **settings)  # type: ignore[arg-type]

    return run


def test_a_killed_study_draws_what_it_would_have_drawn(search: Callable[..., None], tmp_path: Path) -> None:
    whole = Quadratic(tmp_path / "whole")
    search(whole, 12)
    killed, rest = Quadratic(tmp_path / "part", stop=5), Quadratic(tmp_path / "part")
    with pytest.raises(KeyboardInterrupt):
        search(killed, 12)
    search(rest, 12)
    assert killed.seen + rest.seen == whole.seen
    assert len(set(whole.seen)) == 12
    results = yaml.safe_load((tmp_path / "whole" / "optimization_results.yaml").read_text())
    assert abs(results["best_params"]["objective.alpha"] - 0.3) < 0.1
    assert results["best_value"] == max(trial["value"] for trial in results["trials"])
    again = Quadratic(tmp_path / "whole")
    search(again, 12)
    assert not again.seen


def test_trials_are_drawn_together_where_jobs_run_together(search: Callable[..., None], tmp_path: Path) -> None:
    launcher = Quadratic(tmp_path)
    search(launcher, 5, n_jobs=2)
    assert len(set(launcher.seen)) == 5


def test_a_figure_that_runs_do_not_have_is_named(
    search: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        search(Quadratic(tmp_path, metric="macro_accuracy"), 2)
    assert "allowed: macro_accuracy" in capsys.readouterr().out


def test_ranges_are_read_as_hydra_writes_them() -> None:
    pytest.importorskip("optuna", reason="needs the extra [sweep]")
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from spatial_lightning.runs.optuna_search import search_space

    given = parsed("a=interval(0.1,0.5)", "b=tag(log,interval(1e-5,1e-3))", "c=range(1,9,2)", "d=x,y", "seed=1")
    assert search_space(given) == {
        "a": FloatDistribution(0.1, 0.5),
        "b": FloatDistribution(1e-5, 1e-3, log=True),
        "c": IntDistribution(1, 7, step=2),
        "d": CategoricalDistribution(["x", "y"]),
    }
    with pytest.raises(ConfigError, match="nothing to search"):
        search_space(parsed("seed=1"))


# ------------------------------------------------------------------ W&B sweeps


@pytest.mark.parametrize("path", WANDB, ids=lambda path: path.stem)
def test_every_wandb_sweep_composes(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    assert (PROJECT / sweep["program"]).is_file()
    assert sweep["metric"]["name"] == "eval/accuracy"
    command = sweep["command"]
    assert command[:3] == ["${env}", "python", "${program}"]
    assert command[-1] == "${args_no_hyphens}"
    for end in ("min", "max"):
        given = [
            f"{key}={own['values'][0 if end == 'min' else -1] if 'values' in own else own[end]}"
            for key, own in sweep["parameters"].items()
        ]
        check(compose_run([*command[3:-1], *given]))


# ------------------------------------------------------------------ whole sweeps, as processes


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "train.py", "--multirun", *small(place, "backbone.check=off", *arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 300) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.05)
    return found


def jobs_of(place: Path) -> list[dict[str, Any]]:
    return [job for path in (place / "outputs").glob("*/*/sweep.json") for job in Record(path.parent).jobs()]


def state(run: Path) -> dict[str, int]:
    """When each file of a run was written; Hydra's own notes are written at every start."""
    files = [path for path in run.rglob("*") if path.is_file() and ".hydra" not in path.parts]
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_with_the_jobs_that_are_left(tmp_path: Path) -> None:
    arguments = ("+experiment=sft_spatialvlm", "seed=0,1", "optimization.lr=1e-4,1e-3")
    outputs = tmp_path / "outputs"
    first = start(tmp_path, *arguments)
    summary = wait_for(lambda: next(outputs.glob("*/*/*/summary.json"), None), first)
    first.kill()
    first.communicate()
    before = state(summary.parent)
    second = start(tmp_path, *arguments)
    said, _ = second.communicate(timeout=600)
    assert second.returncode == 0, said[-3000:]
    assert f"job 1 of 4 finished already: {summary.parent}" in said
    assert state(summary.parent) == before
    assert [job["state"] for job in jobs_of(tmp_path)] == ["skipped", "finished", "finished", "finished"]
    commands = [json.loads(path.read_text())["command"] for path in outputs.glob("*/*/*/summary.json")]
    assert {("seed=0" in text, "optimization.lr=0.0001" in text) for text in commands} == {
        (zero, small_rate) for zero in (True, False) for small_rate in (True, False)
    }
    assert len(list(outputs.glob("*/*/*/summary.json"))) == 4
    assert "min" in said or " s left" in said

    redone = start(tmp_path, "+experiment=sft_spatialvlm", "seed=0,1", "optimization.lr=1e-4,1e-3", "redo=true")
    wait_for(lambda: [job for job in jobs_of(tmp_path) if job["state"] == "running"], redone)
    wait_for(lambda: not summary.is_file(), redone)
    redone.kill()
    redone.communicate()


@pytest.mark.slow
def test_an_isolated_job_that_is_killed_is_recorded_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweep = start(tmp_path, "seed=0,1", "isolate=true")

    def child() -> int | None:
        found = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split()
        return next((int(pid) for pid in found if "-cp" in Path(f"/proc/{pid}/cmdline").read_text()), None)

    os.kill(wait_for(child, sweep), signal.SIGKILL)
    said, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 1, said[-3000:]
    killed, other = jobs_of(tmp_path)
    assert (killed["state"], other["state"]) == ("failed", "finished")
    assert "SIGKILL" in killed["reason"]
    assert "1 job failed" in said


@pytest.mark.slow
def test_jobs_run_two_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra [sweep]")
    sweep = start(tmp_path, "+experiment=dpo_vit_unfrozen", "seed=0,1", "hydra/launcher=parallel")
    said, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, said[-3000:]
    assert [job["state"] for job in jobs_of(tmp_path)] == ["finished", "finished"]


def test_why_a_process_of_its_own_failed_is_read_from_what_it_left(tmp_path: Path) -> None:
    """No configuration at all: the process ends at once."""
    reason = apart(tmp_path / "nothing")
    assert reason is not None
    assert "exit code" in reason
