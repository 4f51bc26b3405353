"""Conversations that alternate between a user and the assistant: what is asked, what it shows, what is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatial_lightning.data.corpora.fields import nested
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.turns import ASSISTANT, USER, picture_list, place_pictures, read_turns, split_system
from spatial_lightning.records import RecordError

PLACEHOLDER = "<image>"
_PICTURES = ("image", "image_url")
_UNFILLED = ("<video>", "<audio>", "<bbox>", "<ref-object>")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A user turn and the assistant turn that answers it."""

    asked: str
    images: tuple[Path, ...]
    answer: str


def listed_pictures(row: Mapping[str, Any]) -> list[Any]:
    """What a row says in ``images`` or ``image``, as a list; empty where it has neither."""
    given = row.get("images") if row.get("images") is not None else row.get("image")
    if isinstance(given, str) and (given.lstrip().startswith("[") or not given.strip()):
        given = nested(given, "images") if given.strip() else None
    return picture_list(given)


def read_exchanges(messages: Any, listed: Sequence[Any], pictures: Pictures) -> tuple[str, list[Exchange]]:
    """The system turn (empty where there is none) and the exchanges behind it.

    A picture between words leaves ``[image N]`` in the text, counted over the conversation from 1, because a model reads the
    pictures of a turn before its text.

    Args:
        messages: turns as :func:`read_turns` understands them, or a string that holds them as JSON.
        listed: the row's own pictures, one for each placeholder; without any placeholder they open the first turn.
        pictures: turns what a row says about a picture into a file.

    Raises:
        RecordError: turns that are mistyped, empty or do not alternate, tool calls, or pictures that cannot be placed.
    """
    messages = nested(messages, "messages")
    if isinstance(messages, Sequence) and not isinstance(messages, str):
        messages, shown = list(messages), 0
        for number, message in enumerate(messages):
            messages[number], shown = _with_references(message, shown)
    system, turns = split_system(read_turns(messages))
    roles = [turn.role for turn in turns]
    if roles != [USER, ASSISTANT] * (len(roles) // 2):
        raise RecordError(f"turns must alternate from user to assistant and end with an answer, got {_shown(roles)}")
    placed = place_pictures(turns, listed)
    for number, turn in enumerate(placed):
        unfilled = next((mark for mark in _UNFILLED if mark in turn.text), None)
        if turn.calls or unfilled:
            problem = "calls a tool" if turn.calls else f"holds {unfilled}"
            raise RecordError(f"{turn.role} turn {number} {problem}; allowed: text and pictures")
        if not turn.text.strip() and not turn.pictures:
            raise RecordError(f"{turn.role} turn {number} is empty")
    return system.strip(), [
        Exchange(user.text.strip(), tuple(map(pictures, user.pictures)), said.text.strip())
        for user, said in zip(placed[::2], placed[1::2], strict=True)
    ]


def independent(exchanges: Sequence[Exchange]) -> Iterator[tuple[str, str]]:
    """Question and answer of each exchange, all about the pictures of the first.

    Raises:
        RecordError: a later one shows a picture.
    """
    for number, exchange in enumerate(exchanges):
        if number and exchange.images:
            raise RecordError(f"question {number} shows a picture of its own: only the first user turn may")
        yield exchange.asked, exchange.answer


def _with_references(message: Any, shown: int) -> tuple[Any, int]:
    """A user turn as its pictures and one text that refers to those between its words, and how many were shown up to its end."""
    if not isinstance(message, Mapping) or message.get("role", message.get("from")) not in ("user", "human"):
        return message, shown
    key = "content" if message.get("content") is not None else "value"
    content = message.get(key)
    lines: list[str] = []
    pictures: list[Any] = []
    for part in content if isinstance(content, Sequence) and not isinstance(content, str) else [content]:
        if isinstance(said := _said(part), str):
            lines.append(said)
            pictures += [{"type": "image"}] * said.count(PLACEHOLDER)
        elif isinstance(part, Mapping) and part.get("type") in _PICTURES:
            lines.append(PLACEHOLDER)
            pictures.append(part)
        else:  # what is wrong with it is said where turns are read
            return message, shown
    text, *pieces = "\n".join(lines).split(PLACEHOLDER)
    for number, piece in enumerate(pieces):
        between = text.strip() and "".join(pieces[number:]).strip()
        text += (f"[image {shown + number + 1}]" if between else "") + piece
    return {**message, key: [*pictures, {"type": "text", "text": text.strip()}]}, shown + len(pictures)


def _said(part: Any) -> Any:
    if isinstance(part, Mapping) and part.get("type") == "text":
        return next((part[key] for key in ("text", "value") if part.get(key) is not None), None)
    return part


def _shown(roles: Sequence[str]) -> str:
    return ", ".join(roles[:12]) + (", ..." if len(roles) > 12 else "")
