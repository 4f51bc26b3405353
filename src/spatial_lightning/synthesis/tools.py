"""Tools that a policy may call about a scene, after SAM 2, Depth Anything and TRELLIS (arXiv:2511.00054), answered exactly."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from spatial_lightning.steps import StepError
from spatial_lightning.synthesis.facts import SceneFacts
from spatial_lightning.synthesis.tool_pictures import draw_boxes, draw_depth, draw_map

SEGMENT, DEPTH, TOP_DOWN = "segment", "depth", "top_down"
TOOLS: Mapping[str, str] = MappingProxyType(
    {
        SEGMENT: "objects from left to right: name, centre column, height; percent of the picture",
        DEPTH: "objects from near to far: name, distance along the optical axis; metres",
        TOP_DOWN: "objects from left to right on the ground: name, metres right of the leftmost, metres behind the frontmost",
    }
)
"""What each tool returns."""
_DRAW: Mapping[str, Callable[[SceneFacts, Path], None]] = MappingProxyType(
    {SEGMENT: draw_boxes, DEPTH: draw_depth, TOP_DOWN: draw_map}
)

Readings = Mapping[str, Mapping[str, tuple[float, ...]]]
"""What each tool shows of each object, rounded as it is written."""


def read_scene(facts: SceneFacts) -> Readings:
    """The numbers that the tools show of every object that has a name; see :data:`TOOLS`."""
    named = [(index, name) for index, name in enumerate(facts.names) if name is not None]
    view = facts.scene.camera
    left = min((facts.center[index][0] for index, _ in named), default=0.0)
    front = min((facts.center[index][1] for index, _ in named), default=0.0)
    segment: dict[str, tuple[float, ...]] = {}
    depth: dict[str, tuple[float, ...]] = {}
    top_down: dict[str, tuple[float, ...]] = {}
    for index, name in named:
        height = 100 * view.fy * facts.along["tall_short"][index] / facts.camera[index][2] / view.height
        segment[name] = (float(round(facts.image[index][0])), float(round(height)))
        depth[name] = (round(facts.camera[index][2], 1),)
        top_down[name] = (round(facts.center[index][0] - left, 1), round(facts.center[index][1] - front, 1))
    return {SEGMENT: segment, DEPTH: depth, TOP_DOWN: top_down}


@dataclass(frozen=True, slots=True)
class Observation:
    """What a tool gave back: text, and the picture if the tools draw."""

    text: str
    images: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Toolbox:
    """The tools at work on one scene.

    Attributes:
        pictures: folder into which tools draw; None for tools that answer in text alone.
    """

    facts: SceneFacts
    readings: Readings
    pictures: Path | None = None
    _drawn: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def use(self, tool: str) -> Observation:
        """What a tool says about the scene.

        Raises:
            StepError: there is no such tool.
        """
        if tool not in TOOLS:
            raise StepError(f"there is no tool {tool!r}; allowed: {', '.join(TOOLS)}")
        shown = sorted(self.readings[tool].items(), key=lambda item: item[1])
        text = "; ".join(f"{name} {','.join(f'{number:g}' for number in numbers)}" for name, numbers in shown)
        if self.pictures is None:
            return Observation(text or "nothing")
        scene = self.facts.scene
        path = self.pictures / f"{scene.split}-{scene.index:06d}-{tool}.png"
        if tool not in self._drawn:
            path.parent.mkdir(parents=True, exist_ok=True)
            # In one step: another run may be reading the picture.
            part = path.with_name(f"{path.stem}.{os.getpid()}.part.png")
            _DRAW[tool](self.facts, part)
            part.replace(path)
            self._drawn.add(tool)
        return Observation(text or "nothing", (path,))
