"""An evaluation that goes on with an unfinished one and fails: the error is where the answers are, and nowhere else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from spatial_lightning.backbones import Backbone
from spatial_lightning.runs.entry import evaluate_main
from spatial_lightning.runs.predictions import PREDICTIONS


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``evaluate.py`` on four captions, a batch each, so that its run directory would have the name given."""
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "caption": f"The cat is {n} m away.", "label": n % 2, "relation": "on"} for n in range(4)
    ]
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name: str) -> int:
        own = ["benchmark=vsr_random", f"benchmark.reader.path={path}", "benchmark.reader.folders=false"]
        own += ["benchmark.rows=null", "backbone=tiny", "backbone.weights=random", "max_new_tokens=2", "batch_size=1"]
        own += [f"outputs={tmp_path}", f"cache={tmp_path / 'cache'}", "logger.wandb=off", "device=cpu"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *own, f"hydra.run.dir={tmp_path / 'runs' / name}"])
        return evaluate_main()

    return run


def _fails_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, done = Backbone.generate, []

    def fails(self: Backbone, prompts: Any, **settings: Any) -> list[str]:
        if len(done) == batches:
            raise RuntimeError("the disk is on fire")
        done.append(1)
        return generate(self, prompts, **settings)

    monkeypatch.setattr(Backbone, "generate", fails)


def test_an_error_is_written_to_the_directory_that_goes_on(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "runs" / "first", tmp_path / "runs" / "second"
    with monkeypatch.context() as patch:
        _fails_after(1, patch)
        assert command("first") == 1
    assert "on fire" in (first / "error.txt").read_text()
    (first / "error.txt").unlink()
    capsys.readouterr()
    with monkeypatch.context() as patch:
        _fails_after(1, patch)
        assert command("second") == 1
    printed = capsys.readouterr().out
    assert "on fire" in (first / "error.txt").read_text()
    assert len((first / PREDICTIONS).read_text().splitlines()) == 2
    assert f"run directory: {first}" in printed
    assert f"more in {first}" in printed
    assert not second.exists()
    assert command("third") == 0
    assert (first / "summary.json").is_file()
    assert not (first / "error.txt").exists()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]


def test_an_error_before_a_directory_is_known_is_in_the_fresh_one(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dev.jsonl").write_text("{}\n")
    assert command("first") == 1
    assert (tmp_path / "runs" / "first" / "error.txt").is_file()
