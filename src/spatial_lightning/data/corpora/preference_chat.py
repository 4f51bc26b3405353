"""Preference pairs as chats: the formats of TRL, LLaMA-Factory and ms-swift, and their relatives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

from spatial_lightning.data.corpora.fields import choose
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.segments import cut, description_end
from spatial_lightning.data.corpora.turns import (
    ASSISTANT,
    SYSTEM,
    USER,
    Turn,
    place_pictures,
    read_turns,
    require,
    split_system,
)
from spatial_lightning.records import PreferencePair, Question, RecordError, Response

_PROMPTS = ("prompt", "question", "instruction", "query")
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):[ \t]*")


@final
@dataclass(frozen=True, kw_only=True)
class PreferenceChat(CorpusReader[PreferencePair]):
    """Rows with a preferred and a less preferred response to the same conversation.

    - TRL: ``prompt``, ``chosen``, ``rejected`` as text or lists of turns; without ``prompt`` it is what both share, also in
      transcripts with ``Human:`` and ``Assistant:``. ``question`` (RLHF-V, SPA-VL) and ``instruction`` with ``input``,
      ``history`` (Alpaca) work like ``prompt``.
    - LLaMA-Factory: ``conversations`` or ``messages``, and ``chosen``, ``rejected`` as one turn or text.
    - ms-swift: ``messages`` that end with the preferred response, and ``rejected_response`` (a text, or several for
      several pairs) or ``rejected_messages``.

    Pictures are under ``images`` or ``image`` or parts of the turns. Turns before the last question become the history.

    Attributes:
        segments: ``auto`` cuts responses into description and reasoning where a tag or a ``### Description`` section is
            in one of the two (arXiv:2506.21656); ``none`` never does.

    Raises:
        RecordError: an unknown way to cut.
    """

    record_type = PreferencePair

    segments: Literal["auto", "none"] = "auto"

    def __post_init__(self) -> None:
        choose("segments", self.segments, ("auto", "none"))

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[PreferencePair]:
        """See :meth:`CorpusReader.records`."""
        given = row.get("images", row.get("image"))
        sides = list(_conversations(row))
        for number, (chosen, rejected) in enumerate(sides):
            name = identity if len(sides) == 1 else f"{identity}/{number}"
            prompt, better, worse = _split(chosen, rejected)
            system, turns = split_system(place_pictures(prompt, given))
            if not system and isinstance(row.get("system"), str):
                system = row["system"]
            history, question = _history(turns)
            images = tuple(pictures(picture) for turn in turns for picture in turn.pictures)
            described = self.segments == "auto" and any(description_end(text) is not None for text in (better, worse))
            best, worst = (Response(text, cut(text) if described else ()) for text in (better, worse))
            style = "reasoned" if described else "direct"
            asked = Question(name, question, better, "preference", style=style)
            yield PreferencePair(name, images, asked, best, worst, system=system, history=history)


def _conversations(row: Mapping[str, Any]) -> Iterator[tuple[list[Turn], list[Turn]]]:
    """The whole conversation with the chosen and with the rejected response, for each pair of a row."""
    if "rejected_response" in row or "rejected_messages" in row:
        chosen = read_turns(require(row, "messages"))
        if row.get("rejected_messages") is not None:
            yield chosen, _behind(chosen[:-1], row["rejected_messages"])
            return
        responses = require(row, "rejected_response")
        for response in [responses] if isinstance(responses, str) else responses:
            yield chosen, _behind(chosen[:-1], response)
        return
    given = [require(row, "chosen"), require(row, "rejected")]
    prompt = _prompt(row)
    if not prompt and all(isinstance(side, str) for side in given):
        yield _transcript(given[0]), _transcript(given[1])
    else:
        yield _behind(prompt, given[0]), _behind(prompt, given[1])


def _prompt(row: Mapping[str, Any]) -> list[Turn]:
    """The turns before the responses; none where the responses bring them."""
    for key in ("conversations", "messages"):
        if row.get(key) is not None:
            return read_turns(row[key])
    key = next((key for key in _PROMPTS if row.get(key) is not None), None)
    if key is None:
        return []
    if not isinstance(row[key], str):
        return read_turns(row[key])
    more = row.get("input")
    text = f"{row[key]}\n{more}" if key == "instruction" and isinstance(more, str) and more.strip() else row[key]
    earlier: list[dict[str, Any]] = []
    for pair in row.get("history") or ():
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise RecordError(f"an entry of history is {pair!r}; allowed: a question and its answer")
        earlier += [{"role": USER, "content": pair[0]}, {"role": ASSISTANT, "content": pair[1]}]
    return read_turns([*earlier, {"role": USER, "content": text}])


def _behind(prompt: list[Turn], response: Any) -> list[Turn]:
    """A response, given as text, as one turn or as turns, behind the prompt unless it brings the prompt along."""
    if isinstance(response, str):
        return [*prompt, Turn(ASSISTANT, response)]
    turns = read_turns([response] if isinstance(response, Mapping) else response)
    return [*prompt, *turns] if turns[0].role == ASSISTANT else turns


def _transcript(text: str) -> list[Turn]:
    pieces = _TRANSCRIPT.split("\n\n" + text.lstrip("\n"))
    if len(pieces) < 3:
        raise RecordError(
            "prompt is missing; allowed: prompt, question, instruction, conversations, messages, or turns"
        )
    names = {"Human": USER, "Assistant": ASSISTANT}
    before = [Turn(SYSTEM, pieces[0].strip())] if pieces[0].strip() else []
    return before + [Turn(names[who], said.strip()) for who, said in zip(pieces[1::2], pieces[2::2], strict=True)]


def _split(chosen: list[Turn], rejected: list[Turn]) -> tuple[list[Turn], str, str]:
    """What both conversations share, and the response in which each of them ends."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        rest = turns[shared:]
        if len(rest) != 1 or rest[0].role != ASSISTANT:
            roles = ", ".join(turn.role for turn in rest)
            raise RecordError(
                f"{name} has the turns {roles} of its own; allowed: one assistant turn behind a shared prompt"
            )
    if not shared:
        raise RecordError(
            "prompt is missing; allowed: prompt, question, instruction, conversations, messages, or turns"
        )
    return chosen[:shared], chosen[shared].text, rejected[shared].text


def _history(turns: list[Turn]) -> tuple[tuple[tuple[str, str], ...], str]:
    """Earlier turns in pairs and the last question."""
    for place, turn in enumerate(turns):
        if (turn.role == ASSISTANT) != bool(place % 2):
            raise RecordError(f"turn {place} of the prompt is {turn.role}; allowed: user and assistant in turn")
        if place and turn.pictures:
            raise RecordError(
                "a picture comes with a later turn of the prompt; allowed: pictures in its first user turn"
            )
    if len(turns) % 2 == 0:
        raise RecordError("the prompt ends with an assistant turn; allowed: a user turn, which the responses answer")
    return tuple((turns[i].text, turns[i + 1].text) for i in range(0, len(turns) - 1, 2)), turns[-1].text
