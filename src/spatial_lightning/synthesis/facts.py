"""What can be measured in a scene, as plain numbers: names, coordinates along the asked axes, sizes and distances."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spatial_lightning.geometry import RELATION_MARGIN
from spatial_lightning.scenes.scene import Scene, SceneObject

DIRECTION_AXES = ("left_right", "front_behind", "above_below")
SIZE_AXES = ("tall_short", "wide_thin", "big_small")
AXES = (*DIRECTION_AXES, *SIZE_AXES)

MARGIN = 0.3
SIZE_MARGIN = 0.15
MIN_VISIBLE = 0.2

_ROUND_SHAPES = ("sphere", "cylinder", "cone")
_NAMING = (("color", "shape"), ("color", "material", "shape"), ("size", "color", "shape"))
_SIZELESS_NAMING = (("color", "shape"), ("color", "material", "shape"))

Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """The numbers that questions, chains of thought and the judge are made from.

    Attributes:
        names: shortest name that fits this object alone; None where even the full name fits several or it is hidden.
        sizeless_names: the same without size words, for questions whose answer a size word would give away.
        words: every word that describes an object (size, colour, material, shape).
        along: coordinate of each object by axis, metres. For the three directions along right, behind and up (of the
            underside); for the sizes the height, the width as seen from the camera, and the cube root of the volume of
            the object's own box.
        center: centres in the scene's right, behind, up frame, metres.
        camera: centres in the camera frame (right, down, forward), metres.
        image: centres as (column, row) in percent of the picture's width and height.
        margin: smallest offset in metres along a direction that may be asked about.
    """

    scene: Scene
    names: tuple[str | None, ...]
    sizeless_names: tuple[str | None, ...]
    words: tuple[frozenset[str], ...]
    along: dict[str, list[float]]
    center: tuple[Point, ...]
    camera: tuple[Point, ...]
    image: tuple[tuple[float, float], ...]
    margin: float = MARGIN

    def name(self, index: int, axis: str) -> str | None:
        """Name to use for an object when ``axis`` is asked; None where the object should not be asked about."""
        return self.sizeless_names[index] if axis in SIZE_AXES else self.names[index]

    def offset(self, axis: str, a: int, b: int) -> float:
        """Coordinate of ``b`` minus coordinate of ``a`` along ``axis``, metres."""
        return self.along[axis][b] - self.along[axis][a]

    def center_offset(self, axis: str, a: int, b: int) -> float:
        """How far the centre of ``b`` lies to the right of, behind or above the centre of ``a``, metres."""
        component = DIRECTION_AXES.index(axis)
        return self.center[b][component] - self.center[a][component]

    def is_clear(self, axis: str, a: int, b: int) -> bool:
        """Whether the two objects differ enough along ``axis`` for nobody to doubt which one has more of it."""
        values = self.along[axis]
        difference = abs(values[b] - values[a])
        if axis in SIZE_AXES:
            return difference >= SIZE_MARGIN * max(values[a], values[b])
        return difference >= self.margin

    def clear_pairs(self, axis: str) -> list[tuple[int, int]]:
        """Pairs (a, b), a before b, that can be named and differ clearly along ``axis``."""
        named = [i for i in range(len(self.names)) if self.name(i, axis) is not None]
        return [(a, b) for n, a in enumerate(named) for b in named[n + 1 :] if self.is_clear(axis, a, b)]

    def distance(self, a: int, b: int) -> float:
        """Distance between the centres, metres."""
        return math.dist(self.center[a], self.center[b])

    def horizontal_distance(self, a: int, b: int) -> float:
        """Distance between the centres along the ground, metres."""
        return math.dist(self.center[a][:2], self.center[b][:2])

    def camera_distance(self, a: int) -> float:
        """Distance of the centre from the optical centre of the camera, metres."""
        return math.hypot(*self.camera[a])


def measure(scene: Scene, *, margin: float = MARGIN, min_visible: float = MIN_VISIBLE) -> SceneFacts:
    """Measure a scene once; both procedural scenes and original CLEVR scenes carry everything that is needed.

    Args:
        margin: smallest offset in metres that may be asked about; CLEVR's own rule is 0.2 m.
        min_visible: objects with a smaller visible share (in [0, 1], where known) are never asked about.

    Raises:
        ValueError: a margin below CLEVR's 0.2 m, where ``relationships`` would contradict the answers.
    """
    if margin < RELATION_MARGIN:
        raise ValueError(f"margin is {margin} m; it must be at least {RELATION_MARGIN} m, CLEVR's rule for a relation")
    objects = scene.objects
    right, behind = scene.directions["right"].tolist(), scene.directions["behind"].tolist()
    positions = [item.position.tolist() for item in objects]
    dimensions = [item.dimensions.tolist() for item in objects]
    center = tuple((_dot(p, right), _dot(p, behind), p[2]) for p in positions)
    angle = math.degrees(math.atan2(right[1], right[0]))
    along = {
        "left_right": [c[0] for c in center],
        "front_behind": [c[1] for c in center],
        "above_below": [c[2] - d[2] / 2 for c, d in zip(center, dimensions, strict=True)],
        "tall_short": [d[2] for d in dimensions],
        "wide_thin": [_seen_width(o, d, angle) for o, d in zip(objects, dimensions, strict=True)],
        "big_small": [(d[0] * d[1] * d[2]) ** (1 / 3) for d in dimensions],
    }
    view = scene.camera
    hidden = {i for i, o in enumerate(objects) if o.visible_fraction is not None and o.visible_fraction < min_visible}
    return SceneFacts(
        scene=scene,
        names=_unique_names(objects, _NAMING, hidden, full=True),
        sizeless_names=_unique_names(objects, _SIZELESS_NAMING, hidden, full=False),
        words=tuple(frozenset((o.size, o.color, o.material, o.shape)) for o in objects),
        along=along,
        center=center,
        camera=tuple(
            (
                (o.pixel[0] - view.cx) * o.depth / view.fx,
                (o.pixel[1] - view.cy) * o.depth / view.fy,
                float(o.depth),
            )
            for o in objects
        ),
        image=tuple((100 * o.pixel[0] / view.width, 100 * o.pixel[1] / view.height) for o in objects),
        margin=margin,
    )


def _dot(a: list[float], b: list[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _seen_width(item: SceneObject, dimensions: list[float], view_angle: float) -> float:
    if item.shape in _ROUND_SHAPES:
        return max(dimensions[0], dimensions[1])
    turn = math.radians(item.rotation - view_angle)
    return abs(dimensions[0] * math.cos(turn)) + abs(dimensions[1] * math.sin(turn))


def _unique_names(
    objects: tuple[SceneObject, ...], namings: tuple[tuple[str, ...], ...], hidden: set[int], full: bool
) -> tuple[str | None, ...]:
    candidates = [[" ".join(getattr(o, part) for part in naming) for o in objects] for naming in namings]
    if full:
        candidates.append([o.name for o in objects])
    names: list[str | None] = [None] * len(objects)
    for spoken in reversed(candidates):
        for index, name in enumerate(spoken):
            if index not in hidden and spoken.count(name) == 1:
                names[index] = name
    return tuple(names)
