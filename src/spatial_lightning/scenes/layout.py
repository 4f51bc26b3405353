"""Scenes as JSON: the rows of a CLEVR v1.0 scene file, ours with more fields than the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from spatial_lightning.geometry import RELATIONS, box_corners, unproject
from spatial_lightning.records import RecordError
from spatial_lightning.scenes.scene import Array, Camera, Scene, SceneObject

CLEVR_CAMERA = Camera(width=480, height=320, fx=525.0, fy=525.0, cx=240.0, cy=160.0)
"""The camera of the original CLEVR v1.0 images (35 mm lens, 32 mm sensor); its pose was not published."""
CLEVR_RADII: Mapping[str, float] = MappingProxyType({"large": 0.7, "small": 0.35})
CLEVR_CUBE_SHRINKAGE = 0.96
"""Side of CLEVR's bevelled cube over twice its radius: where box outlines best meet the edges in the real images.

Tried from 0.71 (the factor 1/sqrt(2) of the released generator) to 1.03; spheres and cylinders fit at 1.
"""
DIRECTIONS = (*RELATIONS, "above", "below")


def to_row(scene: Scene) -> dict[str, Any]:
    """The scene as one entry of ``scenes`` in a CLEVR scene file.

    Beyond CLEVR's own keys: ``difficulty``, ``light``, ``camera`` and, for each object, ``dimensions`` and ``corners``
    (metres, world frame), ``visible_fraction`` and ``box2d``. ``pixel_coords`` keeps fractions of a pixel.
    """
    row: dict[str, Any] = {
        "image_index": scene.index,
        "image_filename": scene.image.name,
        "split": scene.split,
        "objects": [_object_row(item) for item in scene.objects],
        "relationships": {name: [list(others) for others in lists] for name, lists in scene.relationships.items()},
        "directions": {name: vector.tolist() for name, vector in scene.directions.items()},
    }
    camera = scene.camera
    if camera.world_to_camera is not None:
        numbers = {name: getattr(camera, name) for name in ("width", "height", "fx", "fy", "cx", "cy")}
        row["camera"] = numbers | {"world_to_camera": camera.world_to_camera.tolist()}
    if scene.difficulty is not None:
        row["difficulty"] = scene.difficulty
    if scene.light is not None:
        row["light"] = scene.light.tolist()
    return row


def from_row(row: Any, images: Path) -> Scene:
    """Read one entry of a CLEVR scene file, original or ours; ``images`` is the folder of the split's pictures.

    Original files name neither a camera nor extents: they get :data:`CLEVR_CAMERA`, the extents of
    :func:`clevr_dimensions` and the turn of :func:`clevr_rotation`.

    Raises:
        RecordError: a field is missing, has the wrong type or length, or contradicts another one.
    """
    if not isinstance(row, Mapping):
        raise RecordError(f"a scene must be a JSON object, got {type(row).__name__}")
    try:
        objects = tuple(_object(entry) for entry in row["objects"])
        directions = {name: _vector(row["directions"][name], f"direction {name}") for name in DIRECTIONS}
        relations = {name: _lists(row["relationships"][name], name, len(objects)) for name in RELATIONS}
        return Scene(
            index=int(row["image_index"]),
            split=str(row["split"]),
            image=images / str(row["image_filename"]),
            objects=objects,
            camera=_camera(row["camera"]) if "camera" in row else CLEVR_CAMERA,
            directions=directions,
            relationships=relations,
            difficulty=row.get("difficulty"),
            light=_vector(row["light"], "light") if row.get("light") is not None else None,
        )
    except KeyError as error:
        raise RecordError(f"field {error.args[0]!r} is missing") from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"a field has the wrong type: {error}") from error


def clevr_dimensions(shape: str, size: str) -> Array:
    """Full extents (3,) in metres of an original CLEVR object: twice the radius, a little less for the bevelled cube.

    Raises:
        RecordError: a size that CLEVR does not have.
    """
    if size not in CLEVR_RADII:
        raise RecordError(f"object size is {size!r}; allowed without 'dimensions': {', '.join(CLEVR_RADII)}")
    return np.full(3, 2 * CLEVR_RADII[size] * (CLEVR_CUBE_SHRINKAGE if shape == "cube" else 1.0))


def clevr_rotation(recorded: float) -> float:
    """Degrees about z that an original CLEVR object was turned by.

    The published ``rotation`` is a number in [0, 360) that the renderer took for radians: cubes stand in the pictures
    turned by that many radians, not degrees.
    """
    return float(np.degrees(recorded) % 360)


def camera_points(scene: Scene) -> Array:
    """Object centres (n, 3) in the camera frame (x right, y down, z forward), metres, from their pixels and depths.

    Pixels of original CLEVR scenes are whole numbers; distances between these points agree with the world frame to
    0.12 % (median).
    """
    if not scene.objects:
        return np.zeros((0, 3))
    return unproject([item.pixel for item in scene.objects], [item.depth for item in scene.objects], scene.camera)


def _object_row(item: SceneObject) -> dict[str, Any]:
    return {
        "color": item.color,
        "size": item.size,
        "rotation": item.rotation,
        "shape": item.shape,
        "material": item.material,
        "3d_coords": item.position.tolist(),
        "pixel_coords": [*item.pixel, item.depth],
        "dimensions": item.dimensions.tolist(),
        "corners": box_corners(item.position, item.dimensions, item.rotation).tolist(),
        "visible_fraction": item.visible_fraction,
        "box2d": None if item.box2d is None else list(item.box2d),
    }


def _object(entry: Mapping[str, Any]) -> SceneObject:
    shape, size = str(entry["shape"]), str(entry["size"])
    column, row, depth = _vector(entry["pixel_coords"], "pixel_coords").tolist()
    if not depth > 0:
        raise RecordError(f"pixel_coords of a {shape} give depth {depth}; a visible object has a positive depth")
    given = entry.get("dimensions")
    visible, box = entry.get("visible_fraction"), entry.get("box2d")
    return SceneObject(
        shape=shape,
        color=str(entry["color"]),
        material=str(entry["material"]),
        size=size,
        position=_vector(entry["3d_coords"], "3d_coords"),
        rotation=clevr_rotation(float(entry["rotation"])) if given is None else float(entry["rotation"]),
        dimensions=clevr_dimensions(shape, size) if given is None else _vector(given, "dimensions"),
        pixel=(column, row),
        depth=depth,
        visible_fraction=None if visible is None else float(visible),
        box2d=None if box is None else _box(box),
    )


def _camera(entry: Mapping[str, Any]) -> Camera:
    pose = np.asarray(entry["world_to_camera"], dtype=np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise RecordError(f"camera.world_to_camera must be 4 x 4 finite numbers, got shape {pose.shape}")
    focal = {name: float(entry[name]) for name in ("fx", "fy", "cx", "cy")}
    return Camera(width=int(entry["width"]), height=int(entry["height"]), **focal, world_to_camera=pose)


def _vector(values: Any, what: str) -> Array:
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise RecordError(f"{what} must be 3 finite numbers, got {values!r}")
    return vector


def _box(values: Sequence[Any]) -> tuple[int, int, int, int]:
    if len(values) != 4:
        raise RecordError(f"box2d must be left, top, right, bottom, got {values!r}")
    left, top, right, bottom = (int(value) for value in values)
    return left, top, right, bottom


def _lists(values: Any, relation: str, count: int) -> tuple[tuple[int, ...], ...]:
    lists = tuple(tuple(int(other) for other in others) for others in values)
    if len(lists) != count:
        raise RecordError(f"relationships.{relation} has {len(lists)} lists for {count} objects")
    if any(not 0 <= other < count for others in lists for other in others):
        raise RecordError(f"relationships.{relation} names an object outside 0 to {count - 1}")
    return lists
