"""A policy that solves tool-use tasks and errs at rates that are set: the source of traces of known quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from spatial_lightning.records import Step
from spatial_lightning.steps import Action
from spatial_lightning.synthesis.game import tools_used
from spatial_lightning.synthesis.plans import pick
from spatial_lightning.synthesis.tasks import Argument, Claim, Task, argue
from spatial_lightning.synthesis.tools import DEPTH, SEGMENT, TOOLS, TOP_DOWN

REASONS: Mapping[str, str] = {SEGMENT: "Find the objects.", DEPTH: "Which is in front?", TOP_DOWN: "Where do they lie?"}
_CERTAIN = 0.95


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """How often each error is made, in [0, 1].

    Attributes:
        wrong_tool: calls a tool that does not help, where one is needed.
        extra_step: calls one more tool, where the answer is known.
        misread: states one number or one object otherwise than the tool did, and concludes from that.
        wrong_reasoning: argues truly, but about the wrong objects.
        wrong_answer: argues rightly, then answers something else.
        malformed: writes a step that cannot be read.
    """

    wrong_tool: float = 0.15
    extra_step: float = 0.15
    misread: float = 0.15
    wrong_reasoning: float = 0.15
    wrong_answer: float = 0.1
    malformed: float = 0.05

    def __post_init__(self) -> None:
        for entry in fields(self):
            if not 0 <= getattr(self, entry.name) <= 1:
                raise ValueError(f"error rate {entry.name} is {getattr(self, entry.name)}; allowed: 0 to 1")

    def scaled(self, factor: float) -> ErrorRates:
        """All rates times a factor, none above 0.95 unless it was before."""
        rates = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return ErrorRates(**{name: min(rate * factor, max(rate, _CERTAIN)) for name, rate in rates.items()})


@dataclass(frozen=True, slots=True)
class Proposal:
    """A step as the policy would write it, and the error it made on purpose; empty where it made none."""

    text: str
    error: str = ""


@dataclass(frozen=True)
class Policy:
    """Proposes one step at a time; the same for the same random numbers.

    Attributes:
        errors: how often it errs at a first attempt.
        learning: factor on all rates with each attempt that was turned down: what the verifier's feedback is worth.
        alternative: how often it takes another way to the answer than the plainest, where there is one.
    """

    errors: ErrorRates = field(default_factory=ErrorRates)
    learning: float = 0.5
    alternative: float = 0.2

    def propose(
        self, task: Task, steps: Sequence[Step], rng: np.random.Generator, *, attempt: int = 0, last: bool = False
    ) -> Proposal:
        """The step after ``steps``.

        Args:
            attempt: how many attempts at this step were turned down.
            last: whether no step may follow, so that the policy answers with what it has.
        """
        errors = self.errors.scaled(self.learning**attempt) if attempt else self.errors
        proposal = self._proposal(task, tools_used(steps), errors, rng, last)
        if rng.random() >= errors.malformed:
            return proposal
        text = proposal.text
        broken = (text[: int(len(text) * rng.uniform(0.4, 0.95))], text.replace('"action":', '"act":'), text[:-1])
        return Proposal(pick(rng, broken), "malformed")

    def _proposal(
        self, task: Task, used: Sequence[str], errors: ErrorRates, rng: np.random.Generator, last: bool
    ) -> Proposal:
        ready = [argument for argument in task.arguments if argument.tools <= set(used)]
        unused = [tool for tool in TOOLS if tool not in used]
        if ready:
            if not last and unused and rng.random() < errors.extra_step:
                return Proposal(_call(pick(rng, unused)), "extra_step")
            return self._answer(task, ready[0], errors, rng)
        if last:
            return self._answer(task, task.arguments[0], errors, rng)
        useless = [tool for tool in unused if not any(tool in argument.tools for argument in task.arguments)]
        if useless and rng.random() < errors.wrong_tool:
            return Proposal(_call(pick(rng, useless)), "wrong_tool")
        others = task.arguments[1:]
        argument = pick(rng, others) if others and rng.random() < self.alternative else task.arguments[0]
        return Proposal(_call(next(tool for tool in TOOLS if tool in argument.tools and tool not in used)))

    @staticmethod
    def _answer(task: Task, argument: Argument, errors: ErrorRates, rng: np.random.Generator) -> Proposal:
        claims, answer, error = argument.claims, task.conclude(argument.claims), ""
        if argument.decoys and rng.random() < errors.wrong_reasoning:
            (claims, answer), error = pick(rng, argument.decoys), "wrong_reasoning"
        elif rng.random() < errors.misread:
            claims, error = _misread(task, claims, rng), "misread"
            answer = task.conclude(claims)
        answer = answer or task.question.answer
        if rng.random() < errors.wrong_answer:
            answer, error = _another(task, answer, rng), "wrong_answer"
        return Proposal(Action(argue(claims), answer=answer).text(), error)


def _call(tool: str) -> str:
    return Action(REASONS[tool], tool=tool).text()


def _misread(task: Task, claims: Sequence[Claim], rng: np.random.Generator) -> tuple[Claim, ...]:
    """One number changed by up to half, or one object too many or too few."""
    changed = list(claims)
    numbered = [index for index, claim in enumerate(claims) if claim.value is not None]
    if numbered:
        index = pick(rng, numbered)
        old = claims[index]
        value = old.value or 0.0
        digits = 0 if value == int(value) else 1
        step = 10**-digits
        off = round(value * rng.uniform(0.5, 1.5), digits)
        off = off if off != value else value + step
        changed[index] = Claim(old.label, round(off, digits), old.work)
        return tuple(changed)
    own = {claim.label for claim in claims}
    others = [label for label in task.objects if label not in own]
    if changed and (not others or rng.random() < 0.5):
        changed.pop(int(rng.integers(len(changed))))
    else:
        changed.append(Claim(pick(rng, others)))
    return tuple(changed)


def _another(task: Task, answer: str, rng: np.random.Generator) -> str:
    """An answer of the same kind that is not ``answer``."""
    if task.question.options:
        return pick(rng, [option for option in task.question.options if option != answer])
    number = int(answer)
    return str(number + 1 if number == 0 or rng.random() < 0.5 else number - 1)
