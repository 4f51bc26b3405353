"""One whole run, small, for all tests of what runs leave behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from endpoint import endpoint
from evaluations import ROWS, procedural, quiet
from PIL import Image
from small_runs import small

from spatial_lightning.runs.config import compose_run
from spatial_lightning.runs.evaluating import evaluate_benchmark
from spatial_lightning.runs.training import train

__all__ = ["endpoint"]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of outputs and cache."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="session")
def finished(place: Path) -> Path:
    """Directory of a finished run that trained every tower."""
    return train(compose_run(small(place, "+experiment=fdpo_vit_unfrozen")), place / "outputs" / "fdpo" / "first")


@pytest.fixture(scope="session")
def scored(place: Path, finished: Path) -> Path:
    """Directory of an evaluation of a small training run."""
    fresh = place / "outputs" / "evaluate" / "procedural_default" / "first"
    return evaluate_benchmark(procedural(place, f"checkpoint={finished}"), fresh, quiet)


@pytest.fixture
def vsr(tmp_path: Path) -> Path:
    """A file of four captions about two pictures."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48), "red" if name == "a.png" else "blue").save(tmp_path / name)
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path
