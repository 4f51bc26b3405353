"""How steps are written and read back."""

from __future__ import annotations

import json

import pytest

from spatial_lightning.steps import Action, StepError, read_action


@pytest.mark.parametrize(
    "action",
    [
        Action("Find the objects.", tool="segment"),
        Action('quotes " and \\ and\nbreaks, ö', answer="yes"),
        Action(answer="3"),
    ],
)
def test_what_is_written_is_read_back(action: Action) -> None:
    assert read_action(action.text()) == action


def test_steps_are_compact_and_in_the_published_form() -> None:
    assert Action("Why.", tool="depth").text() == '{"reasoning":"Why.","action":"tool_call","tool_name":"depth"}'
    assert json.loads(Action("So.", answer="red").text()) == {
        "reasoning": "So.",
        "action": "final_answer",
        "text": "red",
    }
    assert Action(answer="red").text() == '{"action":"final_answer","text":"red"}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"action":"final_answer"', "not valid JSON"),
        ("yes", "not valid JSON"),
        ('["final_answer"]', "must be a JSON object, got list"),
        ('{"action":"guess","text":"yes"}', "allowed: tool_call, final_answer"),
        ('{"action":["tool_call"]}', "allowed: tool_call, final_answer"),
        ('{"action":"final_answer","tool_name":"depth"}', "needs 'text'"),
        ('{"action":"final_answer","text":3}', "needs 'text'"),
        ('{"action":"tool_call","tool_name":" "}', "needs 'tool_name'"),
        ('{"reasoning":1,"action":"final_answer","text":"yes"}', "reasoning"),
    ],
)
def test_what_is_no_step_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(StepError, match=reason):
        read_action(text)


def test_an_action_calls_or_answers() -> None:
    with pytest.raises(StepError):
        Action("both", tool="depth", answer="yes")
    with pytest.raises(StepError):
        Action("neither")
