"""Frames, units, relations and directions: the plain geometry that scenes, synthesis and evaluation agree on.

Camera frame: x right, y down, z forward. World and canonical frames: z up. All are right-handed; lengths are metres,
angles degrees. Pixel coordinates are continuous and start at the top left corner of the image, so the centre of the
pixel in column ``j`` and row ``i`` is ``(j + 0.5, i + 0.5)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

RELATIONS = ("left", "right", "front", "behind")
RELATION_MARGIN = 0.2
"""Metres by which an object must be displaced along a direction for CLEVR to call it, e.g., ``left``."""

METRES_PER_UNIT: Mapping[str, float] = MappingProxyType(
    {
        "millimetre": 0.001,
        "centimetre": 0.01,
        "decimetre": 0.1,
        "metre": 1.0,
        "kilometre": 1000.0,
        "inch": 0.0254,
        "foot": 0.3048,
        "yard": 0.9144,
        "mile": 1609.344,
    }
)
_UNIT_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "millimetre": ("mm", "millimetres", "millimeter", "millimeters"),
    "centimetre": ("cm", "centimetres", "centimeter", "centimeters"),
    "decimetre": ("dm", "decimetres", "decimeter", "decimeters"),
    "metre": ("m", "metres", "meter", "meters"),
    "kilometre": ("km", "kilometres", "kilometer", "kilometers"),
    "inch": ("in", "inches", '"', "″"),
    "foot": ("ft", "feet", "'", "′"),
    "yard": ("yd", "yards"),
    "mile": ("mi", "miles"),
}
_CANONICAL_UNIT = {spelling: unit for unit, all_ in _UNIT_SPELLINGS.items() for spelling in (unit, *all_)}


class PinholeCamera(Protocol):
    """Focal lengths and principal point, in pixels."""

    @property
    def fx(self) -> float: ...
    @property
    def fy(self) -> float: ...
    @property
    def cx(self) -> float: ...
    @property
    def cy(self) -> float: ...


def unit_name(unit: str) -> str:
    """The one name of a length unit that may be spelled ``ft``, ``Feet``, ``meters``, ``cm.``, ...

    Raises:
        ValueError: the unit is not a known length.
    """
    spelling = unit.strip().lower()
    name = _CANONICAL_UNIT.get(spelling) or _CANONICAL_UNIT.get(spelling.rstrip("."))
    if name is None:
        raise ValueError(f"{unit!r} is not a known length unit; use one of {', '.join(METRES_PER_UNIT)}")
    return name


def to_metres(value: float, unit: str) -> float:
    """A length given in ``unit`` (any common spelling), in metres.

    Raises:
        ValueError: the unit is not a known length.
    """
    return value * METRES_PER_UNIT[unit_name(unit)]


def from_metres(metres: float, unit: str) -> float:
    """A length in metres, expressed in ``unit`` (any common spelling).

    Raises:
        ValueError: the unit is not a known length.
    """
    return metres / METRES_PER_UNIT[unit_name(unit)]


def unproject(pixels: ArrayLike, depth: ArrayLike, camera: PinholeCamera) -> Array:
    """Camera-frame points of pixels whose distance along the optical axis is known.

    Args:
        pixels: (..., 2) column and row, pixels from the top left corner.
        depth: (...) distance along the optical axis, metres (not the length of the ray).
        camera: intrinsics.

    Returns:
        (..., 3) points in metres: x right, y down, z forward.
    """
    uv, z = np.asarray(pixels, dtype=np.float64), np.asarray(depth, dtype=np.float64)
    return np.stack([(uv[..., 0] - camera.cx) * z / camera.fx, (uv[..., 1] - camera.cy) * z / camera.fy, z], axis=-1)


def project(points: ArrayLike, camera: PinholeCamera) -> tuple[Array, Array]:
    """Pixels (..., 2) and depth (...) in metres of camera-frame points (..., 3); inverse of :func:`unproject`.

    Pixels of points at or behind the camera plane (depth <= 0) are nan.
    """
    xyz = np.asarray(points, dtype=np.float64)
    z = xyz[..., 2]
    safe = np.where(z > 0, z, np.nan)
    pixels = np.stack([xyz[..., 0] / safe * camera.fx + camera.cx, xyz[..., 1] / safe * camera.fy + camera.cy], axis=-1)
    return pixels, z


def unproject_depth_map(depth: ArrayLike, camera: PinholeCamera) -> Array:
    """Camera-frame point (height, width, 3) of every pixel centre of a z-depth map (height, width) in metres.

    Points are nan where the depth is not finite, as in the sky.
    """
    z = np.asarray(depth, dtype=np.float64)
    z = np.where(np.isfinite(z), z, np.nan)
    rows, columns = np.meshgrid(np.arange(z.shape[0]) + 0.5, np.arange(z.shape[1]) + 0.5, indexing="ij")
    return unproject(np.stack([columns, rows], axis=-1), z, camera)


def transform(matrix: ArrayLike, points: ArrayLike) -> Array:
    """Apply a 4x4 rigid transform to points (..., 3)."""
    pose = np.asarray(matrix, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ pose[:3, :3].T + pose[:3, 3]


def invert_rigid(matrix: ArrayLike) -> Array:
    """Inverse of a 4x4 rigid transform (a rotation and a translation)."""
    pose = np.asarray(matrix, dtype=np.float64)
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def canonical_frame(normal: ArrayLike, offset: float) -> Array:
    """4x4 camera-to-canonical transform of a ground plane seen by a camera (arXiv:2401.12168, App. A).

    The canonical frame has its origin where the camera projects onto the ground, x forward (the optical axis projected
    on the ground), y left and z up. The paper's text says so; the matrix that it prints points x backwards instead.

    Args:
        normal: (3,) plane normal in the camera frame, of any length and either sign.
        offset: plane offset, ``normal . p + offset = 0`` for points p of the ground.

    Raises:
        ValueError: a zero normal, or a camera that looks straight along the normal, where forward is not defined.
    """
    n = np.asarray(normal, dtype=np.float64)
    length = float(np.linalg.norm(n))
    if n.shape != (3,) or not np.isfinite(length) or length == 0:
        raise ValueError(f"a ground plane needs a finite, non-zero normal of 3 numbers, got {normal!r}")
    sign = -1.0 if n @ np.array([0.0, -1.0, 0.0]) < 0 else 1.0
    n, d = sign * n / length, sign * offset / length
    axis = np.array([0.0, 0.0, 1.0])
    forward = axis - (n @ axis) * n
    if np.linalg.norm(forward) < 1e-6:
        raise ValueError(
            f"the camera looks along the ground normal {n.tolist()}, so 'forward' is not defined; tilt the camera"
        )
    forward /= np.linalg.norm(forward)
    frame = np.eye(4)
    frame[:3, :3] = np.stack([forward, np.cross(n, forward), n])
    frame[2, 3] = d
    return frame


def ground_plane(world_to_camera: ArrayLike) -> tuple[Array, float]:
    """Normal (3,) in the camera frame and offset in metres of the world's ground z = 0, for :func:`canonical_frame`."""
    pose = np.asarray(world_to_camera, dtype=np.float64)
    normal = pose[:3, 2]
    return normal.copy(), float(-normal @ pose[:3, 3])


def ground_directions(world_to_camera: ArrayLike) -> dict[str, Array]:
    """CLEVR's six unit vectors in the world frame: left, right, front and behind as the camera sees them, above, below.

    ``behind`` is the viewing direction projected on the ground, ``front`` points back at the camera.

    Raises:
        ValueError: the camera looks straight down or up, where these are not defined.
    """
    rotation = np.asarray(world_to_camera, dtype=np.float64)[:3, :3]
    up = np.array([0.0, 0.0, 1.0])
    right, behind = _on_ground(rotation[0]), _on_ground(rotation[2])
    return {"right": right, "behind": behind, "above": up, "left": -right, "front": -behind, "below": -up}


def _on_ground(vector: Array) -> Array:
    flat = np.array([vector[0], vector[1], 0.0])
    length = np.linalg.norm(flat)
    if length < 1e-6:
        raise ValueError(
            f"the camera axis {vector.tolist()} is vertical, so it has no direction on the ground; tilt the camera"
        )
    return flat / length


def relationships(
    positions: ArrayLike, directions: Mapping[str, ArrayLike], *, margin: float = RELATION_MARGIN
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """CLEVR's relations (arXiv:1612.06890): ``result[r][i]`` lists the objects in direction ``r`` of object ``i``.

    Object j is in direction ``r`` of i when its offset ``(p_j - p_i) . directions[r]`` is above ``margin``.

    Args:
        positions: (n, 3) centres in the world frame, metres.
        directions: unit vectors in the world frame; left, right, front and behind are used.
        margin: least offset, metres.
    """
    points = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    result: dict[str, tuple[tuple[int, ...], ...]] = {}
    for relation in RELATIONS:
        along = points @ np.asarray(directions[relation], dtype=np.float64)
        holds = (along[None, :] - along[:, None]) > margin
        result[relation] = tuple(tuple(int(j) for j in np.flatnonzero(row)) for row in holds)
    return result


def distance(a: ArrayLike, b: ArrayLike) -> Any:
    """Distance between points (..., 3) in metres; a scalar for two single points."""
    return np.linalg.norm(np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64), axis=-1)


def horizontal_distance(a: ArrayLike, b: ArrayLike) -> Any:
    """Distance along the ground between points (..., 3) of a frame whose z axis is up, metres, >= 0."""
    return np.linalg.norm((np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64))[..., :2], axis=-1)


def vertical_distance(a: ArrayLike, b: ArrayLike) -> Any:
    """Difference in height between points (..., 3) of a frame whose z axis is up, metres, >= 0."""
    return np.abs(np.asarray(b, dtype=np.float64)[..., 2] - np.asarray(a, dtype=np.float64)[..., 2])


def clock_hour(forward: float, left: float) -> int:
    """Direction on a clock face, 1 to 12, 30 degrees an hour: 12 is straight ahead, 3 to the right (arXiv:2406.01584).

    Raises:
        ValueError: both components are zero, which is no direction.
    """
    if forward == 0 and left == 0:
        raise ValueError("a zero offset has no direction: the two points coincide on the ground")
    return round(float(np.degrees(np.arctan2(-left, forward))) / 30) % 12 or 12


def rotation_about_z(degrees: float) -> Array:
    """3x3 rotation about the up axis, counter-clockwise seen from above."""
    angle = np.radians(degrees)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def box_corners(center: ArrayLike, dimensions: ArrayLike, rotation: float = 0.0) -> Array:
    """Corners (8, 3) of a box that stands upright and is turned about the z axis.

    Args:
        center: (3,) centre, metres.
        dimensions: (3,) full extents along the box's own axes, metres.
        rotation: degrees about z.

    Returns:
        Corners in the order of the binary digits of their index: bit 2 is +x, bit 1 is +y, bit 0 is +z.
    """
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    offsets = signs * np.asarray(dimensions, dtype=np.float64)
    return offsets @ rotation_about_z(rotation).T + np.asarray(center, dtype=np.float64)
