"""What every test stands on: one thread, no network, fixed seeds, and the shared data samples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spatial_lightning.backbones import Backbone

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


def pytest_configure(config: pytest.Config) -> None:
    """Warnings of Lightning that say nothing about this project."""
    for message in (
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 on torch 2.13
        r"You defined a `validation_step` but have no `val_dataloader`",  # tests of training alone
        r"Using ModelCheckpoint with manual optimization",  # the state behind the update is the one we want
        r"The '.*_dataloader' does not have many workers",  # pictures are small, cores are few
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


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


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model directory of the embedded architecture with a tokenizer of its own; no weights, no shared data."""
    from samples import TEXTS

    from spatial_lightning.backbones.tiny import write_skeleton

    folder = tmp_path_factory.mktemp("tiny")
    write_skeleton(folder, TEXTS, vocabulary=400)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Three noisy RGB pictures of different sizes."""
    from samples import write_pictures

    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Backbone:
    """A random backbone in which attention matters, because its matrices start out large; never change it."""
    from spatial_lightning.backbones import Backbone

    torch.manual_seed(11)
    return Backbone(tiny_folder, weights="random")


@pytest.fixture
def policy(tiny: Backbone) -> Backbone:
    """A copy of the random backbone that a test may train."""
    import copy

    return copy.deepcopy(tiny)


@pytest.fixture(scope="session")
def separate(tiny: Backbone, tiny_folder: Path) -> Backbone:
    """The same weights on the separate engine, two paths a forward; its model is the stock one."""
    from spatial_lightning.backbones import Backbone

    backbone = Backbone(tiny_folder, weights="random", engine="separate", paths_per_forward=2)
    backbone.load_state_dict(tiny.state_dict())
    return backbone
