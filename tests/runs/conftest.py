"""One whole run, small, for all tests of what runs leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from endpoint import endpoint
from small_runs import small

from spatial_lightning.runs.config import compose_run
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
