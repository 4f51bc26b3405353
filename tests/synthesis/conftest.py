"""Scenes for the tests of synthesis: procedural ones, one with objects off the ground, and original CLEVR scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatial_lightning.scenes import Scene, generate, read_scenes


@pytest.fixture(scope="session")
def procedural() -> list[Scene]:
    return [generate(3, index, difficulty=level) for level in ("easy", "default", "hard") for index in range(6)]


@pytest.fixture(scope="session")
def raised(procedural: list[Scene]) -> Scene:
    """A scene in which some objects hang in the air, so that above and below mean something."""
    scene = procedural[-1]
    lifted = [
        replace(item, position=item.position + np.array([0.0, 0.0, 0.9 * (index % 3)]))
        for index, item in enumerate(scene.objects)
    ]
    return replace(scene, objects=tuple(lifted))


@pytest.fixture(scope="session")
def clevr(shared_data: Path) -> list[Scene]:
    return read_scenes(shared_data / "clevr", "train", limit=40)


@pytest.fixture(scope="session", params=["procedural", "raised", "clevr"])
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    made = request.getfixturevalue(request.param)
    return [made] if isinstance(made, Scene) else made
