"""Procedural scenes: objects on a ground plane seen by a random camera, the same for the same seed, split and index."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from spatial_lightning.geometry import box_corners, ground_directions, project, relationships, transform
from spatial_lightning.scenes.render import trace
from spatial_lightning.scenes.scene import Array, Camera, Scene, SceneObject
from spatial_lightning.scenes.shading import COLORS, MATERIALS
from spatial_lightning.scenes.shapes import SHAPES

RADII: Mapping[str, float] = MappingProxyType({"large": 0.7, "small": 0.35})
"""Half the extent of an object by size, metres, before jitter (CLEVR's radii)."""

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How varied and how crowded scenes are.

    Attributes:
        objects: least and most objects in a scene.
        unique: attributes that together name each object uniquely.
        jitter: largest relative change of each extent.
        spread: radius in metres of the disc on the ground in which objects stand.
        separation: least distance between two centres, and least gap between two footprints, metres.
        margin: least offset in metres between two objects along the viewing and the sideways direction.
        visible: least visible share of each object.
        pixels: least number of visible pixels of each object for an image of 112 x 112; other sizes in proportion, but
            never below 8.
        camera_distance: range in metres from the camera to the point it looks at.
        pitch: range in degrees by which the camera looks down.
        field_of_view: range in degrees across the shorter side of the image.
        aim: largest distance in metres of the point the camera looks at from the middle of the disc.
    """

    objects: tuple[int, int]
    unique: tuple[str, ...]
    jitter: float
    spread: float
    separation: tuple[float, float]
    margin: float
    visible: float
    pixels: int
    camera_distance: Range
    pitch: Range
    field_of_view: Range
    aim: float


DIFFICULTIES: Mapping[str, Difficulty] = MappingProxyType(
    {
        "easy": Difficulty(
            objects=(2, 3),
            unique=("color",),
            jitter=0.0,
            spread=3.0,
            separation=(1.2, 0.3),
            margin=0.45,
            visible=0.6,
            pixels=24,
            camera_distance=(7.5, 9.5),
            pitch=(28, 45),
            field_of_view=(46, 52),
            aim=0.3,
        ),
        "default": Difficulty(
            objects=(3, 5),
            unique=("color", "shape"),
            jitter=0.12,
            spread=3.5,
            separation=(0.9, 0.2),
            margin=0.4,
            visible=0.3,
            pixels=16,
            camera_distance=(7.0, 10.0),
            pitch=(25, 50),
            field_of_view=(44, 54),
            aim=0.5,
        ),
        "hard": Difficulty(
            objects=(5, 8),
            unique=("size", "color", "material", "shape"),
            jitter=0.2,
            spread=4.0,
            separation=(0.8, 0.1),
            margin=0.3,
            visible=0.15,
            pixels=10,
            camera_distance=(6.0, 12.0),
            pitch=(18, 60),
            field_of_view=(40, 62),
            aim=1.0,
        ),
    }
)
_ATTEMPTS = 400
_PLACEMENTS = 60
_LEAST_PIXELS = 8


def generate(
    seed: int,
    index: int,
    *,
    split: str = "train",
    difficulty: str = "default",
    size: tuple[int, int] = (112, 112),
) -> Scene:
    """The scene with this number: the same arguments always give the same scene, whatever else was generated.

    The split takes part in the seed, so splits never share scenes. ``Scene.image`` is the bare file name.

    Args:
        seed: of the corpus.
        index: of the scene within its split, >= 0.
        split: e.g. ``train``.
        difficulty: a key of :data:`DIFFICULTIES`.
        size: image width and height, pixels.

    Raises:
        ValueError: an unknown difficulty, or a size below 16 pixels.
        RuntimeError: no arrangement satisfied the difficulty's limits, because the image is too small.
    """
    level = _level(difficulty)
    if min(size) < 16:
        raise ValueError(f"image size is {size[0]} x {size[1]} pixels; scenes need at least 16 x 16")
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    name = Path(f"CLEVR_{split}_{index:06d}.png")
    # Drawn once: drawing again at each attempt would favour small counts, which fit more often.
    count = int(rng.integers(level.objects[0], level.objects[1] + 1))
    for _ in range(_ATTEMPTS):
        camera = _camera(rng, level, size)
        objects = _objects(rng, level, camera, count)
        if objects is None:
            continue
        assert camera.world_to_camera is not None
        directions = ground_directions(camera.world_to_camera)
        relations = relationships([item.position for item in objects], directions)
        light = _light(rng, directions)
        scene = Scene(index, split, name, objects, camera, directions, relations, difficulty, light)
        seen = _with_visibility(scene, level)
        if seen is not None:
            return seen
    raise RuntimeError(
        f"no {difficulty!r} scene fits an image of {size[0]} x {size[1]} pixels (seed {seed}, {split} {index}) after "
        f"{_ATTEMPTS} attempts; use a larger image or an easier difficulty"
    )


def _level(difficulty: str) -> Difficulty:
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty is {difficulty!r}; allowed: {', '.join(DIFFICULTIES)}")
    return DIFFICULTIES[difficulty]


def _camera(rng: np.random.Generator, level: Difficulty, size: tuple[int, int]) -> Camera:
    width, height = size
    yaw = rng.uniform(0, 2 * np.pi)
    pitch = np.radians(rng.uniform(*level.pitch))
    away = rng.uniform(*level.camera_distance)
    focal = min(width, height) / 2 / np.tan(np.radians(rng.uniform(*level.field_of_view)) / 2)
    target = np.array([*_in_disc(rng, level.aim), 0.3])
    ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    forward = np.cos(pitch) * ahead - np.sin(pitch) * up
    right = np.cross(ahead, up)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    pose[:3, 3] = -pose[:3, :3] @ (target - away * forward)
    return Camera(width, height, float(focal), float(focal), width / 2, height / 2, pose)


def _light(rng: np.random.Generator, directions: Mapping[str, Array]) -> Array:
    # From one side, so that faces towards the camera are lit and shadows fall where they can be seen.
    turn = np.radians(rng.uniform(35, 95)) * rng.choice((-1, 1))
    rise = np.radians(rng.uniform(40, 60))
    flat = np.cos(turn) * directions["front"] + np.sin(turn) * directions["left"]
    return np.cos(rise) * flat + np.sin(rise) * directions["above"]


def _objects(rng: np.random.Generator, level: Difficulty, camera: Camera, count: int) -> tuple[SceneObject, ...] | None:
    assert camera.world_to_camera is not None
    directions = ground_directions(camera.world_to_camera)
    axes = np.stack([directions["right"], directions["behind"]])
    placed: list[SceneObject] = []
    for _ in range(count * _PLACEMENTS):
        item = _candidate(rng, level, camera)
        if item is not None and all(_apart(item, other, level, axes) for other in placed):
            placed.append(item)
            if len(placed) == count:
                return tuple(placed)
    return None


def _candidate(rng: np.random.Generator, level: Difficulty, camera: Camera) -> SceneObject | None:
    assert camera.world_to_camera is not None
    size = str(rng.choice(list(RADII)))
    shape, color, material = str(rng.choice(SHAPES)), str(rng.choice(list(COLORS))), str(rng.choice(MATERIALS))
    stretch = 1 + rng.uniform(-level.jitter, level.jitter, size=2)
    if shape == "sphere":
        stretch[1] = stretch[0]
    dimensions = 2 * RADII[size] * np.array([stretch[0], stretch[0], stretch[1]])
    position = np.array([*_in_disc(rng, level.spread), dimensions[2] / 2])
    rotation = float(rng.uniform(0, 360))
    corners, depths = project(transform(camera.world_to_camera, box_corners(position, dimensions, rotation)), camera)
    border = 0.01 * min(camera.width, camera.height)
    inside = (corners >= border) & (corners <= np.array([camera.width, camera.height]) - border)
    if (depths <= 0.5).any() or not inside.all():
        return None
    pixel, depth = project(transform(camera.world_to_camera, position), camera)
    return SceneObject(
        shape, color, material, size, position, rotation, dimensions, (float(pixel[0]), float(pixel[1])), float(depth)
    )


def _apart(item: SceneObject, other: SceneObject, level: Difficulty, axes: Array) -> bool:
    if all(getattr(item, attribute) == getattr(other, attribute) for attribute in level.unique):
        return False
    offset = item.position - other.position
    least, gap = level.separation
    far = float(np.linalg.norm(offset[:2])) >= max(least, _footprint(item) + _footprint(other) + gap)
    return far and bool((np.abs(axes @ offset) >= level.margin).all())


def _footprint(item: SceneObject) -> float:
    half = float(item.dimensions[0]) / 2
    return half * np.sqrt(2) if item.shape == "cube" else half


def _with_visibility(scene: Scene, level: Difficulty) -> Scene | None:
    seen = trace(scene)
    fractions = seen.visible_fractions
    counts = fractions * seen.silhouettes
    needed = max(_LEAST_PIXELS, level.pixels * (min(scene.camera.width, scene.camera.height) / 112) ** 2)
    if (fractions < level.visible).any() or (counts < needed).any():
        return None
    objects = tuple(
        replace(item, visible_fraction=float(fractions[index]), box2d=seen.box(index))
        for index, item in enumerate(scene.objects)
    )
    return replace(scene, objects=objects)


def _in_disc(rng: np.random.Generator, radius: float) -> tuple[float, float]:
    r, angle = radius * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    return float(r * np.cos(angle)), float(r * np.sin(angle))
