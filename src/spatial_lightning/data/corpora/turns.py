"""Chat turns in the forms corpora publish them, as one form: who speaks, what is said, which pictures come with it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from spatial_lightning.records import RecordError

SYSTEM, USER, ASSISTANT, TOOL = "system", "user", "assistant", "tool"

_CALLS = ("function_call", "tool_call")
_ROLES: Final = {
    "system": SYSTEM,
    "developer": SYSTEM,
    "user": USER,
    "human": USER,
    "assistant": ASSISTANT,
    "gpt": ASSISTANT,
    "model": ASSISTANT,
    "function_call": ASSISTANT,
    "tool_call": ASSISTANT,
    "tool": TOOL,
    "observation": TOOL,
    "function": TOOL,
    "tool_response": TOOL,
    "function_response": TOOL,
}
_PARTS = "text, reasoning, tool_call, image, image_url"
_MARKER = "<image>"
_BLANK = re.compile(r"[ \t]*\n?")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        pictures: as the row gives them, in order; None stands for the next one of the row's own list.
        calls: the turn ends with a function call, so that a tool has to answer.
    """

    role: str
    text: str
    pictures: tuple[Any, ...] = ()
    calls: bool = False


def read_turns(given: Any, *, reasoning: bool = True) -> list[Turn]:
    """Turns of a conversation.

    Understood are ``role`` and ``content`` (OpenAI, TRL, ms-swift) and ``from`` and ``value`` (ShareGPT, LLaMA-Factory);
    content as text or as typed parts; function calls as turns of their own, as ``tool_calls`` or as parts. A function call
    becomes JSON text with ``name`` and ``arguments``, one a line, behind what the assistant says in the same turn;
    reasoning becomes ``<think>...</think>``. ``<image>`` in a user or tool turn marks a picture and leaves the text; between
    words it becomes ``[image N]``, counted over the conversation from 1, because a model reads the pictures of a turn before
    its text.

    Args:
        given: the list of turns as it was published.
        reasoning: keep parts of type ``reasoning``.

    Raises:
        RecordError: no turn, a role or part of an unknown kind, or a function call that is no JSON.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise RecordError(f"a conversation must be a list of turns, got {type(given).__name__}")
    turns: list[Turn] = []
    shown = 0
    for number, message in enumerate(given):
        turn, role = _read_turn(message, number, reasoning, shown)
        shown += len(turn.pictures)
        if role in _CALLS and turns and turns[-1].role == ASSISTANT:  # the call belongs to what was said before it
            turns[-1] = replace(turns[-1], text=_lines(turns[-1].text, turn.text), calls=True)
        else:
            turns.append(turn)
    if not turns:
        raise RecordError("the conversation has no turn")
    return turns


def split_system(turns: Sequence[Turn]) -> tuple[str, list[Turn]]:
    """Text of the system turn ("" where there is none) and the turns behind it.

    Raises:
        RecordError: a system turn later on, or a conversation that does not begin with the user.
    """
    system, rest = (turns[0].text, list(turns[1:])) if turns[0].role == SYSTEM else ("", list(turns))
    if not rest or rest[0].role != USER:
        first = rest[0].role if rest else "nothing"
        raise RecordError(f"the conversation begins with {first}; allowed: a system turn or none, then user")
    if any(turn.role == SYSTEM for turn in rest):
        raise RecordError("a system turn stands in the middle of the conversation; allowed: at its beginning")
    return system, rest


def place_pictures(turns: Sequence[Turn], images: Any) -> list[Turn]:
    """The turns with the row's own pictures where they are marked; without any mark they go to the first user turn.

    Raises:
        RecordError: as many marks as pictures are not there, or an assistant turn with a picture.
    """
    waiting = picture_list(images)
    marks = sum(picture is None for turn in turns for picture in turn.pictures)
    placed = list(turns)
    if not marks and waiting:
        first = next((index for index, turn in enumerate(turns) if turn.role == USER), 0)
        placed[first] = replace(turns[first], pictures=(*turns[first].pictures, *waiting))
    elif marks != len(waiting):
        raise RecordError(f"the conversation marks {marks} pictures, the row has {len(waiting)}: they must be as many")
    else:
        rest = iter(waiting)
        for index, turn in enumerate(turns):
            placed[index] = replace(turn, pictures=tuple(next(rest) if p is None else p for p in turn.pictures))
    for turn in placed:
        if turn.role == ASSISTANT and turn.pictures:
            raise RecordError("an assistant turn has a picture; allowed: pictures in user and tool turns")
    return placed


def picture_list(images: Any) -> list[Any]:
    """A row's pictures as a list: none, a single one, or several."""
    if images is None:
        return []
    if isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray)):
        return list(images)
    return [images]


def referring(text: str, numbers: Sequence[int]) -> str:
    """Text without its ``<image>`` marks; those between words become ``[image N]``, by the numbers of their pictures."""
    if not numbers:
        return text
    read, *pieces = text.split(_MARKER, len(numbers))
    for place, (number, piece) in enumerate(zip(numbers, pieces, strict=True)):
        between = read.strip() and any(rest.strip() for rest in pieces[place:])
        read += f"[image {number}]{piece}" if between else _BLANK.sub("", piece, count=1)
    return read


def require(row: Mapping[str, Any], key: str) -> Any:
    """The value of a key.

    Raises:
        RecordError: it is missing or null.
    """
    if row.get(key) is None:
        there = list(map(str, row))
        close = difflib.get_close_matches(key, [name for name in there if name != key], n=1, cutoff=0.5)
        hint = f"; the closest name is {close[0]!r}" if close else ""
        raise RecordError(f"key {key!r} is missing; the row has {', '.join(there) or 'none'}{hint}")
    return row[key]


def require_text(row: Mapping[str, Any], key: str) -> str:
    """The text under a key.

    Raises:
        RecordError: it is missing, no text or blank.
    """
    value = require(row, key)
    if not isinstance(value, str):
        raise RecordError(f"{key} must be text, got {type(value).__name__}")
    if not value.strip():
        raise RecordError(f"{key} is empty")
    return value


def _read_turn(message: Any, number: int, reasoning: bool, shown: int) -> tuple[Turn, str]:
    if not isinstance(message, Mapping):
        raise RecordError(
            f"turn {number} is a {type(message).__name__}; allowed: an object with role and content, or from and value"
        )
    given = message.get("role", message.get("from"))
    role = _ROLES.get(given) if isinstance(given, str) else None
    if role is None:
        raise RecordError(f"turn {number} has the role {given!r}; allowed: {', '.join(_ROLES)}")
    content = message.get("content", message.get("value"))
    if given in _CALLS:
        if not isinstance(content, str):
            raise RecordError(f"turn {number}: a function call must be JSON text, got {type(content).__name__}")
        return Turn(role, _call(content), calls=True), given
    said: list[str] = []
    pictures: list[Any] = []
    marked: list[int] = []
    calls = False
    thought = message.get("reasoning_content")
    if role == ASSISTANT and reasoning and isinstance(thought, str) and thought.strip():
        said.append(_think(thought))
    for kind, value in _parts(content, number):
        if kind == "image":
            pictures.append(value)
        elif kind == "tool_call":
            said.append(_call(value))
            calls = True
        elif kind == "reasoning":
            said.extend([_think(value)] if reasoning else [])
        elif role in (USER, TOOL):
            marks = value.count(_MARKER)
            marked.extend(range(shown + len(pictures) + 1, shown + len(pictures) + 1 + marks))
            pictures.extend([None] * marks)
            said.append(value)
        else:
            said.append(value)
    if message.get("tool_calls"):
        said.append(_call(message["tool_calls"]))
        calls = True
    return Turn(role, referring(_lines(*said), marked), tuple(pictures), calls), given


def _parts(content: Any, number: int) -> list[tuple[str, Any]]:
    """Kind and value of each part of a turn's content."""
    if content is None:
        return []
    if isinstance(content, str):
        return [("text", content)]
    if isinstance(content, Mapping) or not isinstance(content, Iterable):
        raise RecordError(
            f"turn {number} has content of type {type(content).__name__}; allowed: text or a list of parts"
        )
    parts: list[tuple[str, Any]] = []
    for part in content:
        if isinstance(part, str):
            parts.append(("text", part))
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        match kind:
            case "text" | "reasoning" | "thinking":
                value = next(
                    (part[key] for key in ("text", "value", "content", kind) if part.get(key) is not None), None
                )
                if not isinstance(value, str):
                    raise RecordError(f"turn {number}: a part of type {kind} needs text, got {type(value).__name__}")
                parts.append(("text" if kind == "text" else "reasoning", value))
            case "tool_call":
                parts.append(("tool_call", part.get("value", part.get("tool_call"))))
            case "image" | "image_url":
                keys = ("image", "image_url", "value", "url", "path", "bytes")
                found = next((part[key] for key in keys if part.get(key) is not None), None)
                parts.append(("image", found["url"] if isinstance(found, Mapping) and "url" in found else found))
            case _:
                raise RecordError(f"turn {number} has a part of type {kind!r}; allowed: {_PARTS}")
    return parts


def _call(given: Any) -> str:
    """Function calls as JSON text, one a line; what was published as text stays as it is."""
    try:
        read = json.loads(given) if isinstance(given, str) else given
        calls = [_called(call) for call in (read if isinstance(read, list) else [read])]
    except json.JSONDecodeError as error:
        raise RecordError(f"a function call is not valid JSON ({error.msg}): {str(given)[:80]!r}") from error
    return given if isinstance(given, str) else "\n".join(json.dumps(call, ensure_ascii=False) for call in calls)


def _called(call: Any) -> dict[str, Any]:
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        raise RecordError(f"a function call must be JSON with a name and arguments, got {str(call)[:80]!r}")
    arguments = call.get("arguments", {})
    return {"name": call["name"], "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments}


def _think(text: str) -> str:
    return f"<think>\n{text.strip()}\n</think>\n"


def _lines(*texts: str) -> str:
    return "\n".join(text for text in texts if text)
