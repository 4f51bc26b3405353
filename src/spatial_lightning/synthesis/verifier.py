"""A verifier that knows the geometry: rates each step from 1 to 10 for necessity, correctness and efficiency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatial_lightning.records import Step
from spatial_lightning.steps import Action, StepError, read_action
from spatial_lightning.synthesis.game import tools_used
from spatial_lightning.synthesis.tasks import Argument, Claim, Task
from spatial_lightning.synthesis.tools import TOOLS

NECESSITY, CORRECTNESS, EFFICIENCY = 0.2, 0.6, 0.2
"""Weights of the three parts of a rating."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier says about one step.

    Attributes:
        rating: whole number from 1 to 10: 1-3 flawed, 4-6 basic, 7-8 solid, 9-10 exemplary (arXiv:2511.00054).
        necessity, correctness, efficiency: parts of the rating, each in [0, 1].
        concern: what is wrong with the step; empty where nothing is.
    """

    rating: float
    necessity: float
    correctness: float
    efficiency: float
    concern: str = ""


@dataclass(frozen=True)
class Verifier:
    """Rates steps against the scene's geometry, never against the true answer.

    Necessity asks whether the step brings something that is missing, correctness whether it says what is true and
    concludes what follows from it, efficiency whether a shorter way was open. A step that cannot be read is rated 1.

    Attributes:
        noise: standard deviation of what is added to a rating before rounding, in points; 0 makes ratings a function of
            the geometry.
    """

    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise ValueError(f"verifier noise is {self.noise}; it must be at least 0")

    def rate(self, task: Task, steps: Sequence[Step], text: str, rng: np.random.Generator | None = None) -> Verdict:
        """Rate ``text`` as the step after ``steps``; noise is added where random numbers are given."""
        try:
            action = read_action(text)
            if action.tool is not None and action.tool not in TOOLS:
                raise StepError(f"there is no tool {action.tool!r}")
        except StepError as error:
            return Verdict(1.0, 0.0, 0.0, 0.0, str(error))
        used = frozenset(tools_used(steps))
        parts = (
            self._tool_call(task, used, action.tool) if action.tool is not None else self._answer(task, used, action)
        )
        necessity, correctness, efficiency, concern = parts
        points = 1 + 9 * (NECESSITY * necessity + CORRECTNESS * correctness + EFFICIENCY * efficiency)
        if rng is not None and self.noise:
            points += self.noise * float(rng.standard_normal())
        return Verdict(float(min(10, max(1, round(points)))), necessity, correctness, efficiency, concern)

    @staticmethod
    def _tool_call(task: Task, used: frozenset[str], tool: str) -> tuple[float, float, float, str]:
        if any(argument.tools <= used for argument in task.arguments):
            return 0.0, 0.5, 0.2, "what the tools have shown already settles the question"
        if tool in used:
            return 0.0, 0.4, 0.0, f"{tool} has been called before"
        missing = [len(argument.tools - used) for argument in task.arguments if tool in argument.tools]
        if not missing:
            return 0.0, 0.3, 0.0, f"{tool} does not show what the question is about"
        least = min(len(argument.tools - used) for argument in task.arguments)
        return 1.0, 1.0, 1.0 if min(missing) == least else 0.5, ""

    @staticmethod
    def _answer(task: Task, used: frozenset[str], action: Action) -> tuple[float, float, float, str]:
        ready = [argument for argument in task.arguments if argument.tools <= used]
        necessity = 1.0 if ready else 0.3
        claims = task.read_claims(action.reasoning) if action.reasoning else None
        if claims is None:
            return necessity, 0.3, 0.0, "the reasoning states nothing that can be checked"
        holds = [argument for argument in ready or task.arguments if _same(claims, argument)]
        if not holds:
            known = {(claim.label, claim.value) for argument in task.arguments for claim in argument.claims}
            part = any((claim.label, claim.value) in known for claim in claims)
            return necessity, 0.2 if part else 0.0, 0.0, "the reasoning states something that is not so"
        if task.conclude(claims) != action.answer:
            return necessity, 0.1, 0.0, "the answer does not follow from the reasoning"
        return necessity, 1.0 if ready else 0.6, 1.0 if ready else 0.0, "" if ready else "nothing has shown this yet"


def _same(claims: Sequence[Claim], argument: Argument) -> bool:
    """Whether claims are those of an argument, in whatever order; how a number was computed does not matter."""
    return {(claim.label, claim.value) for claim in claims} == {(claim.label, claim.value) for claim in argument.claims}
