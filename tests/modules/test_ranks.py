"""Two processes take the same steps as one, whatever each of them has of a step, with weights whole or cut up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from samples import gradient_error

from spatial_lightning.backbones import Backbone
from spatial_lightning.modules.ranks import added, summed

SCRIPT = Path(__file__).with_name("two_ranks.py")
STRATEGIES = ("ddp", "fsdp")
OBJECTIVES = ("sft", "dpo", "fdpo")


def test_one_rank_sums_to_itself() -> None:
    assert summed({"tokens": 3.0}, 1) == {"tokens": 3.0}


def test_a_rank_may_lack_a_name() -> None:
    assert added([{"pairs": 2.0}, {}, {"pairs": 1.0, "tokens": 4.0}]) == {"pairs": 3.0, "tokens": 4.0}


@pytest.fixture(scope="module")
def place(
    tiny: Backbone, tiny_folder: Path, pictures: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folders ``1`` and ``2`` with what one process and each of two saw."""
    place = tmp_path_factory.mktemp("ranks")
    torch.save(tiny.state_dict(), place / "weights.pt")
    launchers = {
        1: [sys.executable],
        2: [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    }
    for ranks, launcher in launchers.items():
        folder = place / str(ranks)
        folder.mkdir()
        arguments = map(str, [tiny_folder, place / "weights.pt", pictures[0], folder])
        environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [*launcher, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=600, env=environment
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return place


def load(place: Path, ranks: int, rank: int = 0) -> Any:
    return torch.load(place / str(ranks) / f"{rank}.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_ranks_take_the_steps_of_one(place: Path, objective: str, strategy: str) -> None:
    """One rank has a row less in two steps, rows without a picture, and nothing in the last step."""
    one, two = load(place, 1)[objective, "one"], load(place, 2)[objective, strategy]
    assert len(two["gradients"]) == len(one["gradients"]) == 3
    for mine, theirs in zip(two["gradients"], one["gradients"], strict=True):
        assert gradient_error(mine, theirs) <= 1e-5
    for mine, theirs in zip(two["metrics"], one["metrics"], strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            if name != "train/tokens_per_s":
                assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
    assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-4)
    assert two["seen"] == one["seen"]
    assert two["computed"] == one["computed"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_mixed_precision_stays_that_of_one_rank(place: Path, strategy: str) -> None:
    one, two = load(place, 1)["mixed", "one"], load(place, 2)["mixed", strategy]
    exact = load(place, 1)["sft", "one"]["gradients"][0]
    rounding = gradient_error(one["gradients"][0], exact)
    assert 1e-4 < rounding < 0.1
    assert gradient_error(two["gradients"][0], one["gradients"][0]) <= rounding / 2
    assert two["metrics"][0]["train/loss"] == pytest.approx(one["metrics"][0]["train/loss"], rel=1e-3)
    assert len(two["answers"]) == 1


@pytest.mark.slow
def test_steps_are_dealt_out_without_loss_and_one_rank_has_none_of_the_last(place: Path) -> None:
    whole = load(place, 1)["sft", "one"]["ids"]
    shares = [load(place, 2, rank)["sft", "fsdp"]["ids"] for rank in (0, 1)]
    for step, *own in zip(whole, *shares, strict=True):
        assert sorted(step) == sorted(own[0] + own[1])
    assert [] in [share[-1] for share in shares]


@pytest.mark.slow
def test_weights_cut_up_answer_as_whole_ones_do(place: Path) -> None:
    two = load(place, 2)
    assert two["sft", "fsdp"]["answers"] == two["sft", "ddp"]["answers"] == load(place, 1)["sft", "one"]["answers"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_checkpoints_of_many_ranks_are_those_of_one_and_resume_alike(place: Path, strategy: str) -> None:
    mine, theirs = (place / "2" / f"sft-{strategy}" / "checkpoint", place / "1" / "sft-one" / "checkpoint")
    weights = [load_file(folder / "weights.safetensors") for folder in (mine, theirs)]
    assert gradient_error(*weights) <= 1e-5
    states = [torch.load(folder / "state.pt", weights_only=True)["optimizer_states"][0] for folder in (mine, theirs)]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    moments = [{str(index): own["exp_avg"] for index, own in state["state"].items()} for state in states]
    assert gradient_error(*moments) <= 1e-5
    one, two = load(place, 1)["resumed", "one"], load(place, 2)["resumed", strategy]
    assert len(two["gradients"]) == len(one["gradients"]) == 3
    for own, other in zip(two["gradients"], one["gradients"], strict=True):
        assert gradient_error(own, other) <= 1e-4
