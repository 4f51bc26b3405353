"""Two processes take the same steps as one, whatever each of them has of a step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from samples import gradient_error

from spatial_lightning.backbones import Backbone
from spatial_lightning.modules.ranks import summed

SCRIPT = Path(__file__).with_name("two_ranks.py")


def test_one_rank_sums_to_itself() -> None:
    assert summed({"tokens": 3.0}, 1) == {"tokens": 3.0}


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one(
    tiny: Backbone, tiny_folder: Path, pictures: tuple[Path, ...], tmp_path: Path
) -> None:
    """Five pairs in steps of two: one rank has no example in the last step, and one has no picture in another."""
    weights = tmp_path / "weights.pt"
    torch.save(tiny.state_dict(), weights)
    launchers = {
        1: [sys.executable],
        2: [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    }
    results = {}
    for ranks, launcher in launchers.items():
        folder = tmp_path / str(ranks)
        folder.mkdir()
        arguments = [tiny_folder, weights, pictures[0], folder, folder / "result.pt"]
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [*launcher, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results[ranks] = torch.load(folder / "result.pt", weights_only=True)
    one, two = results[1], results[2]
    assert len(two["gradients"]) == len(one["gradients"]) == 3
    assert gradient_error(two["gradients"][0], one["gradients"][0]) <= 1e-5
    for mine, theirs in zip(two["metrics"], one["metrics"], strict=True):
        for name in (
            "train/loss",
            "train/sft_loss",
            "train/reward_margin",
            "train/gradient_norm",
            "train/logps_chosen",
        ):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-2, abs=1e-4), name
    assert two["metrics"][0]["train/loss"] == pytest.approx(one["metrics"][0]["train/loss"], rel=1e-5)
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-2)
    assert two["seen"] == one["seen"]
    assert two["computed"] == one["computed"]
