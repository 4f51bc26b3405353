"""How light looks: colours and materials of objects, the chequered ground and the sky; linear until the last step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_lightning.scenes.scene import Array

Plane = NDArray[np.float32]

COLORS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "gray": (87, 87, 87),
        "red": (173, 35, 35),
        "blue": (42, 75, 215),
        "green": (29, 105, 20),
        "brown": (129, 74, 25),
        "purple": (129, 38, 192),
        "cyan": (41, 208, 208),
        "yellow": (255, 238, 51),
    }
)
"""sRGB of CLEVR's eight object colours (arXiv:1612.06890)."""
MATERIALS = ("rubber", "metal")

_AMBIENT, _KEY = np.float32(0.38), np.float32(0.95)
_TILE_LIGHT = np.array([0.50, 0.49, 0.47], dtype=np.float32)
_TILE_DARK = np.array([0.31, 0.31, 0.32], dtype=np.float32)
_HAZE = np.array([0.52, 0.55, 0.60], dtype=np.float32)
_ZENITH = np.array([0.30, 0.38, 0.52], dtype=np.float32)
_CHALK = np.float32(0.03)
_HAZE_DISTANCE = np.float32(24.0)
_LEVELS = 4096
_ALBEDO = {
    name: ((np.array(rgb) / 255.0) ** 2.2 * 1.15).clip(0.012, 0.9).astype(np.float32) for name, rgb in COLORS.items()
}
_CURVE = np.round(255 * np.linspace(0, 1, _LEVELS) ** (1 / 2.2)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Light:
    """A distant key light.

    Attributes:
        direction: (3,) unit vector in the world frame that points at the light; its z is positive.
    """

    direction: Array

    @staticmethod
    def of(direction: Array | None, directions: Mapping[str, Array]) -> Light:
        """The light of a scene; where the scene names none, one over the camera's left shoulder.

        Raises:
            ValueError: the light lies on or below the horizon.
        """
        if direction is None:
            direction = 0.7 * directions["left"] + 0.35 * directions["front"] + 1.1 * directions["above"]
        vector = np.asarray(direction, dtype=np.float64)
        unit = vector / np.linalg.norm(vector)
        if not unit[2] > 0.05:
            raise ValueError(f"the light must stand above the horizon, its direction {direction!r} points below")
        return Light(unit)


def ground_light(x: Plane, y: Plane, depth: Plane, lit: Plane, light: Light) -> Plane:
    """Colour (3, ...) of the ground at world x, y in metres: one-metre tiles that fade into haze with depth."""
    odd = (np.floor(x).astype(np.int32) + np.floor(y).astype(np.int32)) & 1
    contrast = np.exp(-((depth / _HAZE_DISTANCE) ** 2))
    weight = (odd - np.float32(0.5)) * contrast + np.float32(0.5)
    strength = (_AMBIENT + _KEY * np.float32(light.direction[2]) * lit) * contrast
    haze = 1 - contrast
    channels = zip(_TILE_DARK, _TILE_LIGHT - _TILE_DARK, _HAZE, strict=True)
    return np.stack([(dark + step * weight) * strength + air * haze for dark, step, air in channels])


def sky_light(up: Plane) -> Plane:
    """Colour (3, ...) of the sky for view directions whose z component is ``up``."""
    rise = np.clip(up * np.float32(2.5), 0, 1)
    return np.stack([air + rise * (zenith - air) for air, zenith in zip(_HAZE, _ZENITH, strict=True)])


def surface_light(
    color: str,
    material: str,
    normal: tuple[Plane, Plane, Plane],
    view: tuple[Plane, Plane, Plane],
    towards: tuple[Any, Any, Any],
    lit: Plane,
    height: Plane,
) -> Plane:
    """Colour (3, points) of an object's surface.

    Args:
        color: a key of :data:`COLORS`.
        material: ``rubber`` (matt) or ``metal`` (mirrors sky and ground, sharp highlight).
        normal: outward unit normals.
        view: ray directions, of any length, in the frame of the normals.
        towards: (3,) unit vector at the light, in the same frame.
        lit: 1 where the key light reaches the point, else 0.
        height: metres above the ground; surfaces darken where they touch it.

    Raises:
        ValueError: an unknown colour or material.
    """
    if color not in _ALBEDO or material not in MATERIALS:
        raise ValueError(
            f"cannot shade {color!r} {material!r}; colours: {', '.join(COLORS)}; materials: {', '.join(MATERIALS)}"
        )
    albedo = _ALBEDO[color]
    length = np.sqrt(view[0] ** 2 + view[1] ** 2 + view[2] ** 2)
    cosine = np.maximum(normal[0] * towards[0] + normal[1] * towards[1] + normal[2] * towards[2], 0) * lit
    facing = (normal[0] * view[0] + normal[1] * view[1] + normal[2] * view[2]) / length
    mirrored = [view[k] / length - 2 * facing * normal[k] for k in range(3)]
    glint = np.maximum(mirrored[0] * towards[0] + mirrored[1] * towards[1] + mirrored[2] * towards[2], 0) * lit
    contact = np.float32(0.55) + np.float32(0.45) * np.clip(height * np.float32(2.5), 0, 1)
    ambient = _AMBIENT * (np.float32(0.75) + np.float32(0.35) * normal[2]) * contact
    if material == "rubber":
        strength = ambient + _KEY * cosine
        return (_CHALK + (1 - _CHALK) * albedo)[:, None] * strength + np.float32(0.03) * glint**6
    above = np.float32(0.10) + np.float32(1.15) * np.clip(mirrored[2], 0, 1) ** 2
    below = np.float32(0.50) * contact * np.clip(1 + np.float32(1.5) * mirrored[2], 0, 1)
    surroundings = np.where(mirrored[2] > 0, above, below)
    panel = np.clip((glint - np.float32(0.90)) * 25, 0, 1)
    strength = np.float32(0.42) * (ambient + _KEY * cosine) + surroundings + np.float32(0.8) * panel
    white = np.float32(0.75) * panel + np.float32(0.3) * (1 + facing) ** 4 * surroundings
    return albedo[:, None] * strength + white


def to_srgb(linear: Plane) -> NDArray[np.uint8]:
    """Linear light (3, height, width), clipped to [0, 1], as 8-bit sRGB (height, width, 3) with gamma 2.2."""
    level = np.clip(linear, 0, 1).transpose(1, 2, 0) * np.float32(_LEVELS - 1)
    return _CURVE[np.rint(level).astype(np.int16)]
