"""What every test stands on: one thread, no network, fixed seeds, and the shared data samples."""

from __future__ import annotations

import os
from pathlib import Path

for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read once, when torch and numpy load
    os.environ.setdefault(_threads, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random

import hypothesis
import numpy as np
import pytest
import torch

PROJECT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)
hypothesis.settings.register_profile("project", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds pyproject.toml."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Third-party samples beside the project, or where SPATIAL_LIGHTNING_SHARED points; skips where they are absent."""
    given = Path(os.environ.get("SPATIAL_LIGHTNING_SHARED", PROJECT.parent / "shared"))
    folder = given / "data" if (given / "data").is_dir() else given
    if not folder.is_dir():
        pytest.skip(f"no data samples at {given}; set SPATIAL_LIGHTNING_SHARED to the folder that holds them")
    return folder


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
