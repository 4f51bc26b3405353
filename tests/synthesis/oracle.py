"""The truth of a question, worked out from its text and the raw scene alone, without the package's own facts."""

from __future__ import annotations

import re

import numpy as np

from spatial_lightning.geometry import box_corners
from spatial_lightning.records import Question
from spatial_lightning.scenes import Scene

OPPOSITE = {
    "left": "right",
    "front": "behind",
    "above": "below",
    "taller": "shorter",
    "wider": "thinner",
    "bigger": "smaller",
}
OPPOSITE |= {value: key for key, value in OPPOSITE.items()}
_ASKED = {
    "further left": "left",
    "further right": "right",
    "further in front": "front",
    "further behind": "behind",
    "higher up": "above",
    "lower down": "below",
    "in front of": "front",
}


def objects_in(text: str, scene: Scene) -> list[int]:
    """Objects in the order in which the text names them; every name must fit exactly one object."""
    words = {word for item in scene.objects for word in (item.size, item.color, item.material, item.shape)}
    names = re.findall(rf"the ((?:(?:{'|'.join(sorted(words))})\b ?)+)", text)
    found = []
    for name in names:
        fits = [
            index
            for index, item in enumerate(scene.objects)
            if set(name.split()) <= {item.size, item.color, item.material, item.shape}
        ]
        assert len(fits) == 1, f"{name!r} fits {len(fits)} objects in {text!r}"
        found += fits
    return found


def holds(scene: Scene, a: int, relation: str, b: int) -> bool:
    """Whether object a is ``relation`` of b, from CLEVR's own lists or the objects' extents."""
    if relation in scene.relationships:
        return a in scene.relationships[relation][b]
    measure = {"above": underside, "below": underside, "taller": height, "shorter": height}
    measure |= {"wider": width, "thinner": width, "bigger": volume, "smaller": volume}
    first, second = (measure[relation](scene, index) for index in (a, b))
    return first > second if relation in ("above", "taller", "wider", "bigger") else first < second


def closed_answer(question: Question, scene: Scene) -> str:
    """The right option of a closed question."""
    a, b = objects_in(question.text, scene)
    if question.options[0] in ("yes", "no"):
        return "yes" if holds(scene, a, asked_relation(question.text), b) else "no"
    if question.kind.endswith("_choice"):
        named = {objects_in(f"the {option}", scene)[0]: option for option in question.options}
        return named[a if holds(scene, a, asked_relation(question.text), b) else b]
    one, other = question.options
    assert OPPOSITE[one] == other
    return one if holds(scene, a, one, b) else other


def asked_relation(text: str) -> str:
    """The relation that a predicate or a choice asks for."""
    for phrase, relation in _ASKED.items():
        if phrase in text:
            return relation
    return next(relation for relation in OPPOSITE if re.search(rf"\b{relation}\b", text))


def true_length(question: Question, scene: Scene) -> float:
    """The true length in metres of a quantitative question."""
    named = objects_in(question.text, scene)
    a = named[0]
    positions = [scene.objects[index].position for index in named]
    match question.kind:
        case "camera_distance":
            item, view = scene.objects[a], scene.camera
            ray = [(item.pixel[0] - view.cx) / view.fx, (item.pixel[1] - view.cy) / view.fy, 1.0]
            return float(np.linalg.norm(np.array(ray) * item.depth))
        case "width":
            return width(scene, a)
        case "height":
            return height(scene, a)
        case "distance":
            return float(np.linalg.norm(positions[0] - positions[1]))
        case "horizontal_distance":
            return float(np.linalg.norm((positions[0] - positions[1])[:2]))
        case "vertical_distance":
            return abs(underside(scene, a) - underside(scene, named[1]))
        case _:
            # "How far left of the B is the A?" names B first.
            return scene.offset(a, named[1], asked_relation(question.text))


def underside(scene: Scene, index: int) -> float:
    return float(scene.objects[index].position[2] - scene.objects[index].dimensions[2] / 2)


def height(scene: Scene, index: int) -> float:
    return float(scene.objects[index].dimensions[2])


def width(scene: Scene, index: int) -> float:
    item = scene.objects[index]
    if item.shape != "cube":
        return float(item.dimensions[:2].max())
    corners = box_corners(item.position, item.dimensions, item.rotation) @ scene.directions["right"]
    return float(np.ptp(corners))


def volume(scene: Scene, index: int) -> float:
    return float(np.prod(scene.objects[index].dimensions))
