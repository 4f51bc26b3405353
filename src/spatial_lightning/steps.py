"""How a step of a tool-use trace is written: one compact JSON object, a tool call or the final answer (arXiv:2511.00054)."""

from __future__ import annotations

import json
from dataclasses import dataclass

TOOL_CALL, FINAL_ANSWER = "tool_call", "final_answer"


class StepError(ValueError):
    """A step that is not written in the form that tools and answers are read from; the message says why."""


@dataclass(frozen=True, slots=True)
class Action:
    """What one step does: calls a tool or answers.

    Attributes:
        reasoning: why; may be empty.
        tool: name of the tool called; None for an answer.
        answer: the final answer; None for a tool call.
    """

    reasoning: str = ""
    tool: str | None = None
    answer: str | None = None

    def __post_init__(self) -> None:
        if (self.tool is None) == (self.answer is None):
            raise StepError("a step either calls a tool or answers")

    def text(self) -> str:
        """The step as the model writes it; an empty reasoning is left out."""
        row = {"reasoning": self.reasoning} if self.reasoning else {}
        row |= (
            {"action": FINAL_ANSWER, "text": self.answer or ""}
            if self.tool is None
            else {"action": TOOL_CALL, "tool_name": self.tool}
        )
        return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def read_action(text: str) -> Action:
    """The action that a step's text asks for; the inverse of :meth:`Action.text`.

    Raises:
        StepError: not JSON, not an object, an unknown action, or a field that is missing or no text.
    """
    try:
        row = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise StepError(f"not valid JSON: {text[:80]!r}") from error
    if not isinstance(row, dict):
        raise StepError(f"a step must be a JSON object, got {type(row).__name__}")
    fields = {TOOL_CALL: "tool_name", FINAL_ANSWER: "text"}
    action = row.get("action")
    name = fields.get(action) if isinstance(action, str) else None
    if name is None:
        raise StepError(f"action is {action!r}; allowed: {', '.join(fields)}")
    reasoning, value = row.get("reasoning", ""), row.get(name)
    if not isinstance(reasoning, str) or not isinstance(value, str) or not value.strip():
        raise StepError(f"a {action} needs {name!r} as text, and its reasoning, if any, as text")
    return Action(reasoning, tool=value) if action == TOOL_CALL else Action(reasoning, answer=value)
