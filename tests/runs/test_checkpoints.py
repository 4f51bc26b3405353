"""Checkpoints are whole whatever happens, and a run goes on only from one that is of the same run."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import small

from spatial_lightning.runs.build import build, build_backbone
from spatial_lightning.runs.checkpoints import IDENTITY, STATE, WEIGHTS, AtomicCheckpointIO, checkpoint_of, read_weights
from spatial_lightning.runs.config import ConfigError, compose_run
from spatial_lightning.runs.corpora import prepare
from spatial_lightning.runs.directory import newest_checkpoint
from spatial_lightning.runs.identity import Identity, identity_of, read_identity, require_same
from spatial_lightning.runs.training import train


def content(step: int, size: int = 1000) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((size,), float(step))}, "step": step, "moments": torch.ones(size)}


def save(run: Path, step: int, **options: int) -> Path:
    path = run / "checkpoints" / f"step-{step:06d}"
    AtomicCheckpointIO().save_checkpoint(content(step, **options), path)
    return path


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system itself refuses to write on, as it does on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_weights_are_plain_tensors_beside_the_state(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert sorted(file.name for file in path.iterdir()) == [STATE, WEIGHTS]
    assert torch.equal(read_weights(path)["weight"], torch.ones(1000))
    assert "state_dict" not in torch.load(path / STATE, weights_only=True)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded.keys() == content(1).keys()
    assert loaded["step"] == 1


@pytest.mark.parametrize("size", [0, 2000, 6000], ids=["nothing", "half of the weights", "half of the state"])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, size: int) -> None:
    before = save(tmp_path, 1)
    with no_file_larger_than(size), pytest.raises(OSError, match="free some space and resume.*whole: .*step-000001"):
        save(tmp_path, 2, size=1000 if size < 6000 else 1400)
    assert list(before.parent.iterdir()) == [before]
    assert AtomicCheckpointIO().load_checkpoint(before)["step"] == 1


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """A process that saves and deletes without end, also over a checkpoint of the same name, is killed again and again."""
    save(tmp_path, 0)
    reached = set()
    for attempt in range(12):
        child = os.fork()
        if child == 0:
            io = AtomicCheckpointIO()
            for step in range(1, 1_000_000):
                before, path = newest_checkpoint(tmp_path), save(tmp_path, step % 3)
                if before not in (path, None):
                    io.remove_checkpoint(before)
        time.sleep(0.05 + 0.013 * attempt)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        loaded = AtomicCheckpointIO().load_checkpoint(checkpoint_of(tmp_path))
        assert torch.equal(loaded["state_dict"]["weight"], torch.full((1000,), float(loaded["step"])))
        reached.add(loaded["step"])
    assert len(reached) > 1


def test_the_newest_is_the_one_written_last(tmp_path: Path) -> None:
    """Also where a longer run has used the folder before."""
    save(tmp_path, 300)
    time.sleep(0.01)
    later = save(tmp_path, 100)
    assert checkpoint_of(tmp_path) == later


@pytest.mark.parametrize("file", [STATE, WEIGHTS])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_checkpoints_are_named(tmp_path: Path, file: str, damage: str) -> None:
    damaged = save(tmp_path, 1) / file
    data = damaged.read_bytes()
    damaged.unlink()
    if damage == "cut":
        damaged.write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError, match=rf"{file} cannot be read .*use another checkpoint"):
        AtomicCheckpointIO().load_checkpoint(damaged.parent)


def test_a_run_without_the_checkpoint_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no run directory"):
        checkpoint_of(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        checkpoint_of(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match="no checkpoint 'last': it holds none"):
        checkpoint_of(tmp_path)
    AtomicCheckpointIO().save_checkpoint(content(0), tmp_path / "checkpoints" / "on_error")
    with pytest.raises(FileNotFoundError, match="no checkpoint 'last': it holds on_error"):
        checkpoint_of(tmp_path)
    assert checkpoint_of(tmp_path, "on_error").name == "on_error"
    save(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match="no checkpoint 'best': it holds on_error, step-000001"):
        checkpoint_of(tmp_path, "best")
    with pytest.raises(FileNotFoundError, match="no checkpoint 'step-000009'"):
        checkpoint_of(tmp_path, "step-000009")


# ------------------------------------------------------------------ what a checkpoint is of


def identity(place: Path, *overrides: str, world_size: int = 1, warm_start: Path | None = None) -> Identity:
    config = compose_run(small(place, "+experiment=fdpo_vit_frozen", *overrides))
    files = prepare(build(config.data.corpus), place / "cache")
    backbone = build_backbone(config)
    build(config.towers).apply(backbone)
    return identity_of(config, backbone, files, warm_start, world_size)


@pytest.fixture(scope="module")
def stored(place: Path) -> Identity:
    return identity(place)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["backbone.max_pixels=4096"],
            [r"pixel_limits: \[256, 12544\] in .*, \[256, 4096\] now", "set backbone.min_pix"],
        ),
        (["objective.alpha=0.7"], ["objective.alpha: 0.3 in the checkpoint, 0.7 now", "config.yaml"]),
        (["objective=dpo"], ["objective._target_: .*FDPOModule in the checkpoint, .*DPOModule now"]),
        (["data.module.batch_size=8"], ["data.batch_size: 4 in the checkpoint, 8 now"]),
        (["data.seed=5"], ["corpus: .* now", "record files have changed"]),
        (["towers=full"], ["towers.vision.mode: frozen in the checkpoint, full now"]),
        (["optimization.lr=0.5"], ["optimization.lr: .* 0.5 now"]),
        (["seed=3"], ["frozen_weights: .* now", "weights that are not trained are others"]),
        (
            ["+backbone.overrides={text_config.num_hidden_layers:2}"],
            ["architecture.text_config.num_hidden_layers: 4 in"],
        ),
    ],
)
def test_resuming_another_run_is_refused(place: Path, stored: Identity, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError, match="(?s)cannot resume from .*warm_start=RUN") as refused:
        require_same(stored, identity(place, *overrides), Path("checkpoint"))
    for pattern in words:
        assert refused.match(f"(?s){pattern}")


def test_resuming_on_another_number_of_ranks_is_refused(place: Path, stored: Identity) -> None:
    with pytest.raises(ConfigError, match=r"world_size: 1 in the checkpoint, 2 now\nstart as many ranks as before"):
        require_same(stored, identity(place, world_size=2), Path("checkpoint"))


def test_what_changes_no_example_and_no_weight_may_change(place: Path, stored: Identity) -> None:
    free = [
        "data.module.num_workers=2",
        "data.module.token_budget=4096",
        "trainer.max_steps=9",
        "evaluation.questions=3",
    ]
    require_same(stored, identity(place, *free, "backbone.engine=separate"), Path("checkpoint"))


def test_another_tokenizer_template_is_refused(place: Path, stored: Identity) -> None:
    with pytest.raises(ConfigError, match="(?s)processor: .*chat template"):
        require_same(stored, stored | {"processor": "another"}, Path("checkpoint"))


def test_a_run_refuses_before_it_trains(finished: Path, place: Path) -> None:
    assert read_identity(checkpoint_of(finished))["world_size"] == 1
    other = compose_run(small(place, "+experiment=fdpo_vit_unfrozen", "objective.alpha=0.7", f"resume={finished}"))
    run = place / "outputs" / "refused"
    with pytest.raises(ConfigError, match=r"objective.alpha: 0\.3 in the checkpoint, 0\.7 now"):
        train(other, run)
    assert not (run / "samples.jsonl").exists()
    assert not (run / "checkpoints").exists()
    assert (checkpoint_of(finished) / IDENTITY).is_file()
