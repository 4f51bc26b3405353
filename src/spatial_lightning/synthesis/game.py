"""The game that a trace records: steps are played, tools answer, until there is a final answer or an end without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from spatial_lightning.records import Step, Trace
from spatial_lightning.steps import StepError, read_action
from spatial_lightning.synthesis.tasks import Task
from spatial_lightning.synthesis.tools import Toolbox

ANSWERED, MALFORMED, UNFINISHED = "answered", "malformed", "unfinished"
MAX_STEPS = 10
"""Longest trace of arXiv:2511.00054."""


@dataclass
class Game:
    """One attempt at a task.

    Attributes:
        max_steps: number of steps after which the game is over without an answer.
        steps: what was played so far, with what the tools gave back.
        answer: the final answer; None while there is none.
        outcome: how the game ended: ``answered``, ``malformed`` (a step that is no step ends it) or ``unfinished`` (the
            limit was reached); empty while it goes on.
    """

    task: Task
    toolbox: Toolbox
    max_steps: int = MAX_STEPS
    steps: list[Step] = field(default_factory=list)
    answer: str | None = None
    outcome: str = ""

    def play(self, text: str, rating: float | None = None, rejected: Sequence[tuple[str, float | None]] = ()) -> None:
        """Take one step, with the rating and the rejected attempts that go on record."""
        observation, images = "", ()
        try:
            action = read_action(text)
            if action.tool is None:
                self.answer, self.outcome = action.answer, ANSWERED
            else:
                seen = self.toolbox.use(action.tool)
                observation, images = seen.text, seen.images
        except StepError:
            self.outcome = MALFORMED
        self.steps.append(Step(text, observation, images, rating, tuple(rejected)))
        if not self.outcome and len(self.steps) >= self.max_steps:
            self.outcome = UNFINISHED

    @property
    def correct(self) -> bool:
        """Whether the final answer is the true one, case aside (exact match, as in arXiv:2511.00054)."""
        truth = self.task.question.answer
        return self.answer is not None and self.answer.strip().lower() == truth.lower()

    def trace(self, identity: str) -> Trace:
        """The game as a record."""
        return Trace(identity, (self.toolbox.facts.scene.image,), self.task.question, tuple(self.steps), self.correct)


def tools_used(steps: Sequence[Step]) -> list[str]:
    """Names of the tools that steps called, in order; a step that is no tool call adds none."""
    used = []
    for step in steps:
        try:
            action = read_action(step.text)
        except StepError:
            continue
        if action.tool is not None:
            used.append(action.tool)
    return used
