"""Questions for tool use, with answers of one word, and the arguments by which tool readings lead to each answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import gt, lt
from types import MappingProxyType

from spatial_lightning.records import Question
from spatial_lightning.scenes.shading import COLORS
from spatial_lightning.scenes.shapes import SHAPES

TESTS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"left": lt, "right": gt, "front": lt, "behind": gt, "taller": gt, "shorter": lt, "more": gt}
)
ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType({"color": tuple(COLORS), "shape": tuple(SHAPES)})


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that reasoning states about an object or a group: that it belongs, or a number.

    Attributes:
        label: name of the object or group.
        value: the number, in the units of the tool that shows it; None where the claim is that the object belongs.
        work: how the number was computed, e.g. ``12*6.1``; empty where it was read off.
    """

    label: str
    value: float | None = None
    work: str = ""

    def say(self) -> str:
        """The claim in words."""
        if self.value is None:
            return self.label
        return f"{self.label} {self.work}={self.value:g}" if self.work else f"{self.label} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Argument:
    """One way to the answer.

    Attributes:
        tools: the tools whose output it needs.
        claims: what follows from the output and settles the question.
        decoys: true claims about the wrong objects, each with the answer they seem to give.
    """

    tools: frozenset[str]
    claims: tuple[Claim, ...]
    decoys: tuple[tuple[tuple[Claim, ...], str], ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A question about a scene with all that is needed to answer it with tools and to judge who does.

    Attributes:
        rule: how claims give the answer: ``count``, ``exist``, ``more``, a pole such as ``left``, or the attribute asked
            for (``color`` or ``shape``) of what has the least number.
        subjects: the two objects or groups that are compared, in the order of the question; empty for other rules.
        arguments: ways to the answer, the plainest first.
        objects: names of all objects.
        groups: names of all groups, e.g. ``cubes`` or ``red objects``.
    """

    question: Question
    rule: str
    subjects: tuple[str, ...]
    arguments: tuple[Argument, ...]
    objects: tuple[str, ...]
    groups: tuple[str, ...]

    def conclude(self, claims: Sequence[Claim]) -> str | None:
        """The answer that follows from claims; None where none does."""
        values = {claim.label: claim.value for claim in claims if claim.value is not None}
        if self.subjects:
            first, second = (values.get(subject) for subject in self.subjects)
            return None if first is None or second is None else compare(self.rule, first, second)
        if self.rule in ATTRIBUTES:
            if not values:
                return None
            nearest = min(values, key=lambda label: values[label])
            return next((word for word in nearest.split() if word in ATTRIBUTES[self.rule]), None)
        if values:
            return None
        return belonging(self.rule, len(claims))

    def read_claims(self, reasoning: str) -> tuple[Claim, ...] | None:
        """The claims that a reasoning states; None where a part of it is none. The inverse of :func:`argue`."""
        said = reasoning.strip().rstrip(".")
        if said == "none":
            return ()
        claims = []
        for part in said.split(", "):
            label = max(
                (label for label in (*self.objects, *self.groups) if part.startswith(label)), key=len, default=""
            )
            rest = part[len(label) :]
            number = re.fullmatch(r" (?:([-\d.*]+)=)?(-?\d+(?:\.\d+)?)", rest)
            if not label or (rest and number is None):
                return None
            claims.append(Claim(label, float(number[2]), number[1] or "") if number else Claim(label))
        return tuple(claims)


def argue(claims: Sequence[Claim]) -> str:
    """Claims as reasoning."""
    return ", ".join(claim.say() for claim in claims) or "none"


def belonging(rule: str, count: int) -> str:
    """The answer to how many there are, or to whether there is one."""
    return str(count) if rule == "count" else said(count > 0)


def compare(rule: str, first: float, second: float) -> str:
    """The answer to whether the first number is, e.g., left of the second."""
    return said(TESTS[rule](first, second))


def said(truth: bool) -> str:
    """A truth as an answer."""
    return "yes" if truth else "no"
