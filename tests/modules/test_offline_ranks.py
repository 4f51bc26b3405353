"""Offline RL on two processes takes the steps of one: losses, gradients, heads and their targets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import gradient_error

from spatial_lightning.backbones import Backbone

SCRIPT = Path(__file__).with_name("two_ranks_offline.py")


@pytest.fixture(scope="module")
def seen(
    tiny: Backbone, tiny_folder: Path, pictures: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Any]:
    """What one process and the first of two saw."""
    place = tmp_path_factory.mktemp("offline ranks")
    torch.save(tiny.state_dict(), place / "weights.pt")
    results = {}
    for ranks in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if ranks == 2 else []
        folder = place / str(ranks)
        folder.mkdir()
        arguments = map(str, [tiny_folder, place / "weights.pt", *pictures, folder])
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [sys.executable, *launcher, str(SCRIPT), *arguments],
            capture_output=True,
            text=True,
            timeout=900,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results[ranks] = torch.load(folder / "0.pt", weights_only=True)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["awr", "iql", "step_dpo", "kto"])
def test_two_ranks_take_the_steps_of_one(seen: dict[int, Any], kind: str) -> None:
    one, two = seen[1][kind], seen[2][kind]
    assert len(two["gradients"]) == len(one["gradients"]) == 3
    for step, (mine, theirs) in enumerate(zip(two["gradients"], one["gradients"], strict=True)):
        assert gradient_error(mine, theirs) <= (5e-3 if step else 1e-5)
    for mine, theirs in zip(two["metrics"], one["metrics"], strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            if name != "train/tokens_per_s":
                assert mine[name] == pytest.approx(theirs[name], rel=2e-3, abs=2e-4), name
    assert bool(one["heads"]) == (kind in ("awr", "iql"))
    for name, value in one["heads"].items():
        torch.testing.assert_close(two["heads"][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_what_cannot_be_cut_over_ranks_is_refused_in_words(seen: dict[int, Any]) -> None:
    assert "kind=iql trains heads, which FSDP does not cut up here: choose trainer=ddp" in seen[2]["iql fsdp"]
    assert "choose objective.reference_point=zero, or ddp" in seen[2]["kto fsdp"]
