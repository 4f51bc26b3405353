"""A scene: objects on a ground plane, a pinhole camera, and the CLEVR relations between the objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera: x right, y down, z forward, metres; pixels from the top left corner.

    Attributes:
        width, height: image size in pixels.
        fx, fy, cx, cy: focal lengths and principal point in pixels.
        world_to_camera: 4x4 rigid transform, None where it is unknown (original CLEVR files).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    world_to_camera: Array | None = None


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object.

    Attributes:
        shape, color, material, size: names, e.g. ``cube``, ``red``, ``rubber``, ``large``.
        position: centre in the world frame (x, y on the ground, z up), metres.
        rotation: degrees about the world z axis.
        dimensions: full extents along the object's own axes (x, y, z), metres.
        pixel: image column and row of the centre, pixels.
        depth: distance of the centre along the optical axis, metres.
        visible_fraction: visible share of the object's silhouette in [0, 1]; None where unknown.
        box2d: tight box of the visible pixels (left, top, right, bottom), half-open; None where unknown.
    """

    shape: str
    color: str
    material: str
    size: str
    position: Array
    rotation: float
    dimensions: Array
    pixel: tuple[float, float]
    depth: float
    visible_fraction: float | None = None
    box2d: tuple[int, int, int, int] | None = None

    @property
    def name(self) -> str:
        """Size, colour, material and shape, e.g. ``large red rubber cube``."""
        return f"{self.size} {self.color} {self.material} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """One image and everything that is true of it.

    Attributes:
        relationships: ``relationships[r][i]`` lists the objects that lie in direction ``r`` of object ``i`` (CLEVR's
            rule: offset along ``directions[r]`` above 0.2 m), for r in left, right, front, behind.
        directions: unit vectors in the world frame for left, right, front, behind, above, below.
        image: the picture on disk.
        light: unit vector in the world frame that points at the key light; None where it is unknown.
    """

    index: int
    split: str
    image: Path
    objects: tuple[SceneObject, ...]
    camera: Camera
    directions: Mapping[str, Array]
    relationships: Mapping[str, tuple[tuple[int, ...], ...]]
    difficulty: str | None = None
    light: Array | None = None

    def offset(self, a: int, b: int, direction: str) -> float:
        """How far, in metres, object ``b`` lies in ``direction`` of object ``a`` (negative: on the other side)."""
        return float((self.objects[b].position - self.objects[a].position) @ self.directions[direction])
