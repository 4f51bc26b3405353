"""Pictures of scenes: an analytic ray caster in numpy, with exact depth and instance masks.

The parameter of a ray is the distance along the optical axis, hence a hit is a depth. Each object is only tested inside
the image box of its bounding box, and each shadow only inside the image box of the volume that it sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_lightning.geometry import box_corners, ground_directions, project, rotation_about_z, transform
from spatial_lightning.scenes.scene import Array, Camera, Scene, SceneObject
from spatial_lightning.scenes.shading import Light, ground_light, sky_light, surface_light, to_srgb
from spatial_lightning.scenes.shapes import HITS, NORMALS, Vector

Plane = NDArray[np.float32]
Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Rendering:
    """A picture and the exact geometry of its pixel centres.

    Attributes:
        rgb: (height, width, 3) sRGB.
        depth: (height, width) distance along the optical axis in metres, of objects and ground; inf above the horizon.
        instances: (height, width) index of the object that the pixel centre shows, -1 for ground and sky.
    """

    rgb: NDArray[np.uint8]
    depth: Plane
    instances: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Trace:
    """What the rays through a grid of image points meet.

    Attributes:
        depth: distance along the optical axis in metres of objects and ground; inf above the horizon.
        instances: object index, -1 for ground and sky.
        silhouettes: (objects,) rays that would meet the object if it stood alone.
    """

    depth: Plane
    instances: NDArray[np.int16]
    silhouettes: NDArray[np.int64]

    @property
    def visible_fractions(self) -> Array:
        """(objects,) visible share of each silhouette in [0, 1]; 0 for an object that no ray meets."""
        seen = np.bincount(self.instances[self.instances >= 0], minlength=len(self.silhouettes))
        return seen / np.maximum(self.silhouettes, 1)

    def box(self, index: int) -> tuple[int, int, int, int] | None:
        """Tight half-open box (left, top, right, bottom) of the visible rays of an object; None if there are none."""
        mask = self.instances == index
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if not len(columns):
            return None
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class _View:
    """The rays of a camera with a known pose, ``samples`` by ``samples`` in each pixel."""

    def __init__(self, camera: Camera, samples: int) -> None:
        if camera.world_to_camera is None:
            raise ValueError("the camera has no world_to_camera pose, so its view cannot be rendered")
        self.camera, self.samples = camera, samples
        self.pose = camera.world_to_camera
        self.rotation = self.pose[:3, :3]
        self.origin = -self.rotation.T @ self.pose[:3, 3]
        u = (np.arange(camera.width * samples) + 0.5) / samples
        v = (np.arange(camera.height * samples) + 0.5) / samples
        self.u = ((u - camera.cx) / camera.fx).astype(np.float32)
        self.v = ((v - camera.cy) / camera.fy).astype(np.float32)
        self.shape = (len(v), len(u))

    def directions(self, rows: Plane, columns: Plane, frame: Array | None = None) -> Vector:
        """Ray directions (unit depth) in the world, or in a frame whose axes are the rows of ``frame``."""
        axes = self.rotation if frame is None else self.rotation @ frame.T
        right, down, forward = axes.astype(np.float32)
        x, y, z = (right[k] * columns + (down[k] * rows + forward[k]) for k in range(3))
        return x, y, z

    def window(self, points: Array) -> Window | None:
        """Smallest block of rays that holds the projections of world points; None if it misses the image."""
        pixels, depth = project(transform(self.pose, points), self.camera)
        if (depth < 0.05).any():
            return slice(0, self.shape[0]), slice(0, self.shape[1])
        low = np.floor(pixels.min(axis=0) * self.samples - 0.5).astype(int)
        high = np.ceil(pixels.max(axis=0) * self.samples + 0.5).astype(int)
        left, top = np.maximum(low, 0)
        right, bottom = np.minimum(high, (self.shape[1], self.shape[0]))
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


class _Solid:
    """An object with its own frame, ready to be hit."""

    def __init__(self, item: SceneObject) -> None:
        if item.shape not in HITS:
            raise ValueError(f"cannot render shape {item.shape!r}; known shapes: {', '.join(HITS)}")
        self.item = item
        self.to_local = rotation_about_z(-item.rotation)
        self.half = _single(item.dimensions / 2)
        self.corners = box_corners(item.position, item.dimensions, item.rotation)

    def origin(self, view: _View, directions: Vector, depth: float) -> Vector:
        """Where the rays are at ``depth``, in the object's frame; starting near it keeps single precision exact."""
        axis = self.to_local @ view.rotation[2]
        middle = self.to_local @ (view.origin - self.item.position) + depth * axis
        forward = _single(axis)
        aside: Vector = (directions[0] - forward[0], directions[1] - forward[1], directions[2] - forward[2])
        return _along(_single(middle), np.float32(depth), aside)


def _single(vector: Array) -> Vector:
    x, y, z = vector.astype(np.float32)
    return x, y, z


def _along(start: Vector, t: Any, direction: Vector) -> Vector:
    return start[0] + t * direction[0], start[1] + t * direction[1], start[2] + t * direction[2]


def trace(scene: Scene, samples: int = 1) -> Trace:
    """Nearest surface along ``samples`` x ``samples`` rays in each pixel; one sample goes through the pixel centre.

    Raises:
        ValueError: a camera without a pose, or an unknown shape.
    """
    view, solids = _View(scene.camera, samples), [_Solid(item) for item in scene.objects]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _trace(view, solids)


def render(scene: Scene, *, samples: int = 2) -> Rendering:
    """Picture of a scene with shading, cast shadows and a one-metre chequered ground.

    Args:
        scene: objects of the shapes in :data:`spatial_lightning.scenes.shapes.SHAPES` and a camera with a pose.
        samples: colour is the mean of ``samples`` x ``samples`` rays in a pixel; depth and instances never are.

    Raises:
        ValueError: a camera without a pose, or an unknown shape, colour or material.
    """
    exact = trace(scene)
    return Rendering(paint(scene, samples=samples), exact.depth, exact.instances)


def paint(scene: Scene, *, samples: int = 2) -> NDArray[np.uint8]:
    """The picture of :func:`render` alone, (height, width, 3)."""
    view, solids = _View(scene.camera, samples), [_Solid(item) for item in scene.objects]
    light = Light.of(scene.light, ground_directions(view.pose))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        hits = _trace(view, solids)
        lit = _sunlight(view, solids, hits, light)
        colour = _background(view, hits, lit, light)
        for index, solid in enumerate(solids):
            _paint_solid(colour, view, solid, index, hits, lit, light)
    parts = [colour[:, i::samples, j::samples] for i in range(samples) for j in range(samples)]
    return to_srgb(np.add.reduce(parts) / np.float32(len(parts)))


def _trace(view: _View, solids: list[_Solid]) -> Trace:
    down = view.directions(view.v[:, None], view.u[None, :])[2]
    depth = np.where(down < 0, np.float32(-view.origin[2]) / down, np.float32(np.inf)).astype(np.float32)
    instances = np.full(view.shape, -1, dtype=np.int16)
    silhouettes = np.zeros(len(solids), dtype=np.int64)
    for index, solid in enumerate(solids):
        window = view.window(solid.corners)
        if window is None:
            continue
        rows, columns = window
        directions = view.directions(view.v[rows, None], view.u[None, columns], solid.to_local)
        start = solid.item.depth
        t = HITS[solid.item.shape](solid.origin(view, directions, start), directions, solid.half) + np.float32(start)
        silhouettes[index] = np.isfinite(t).sum()
        nearer = t < depth[window]
        depth[window][nearer] = t[nearer]
        instances[window][nearer] = index
    return Trace(depth, instances, silhouettes)


def _sunlight(view: _View, solids: list[_Solid], hits: Trace, light: Light) -> Plane:
    """1 where the key light reaches the surface, 0 in a cast shadow."""
    lit = np.ones(view.shape, dtype=np.float32)
    for index, solid in enumerate(solids):
        feet = solid.corners - solid.corners[:, 2:] / light.direction[2] * light.direction
        window = view.window(np.concatenate([solid.corners, feet]))
        if window is None:
            continue
        rows, columns = window
        depth = hits.depth[window]
        directions = view.directions(view.v[rows, None], view.u[None, columns], solid.to_local)
        points = _along(_single(solid.to_local @ (view.origin - solid.item.position)), depth, directions)
        t = HITS[solid.item.shape](points, _single(solid.to_local @ light.direction), solid.half)
        lit[window][np.isfinite(t) & (t > 0) & (hits.instances[window] != index)] = 0
    return lit


def _background(view: _View, hits: Trace, lit: Plane, light: Light) -> Plane:
    """Ground and sky, (3, rows, columns); what objects cover is painted over."""
    across, along, up = view.directions(view.v[:, None], view.u[None, :])
    depth = np.where(np.isfinite(hits.depth), hits.depth, 0)
    x, y = np.float32(view.origin[0]) + depth * across, np.float32(view.origin[1]) + depth * along
    colour = ground_light(x, y, depth, lit, light)
    rows, columns = np.nonzero(hits.depth == np.inf)
    if len(rows):
        colour[:, rows, columns] = sky_light(up[rows, columns])
    return colour


def _paint_solid(colour: Plane, view: _View, solid: _Solid, index: int, hits: Trace, lit: Plane, light: Light) -> None:
    window = view.window(solid.corners)
    if window is None:
        return
    rows, columns = np.nonzero(hits.instances[window] == index)
    rows, columns = rows + window[0].start, columns + window[1].start
    directions = view.directions(view.v[rows], view.u[columns], solid.to_local)
    offset = hits.depth[rows, columns] - np.float32(solid.item.depth)
    point = _along(solid.origin(view, directions, solid.item.depth), offset, directions)
    towards = _single(solid.to_local @ light.direction)
    normal = NORMALS[solid.item.shape](point, solid.half)
    height = point[2] + solid.half[2]
    colour[:, rows, columns] = surface_light(
        solid.item.color, solid.item.material, normal, directions, towards, lit[rows, columns], height
    )
