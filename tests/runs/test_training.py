"""Whole runs, small: corpus, warm start, training, answers, report, and what is left when something goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spatial_lightning.backbones import Backbone
from spatial_lightning.runs import checkpoints
from spatial_lightning.runs.build import build
from spatial_lightning.runs.checkpoints import LAST, AtomicCheckpointIO, checkpoint_of, load_weights
from spatial_lightning.runs.config import PROJECT, ConfigError, compose_run
from spatial_lightning.runs.corpora import Corpus, prepare
from spatial_lightning.runs.training import train

SMALL = (
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "data.train_images=6",
    "data.val_images=3",
    "data.module.batch_size=4",
    "data.module.val_examples=3",
    "evaluation.questions=6",
    "evaluation.reasoned=2",
    "evaluation.max_new_tokens=6",
    "evaluation.checkpoint_every=1",
    "logger.wandb=off",
    "backbone.weights=random",
)

PROMISED = set(
    "experiment objective backbone corpus seed git_sha config_hash metrics baseline throughput wall_s".split()  # noqa: SIM905
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


def small(place: Path, *overrides: str) -> list[str]:
    return [*SMALL, f"outputs={place / 'outputs'}", f"cache={place / 'cache'}", *overrides]


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    return train(compose_run(small(place, "+experiment=fdpo_vit_unfrozen")), place / "outputs" / "fdpo" / "first")


def test_a_run_leaves_everything_the_house_plan_promises(finished: Path) -> None:
    for name in ("config.yaml", "summary.json", "metrics.csv", "samples.jsonl", "report.md", str(LAST)):
        assert (finished / name).is_file(), name
    summary = json.loads((finished / "summary.json").read_text())
    for key in [
        "experiment",
        "objective",
        "backbone",
        "corpus",
        "seed",
        "git_sha",
        "config_hash",
        "metrics",
        "baseline",
        "throughput",
        "wall_s",
    ]:
        assert key in summary
    assert set(summary["throughput"]) == {"tokens_per_s", "examples_per_s", "peak_memory_gb"}
    assert summary["throughput"]["tokens_per_s"] > 0
    rows = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert all(set(row["answers"]) == {"warm start", "after"} for row in rows)
    header = (finished / "metrics.csv").read_text().splitlines()[0].split(",")
    for name in (
        "loss",
        "reward_margin",
        "reward_accuracy",
        "logps_chosen_reasoning",
        "beta_description",
        "gradient_norm",
    ):
        assert f"train/{name}" in header


def test_the_reference_is_computed_once(finished: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards: list[int] = []
    original = Backbone.logps

    def counted(self: Backbone, batch):  # type: ignore[no-untyped-def]
        if not torch.is_grad_enabled():
            forwards.append(len(batch.tree_ids))
        return original(self, batch)

    monkeypatch.setattr(Backbone, "logps", counted)
    again = compose_run(small(place, "+experiment=dpo_vit_unfrozen", "trainer.limit_val_batches=0"))
    train(again, place / "outputs" / "dpo" / "second")
    # One forward of one example is the check of the cache against the live model.
    assert sum(forwards) == 1


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # a resumed run has a directory of its own
def test_resume_goes_on_where_the_checkpoint_was_written(finished: Path, place: Path) -> None:
    whole = compose_run(small(place, "+experiment=fdpo_vit_unfrozen", "trainer.max_steps=4"))
    expected = train(whole, place / "outputs" / "fdpo" / "whole")
    half = place / "outputs" / "fdpo" / "half"
    cut = compose_run(small(place, "+experiment=fdpo_vit_unfrozen", "trainer.max_steps=4"))
    stopped = _stop_after(cut, half, steps=2)
    resumed = compose_run(small(place, "+experiment=fdpo_vit_unfrozen", "trainer.max_steps=4", f"resume={stopped}"))
    train(resumed, place / "outputs" / "fdpo" / "resumed")
    one, other = (
        torch.load(run / LAST, weights_only=True)["state_dict"]
        for run in (expected, place / "outputs" / "fdpo" / "resumed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def _stop_after(config, run: Path, steps: int) -> Path:  # type: ignore[no-untyped-def]
    """Run until ``steps`` are done, then fail as a killed process would: without any last words."""
    from spatial_lightning.modules import FDPOModule

    original = FDPOModule.training_step

    def stopping(self, batch, batch_idx):  # type: ignore[no-untyped-def]
        if self.global_step == steps:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    FDPOModule.training_step = stopping  # type: ignore[method-assign]
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(config, run)
    finally:
        FDPOModule.training_step = original  # type: ignore[method-assign]
    assert checkpoint_of(run) == run / LAST
    return run


def test_warm_start_takes_the_weights_of_a_run(finished: Path, place: Path) -> None:
    config = compose_run(small(place, "+experiment=fdpo_vit_unfrozen"))
    backbone = build(config.backbone)
    load_weights(backbone, finished)
    state = torch.load(finished / LAST, weights_only=True)["state_dict"]
    own = backbone.state_dict()
    assert all(torch.equal(own[name.removeprefix("backbone.")], tensor) for name, tensor in state.items())


def test_warm_start_of_another_architecture_is_refused(finished: Path, tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="cannot warm-start"):
        load_weights(Backbone(tiny_folder, weights="random"), finished)


def test_warm_start_by_name_trains_the_experiment_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_lightning.runs import training

    monkeypatch.setattr(training, "compose_run", lambda overrides: compose_run(small(place, *overrides)))
    for attempt in ("one", "two"):
        config = compose_run(small(place, "+experiment=fdpo_vit_frozen", "warm_start=sft_spatialvlm"))
        run = training.train(config, place / "outputs" / "warm" / attempt)
        assert "sft_spatialvlm" in json.loads((run / "summary.json").read_text())["warm_start"]
    assert len(list((place / "outputs" / "sft_spatialvlm").iterdir())) == 1


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def full(checkpoint, file):  # type: ignore[no-untyped-def]
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError, match="free some space and resume"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_original_clevr_files_make_a_corpus(shared_data: Path, tmp_path: Path) -> None:
    corpus = Corpus("preferences", "clevr", str(shared_data / "clevr"), per_image=1)
    files = prepare(corpus, tmp_path)
    train_images, val_images = (
        {path for images, _ in files.questions(split) for path in images} for split in ("train", "val")
    )
    assert len(train_images) + len(val_images) == 134
    assert not train_images & val_images
    assert prepare(corpus, tmp_path).train == files.train


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["+experiment=nothing_like_it"], "there is no experiment"),
        (["data.scenes=clevr", "data.root=not/there"], "CLEVR"),
        (["warm_start=outputs/nowhere"], "nowhere"),
    ],
)
def test_a_user_s_mistake_is_a_sentence_and_a_failing_exit_code(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    command = [sys.executable, "train.py", f"outputs={tmp_path}", "logger.wandb=off", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert words in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
