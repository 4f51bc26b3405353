"""Where rays meet the solids of a scene: convex shapes in their own frame, centred at the origin, z up.

A ray is ``origin + t * direction``; both are triples of arrays (or scalars) that broadcast. ``half`` holds half the
extents, metres. A hit function returns the entry parameter t: inf where the ray misses, negative where the solid lies
behind the origin. Rays must start outside; a ray along a face may divide by zero, which counts as a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Vector = tuple[Any, Any, Any]
_INF = np.float32(np.inf)


def hit_cube(origin: Vector, direction: Vector, half: Vector) -> Plane:
    """Entry into the box of half extents ``half``."""
    near, far = _slab(origin[0], direction[0], half[0])
    for axis in (1, 2):
        near_axis, far_axis = _slab(origin[axis], direction[axis], half[axis])
        near, far = np.maximum(near, near_axis), np.minimum(far, far_axis)
    return np.where(near <= far, near, _INF)


def hit_sphere(origin: Vector, direction: Vector, half: Vector) -> Plane:
    """Entry into the sphere of radius ``half[2]``."""
    a = direction[0] ** 2 + direction[1] ** 2 + direction[2] ** 2
    b = origin[0] * direction[0] + origin[1] * direction[1] + origin[2] * direction[2]
    c = origin[0] ** 2 + origin[1] ** 2 + origin[2] ** 2 - half[2] ** 2
    discriminant = b * b - a * c
    near = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
    return np.where(discriminant >= 0, near, _INF)


def hit_cylinder(origin: Vector, direction: Vector, half: Vector) -> Plane:
    """Entry into the upright cylinder of radius ``half[0]``, caps included."""
    a = direction[0] ** 2 + direction[1] ** 2
    b = origin[0] * direction[0] + origin[1] * direction[1]
    c = origin[0] ** 2 + origin[1] ** 2 - half[0] ** 2
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    near_cap, far_cap = _slab(origin[2], direction[2], half[2])
    near, far = np.maximum((-b - root) / a, near_cap), np.minimum((-b + root) / a, far_cap)
    return np.where((discriminant >= 0) & (near <= far), near, _INF)


def hit_cone(origin: Vector, direction: Vector, half: Vector) -> Plane:
    """Entry into the upright cone of base radius ``half[0]``, apex at ``+half[2]``, base at ``-half[2]``."""
    slope2 = (half[0] / (2 * half[2])) ** 2
    below_apex = half[2] - origin[2]
    a = direction[0] ** 2 + direction[1] ** 2 - slope2 * direction[2] ** 2
    b = origin[0] * direction[0] + origin[1] * direction[1] + slope2 * below_apex * direction[2]
    c = origin[0] ** 2 + origin[1] ** 2 - slope2 * below_apex**2
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    base = (-half[2] - origin[2]) / direction[2]
    nearest = np.where(
        (origin[0] + base * direction[0]) ** 2 + (origin[1] + base * direction[1]) ** 2 <= half[0] ** 2, base, _INF
    )
    for t in ((-b - root) / a, (-b + root) / a):
        height = origin[2] + t * direction[2]
        on_side = (discriminant >= 0) & (np.abs(height) <= half[2])
        nearest = np.minimum(nearest, np.where(on_side, t, _INF))
    return nearest


def normal_cube(point: Vector, half: Vector) -> Vector:
    """Outward unit normal of the box at a surface point."""
    scaled = [point[axis] / half[axis] for axis in range(3)]
    size = [np.abs(value) for value in scaled]
    on_z = (size[2] >= size[0]) & (size[2] >= size[1])
    on_x = ~on_z & (size[0] >= size[1])
    on_y = ~(on_z | on_x)
    x, y, z = (np.where(face, np.sign(value), 0) for face, value in zip((on_x, on_y, on_z), scaled, strict=True))
    return x, y, z


def normal_sphere(point: Vector, half: Vector) -> Vector:
    """Outward unit normal of the sphere at a surface point."""
    return point[0] / half[2], point[1] / half[2], point[2] / half[2]


def normal_cylinder(point: Vector, half: Vector) -> Vector:
    """Outward unit normal of the cylinder at a surface point."""
    cap = np.abs(point[2]) >= half[2] * np.float32(1 - 1e-4)
    side = np.where(cap, np.float32(0), 1 / half[0])
    return point[0] * side, point[1] * side, np.where(cap, np.sign(point[2]), np.float32(0))


def normal_cone(point: Vector, half: Vector) -> Vector:
    """Outward unit normal of the cone at a surface point of its side (the base rests on the ground)."""
    radius = np.sqrt(point[0] ** 2 + point[1] ** 2) + np.float32(1e-9)
    length = np.sqrt(half[0] ** 2 + (2 * half[2]) ** 2)
    outward, upward = 2 * half[2] / length, half[0] / length
    return point[0] / radius * outward, point[1] / radius * outward, np.full_like(radius, upward)


def _slab(origin: Any, direction: Any, half: Any) -> tuple[Any, Any]:
    inverse = 1 / direction
    centre, reach = -origin * inverse, np.abs(half * inverse)
    return centre - reach, centre + reach


Hit = Callable[[Vector, Vector, Vector], Plane]
Normal = Callable[[Vector, Vector], Vector]

HITS: Mapping[str, Hit] = {"cube": hit_cube, "sphere": hit_sphere, "cylinder": hit_cylinder, "cone": hit_cone}
NORMALS: Mapping[str, Normal] = {
    "cube": normal_cube,
    "sphere": normal_sphere,
    "cylinder": normal_cylinder,
    "cone": normal_cone,
}
SHAPES = tuple(HITS)
