"""Every ready backbone composes, names a model and gives only what a backbone takes."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from spatial_lightning.backbones import Backbone
from spatial_lightning.runs.build import plain
from spatial_lightning.runs.config import compose_run

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "backbone").glob("*.yaml"))


def test_there_are_ready_backbones() -> None:
    assert {"tiny", "hf", "qwen2_5_vl_3b", "smolvlm_256m"} <= set(NAMES)
    assert len(NAMES) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_a_ready_backbone_composes_and_is_accepted(name: str) -> None:
    overrides = [f"backbone={name}", *(["backbone.path=somewhere"] if name == "hf" else [])]
    node = plain(compose_run(overrides).backbone)
    assert node.pop("_target_") == "spatial_lightning.backbones.Backbone"
    accepted = inspect.signature(Backbone).bind(**node).arguments
    assert set(inspect.signature(Backbone).parameters) == set(accepted), "hf.yaml names every setting"
    assert "/" in node["path"] or name == "hf"
    assert (node["min_pixels"] is None) == (node["max_pixels"] is None)
    assert all(isinstance(module, str) and module.startswith("model.") for module in node["dead"])
    assert (node["engine"], node["check"]) == ("shared", "refuse")
