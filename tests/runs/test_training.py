"""Whole runs, small: corpus, warm start, training, answers, report, and what is left when something goes wrong."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small

from spatial_lightning.backbones import Backbone
from spatial_lightning.modules import FDPOModule
from spatial_lightning.runs.build import build
from spatial_lightning.runs.checkpoints import checkpoint_of, load_weights, read_weights
from spatial_lightning.runs.config import PROJECT, ConfigError, compose_run
from spatial_lightning.runs.corpora import Corpus, prepare
from spatial_lightning.runs.training import train
from spatial_lightning.tree import TreeBatch

PROMISED = set(
    "experiment objective backbone corpus seed git_sha config_hash metrics baseline throughput wall_s".split()  # noqa: SIM905
)


def test_a_run_leaves_everything_the_house_plan_promises(finished: Path) -> None:
    for name in ("config.yaml", "summary.json", "metrics.csv", "samples.jsonl", "report.md"):
        assert (finished / name).is_file(), name
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["best-000002", "step-000002"]
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
    again = compose_run(
        small(place, "+experiment=dpo_vit_unfrozen", "trainer.limit_val_batches=0", "backbone.check=off")
    )
    train(again, place / "outputs" / "dpo" / "second")
    # One forward of one example is the check of the cache against the live model.
    assert sum(forwards) == 1


def test_a_killed_run_goes_on_as_if_it_had_not_been(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of an epoch, with loader processes and dropout: same examples, losses and weights, bit by bit."""
    overrides = small(
        place,
        "+experiment=fdpo_vit_unfrozen",
        "trainer.max_steps=4",
        "data.module.num_workers=2",
        "+backbone.overrides={text_config.attention_dropout:0.2}",
    )
    original = FDPOModule.training_step
    ids: dict[str, list[tuple[str, ...]]] = {}

    def run(name: str, stop: int | None = None, *more: str) -> Path:
        seen = ids[name] = []

        def step(self: FDPOModule, batch: list[TreeBatch], batch_idx: int) -> None:
            if self.global_step == stop:
                raise KeyboardInterrupt
            seen.append(tuple(identity for row in batch for identity in row.tree_ids))
            original(self, batch, batch_idx)

        monkeypatch.setattr(FDPOModule, "training_step", step)
        return train(compose_run([*overrides, *more]), place / "outputs" / "resume" / name)

    def losses(folder: Path) -> dict[str, str]:
        rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
        return {row["step"]: row["train/loss"] for row in rows if row["train/loss"]}

    whole = run("whole")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run("half", 2)
    half = whole.with_name("half")
    assert checkpoint_of(half).name == "step-000002"
    rest = run("rest", None, f"resume={half}")
    assert ids["half"] + ids["rest"] == ids["whole"]
    assert len(losses(whole)) == 4
    # Without dropout the first loss is ln 2, the policy being the reference.
    assert abs(float(next(iter(losses(whole).values()))) - math.log(2)) > 1e-4
    assert losses(half) | losses(rest) == losses(whole)
    one, other = (read_weights(checkpoint_of(folder)) for folder in (whole, rest))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_warm_start_takes_the_weights_of_a_run(finished: Path, place: Path) -> None:
    config = compose_run(small(place, "+experiment=fdpo_vit_unfrozen"))
    backbone = build(config.backbone)
    load_weights(backbone, finished)
    state = read_weights(checkpoint_of(finished))
    own = backbone.state_dict()
    assert all(torch.equal(own[name.removeprefix("backbone.")], tensor) for name, tensor in state.items())


def test_warm_start_of_another_architecture_is_refused(finished: Path, tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="cannot take the weights"):
        load_weights(Backbone(tiny_folder, weights="random"), finished)


def test_warm_start_by_name_trains_the_experiment_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spatial_lightning.runs import training

    monkeypatch.setattr(training, "compose_run", lambda overrides: compose_run(small(place, *overrides)))
    for attempt in ("one", "two"):
        config = compose_run(small(place, "+experiment=fdpo_vit_frozen", "warm_start=sft_spatialvlm"))
        run = training.train(config, place / "outputs" / "warm" / attempt)
        assert "sft_spatialvlm" in json.loads((run / "summary.json").read_text())["warm_start"]
    assert len(list((place / "outputs" / "sft_spatialvlm").iterdir())) == 1


def test_held_out_kinds_may_differ_from_trained_ones(tmp_path: Path) -> None:
    options: dict[str, Any] = {"train_images": 4, "val_images": 4, "per_image": 4, "kinds": ["left_right"]}
    files = prepare(Corpus("questions", **options, val_kinds=["tall_short", "left_right"]), tmp_path)
    kinds = {split: {question.kind for _, question in files.questions(split)} for split in ("train", "val")}
    assert "tall_short" in kinds["val"]
    trained = [json.loads(line) for line in Path(str(files.train)).read_text().splitlines()]
    assert {question["kind"] for row in trained for question in row["questions"]} == {"left_right"}


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
