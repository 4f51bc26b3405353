"""Pictures that tools return: boxes around the objects, a depth map (brighter is nearer) and a map seen from above."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from spatial_lightning.scenes import trace
from spatial_lightning.scenes.shading import COLORS
from spatial_lightning.synthesis.facts import SceneFacts

_BACKGROUND = (40, 40, 40)


def draw_boxes(facts: SceneFacts, path: Path) -> None:
    """The scene's own picture with a box in the object's colour around each object."""
    with Image.open(facts.scene.image) as file:
        picture = file.convert("RGB")
    draw = ImageDraw.Draw(picture)
    for index, item in enumerate(facts.scene.objects):
        left, top, right, bottom = _box(facts, index)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=COLORS[item.color], width=2)
    picture.save(path)


def draw_depth(facts: SceneFacts, path: Path) -> None:
    """Nearness of every pixel, 255 the nearest; of the objects alone where the camera's pose is unknown (CLEVR's files)."""
    view = facts.scene.camera
    depth = np.full((view.height, view.width), np.inf)
    if view.world_to_camera is not None:
        depth = trace(facts.scene).depth
    else:
        for index in sorted(range(len(facts.names)), key=lambda index: -facts.camera[index][2]):
            left, top, right, bottom = (max(0, round(side)) for side in _box(facts, index))
            depth[top:bottom, left:right] = facts.camera[index][2]
    near = np.where(np.isfinite(depth), 1 / np.maximum(depth, 1e-3), 0.0)
    Image.fromarray((255 * near / max(float(near.max()), 1e-9)).astype(np.uint8)).convert("RGB").save(path)


def draw_map(facts: SceneFacts, path: Path) -> None:
    """Ground plan, the camera's side at the bottom: a square for each cube, a disc for every other shape."""
    side = min(facts.scene.camera.width, facts.scene.camera.height)
    picture = Image.new("RGB", (side, side), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    ground = np.array([center[:2] for center in facts.center])
    half = np.array([item.dimensions[0] / 2 for item in facts.scene.objects])
    low, high = (ground - half[:, None]).min(axis=0), (ground + half[:, None]).max(axis=0)
    scale = 0.9 * side / float((high - low).max())
    middle = (low + high) / 2
    for item, place, radius in zip(facts.scene.objects, ground, half, strict=True):
        column, row = side / 2 + scale * (place[0] - middle[0]), side / 2 - scale * (place[1] - middle[1])
        reach = scale * radius
        shape = draw.rectangle if item.shape == "cube" else draw.ellipse
        shape((column - reach, row - reach, column + reach, row + reach), fill=COLORS[item.color])
    picture.save(path)


def _box(facts: SceneFacts, index: int) -> tuple[float, float, float, float]:
    """Box of the visible pixels, or about the centre with the object's extents at its depth where it is unknown."""
    item, view = facts.scene.objects[index], facts.scene.camera
    if item.box2d is not None:
        return item.box2d
    across = view.fx * facts.along["wide_thin"][index] / item.depth / 2
    up = view.fy * facts.along["tall_short"][index] / item.depth / 2
    column, row = item.pixel
    return column - across, row - up, column + across, row + up
