"""Tool-use chats as traces: LLaMA-Factory, OpenAI (TRL) and typed-part formats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.steps import read_steps
from spatial_lightning.data.corpora.turns import ASSISTANT, place_pictures, read_turns, require, split_system
from spatial_lightning.records import Question, RecordError, Trace

_TOOLS = (
    "You can use these tools, described as JSON:\n{tools}\n"
    'To call one, write a JSON object with its "name" and its "arguments".'
)


@final
@dataclass(frozen=True, kw_only=True)
class ToolChat(CorpusReader[Trace]):
    """Conversations (``messages`` or ``conversations``) in which the assistant may call functions; one row, one trace.

    Each assistant turn is a step, function calls as JSON text; what tools and the user say next is its observation. The
    first user turn is the question, the last step's text its answer. ``tools`` (a list, or JSON text of one) goes to the
    system turn.

    Attributes:
        tools: what the system turn says about the tools, with ``{tools}`` in place of their JSON; empty leaves them out.
        reasoning: keep parts of type ``reasoning``, as ``<think>...</think>``.
        require_answer: refuse conversations that do not end with an answer; False takes those that end with a function
            call, which is what many corpora of calls teach.

    Raises:
        RecordError: ``tools`` without its place.
    """

    record_type = Trace

    tools: str = _TOOLS
    reasoning: bool = True
    require_answer: bool = False

    def __post_init__(self) -> None:
        if self.tools and "{tools}" not in self.tools:
            raise RecordError(f"tools is {self.tools!r}; allowed: a text with {{tools}} in it, or an empty one")

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[Trace]:
        """See :meth:`CorpusReader.records`."""
        key = next((key for key in ("messages", "conversations") if row.get(key) is not None), "messages")
        turns = read_turns(require(row, key), reasoning=self.reasoning)
        system, turns = split_system(place_pictures(turns, row.get("images", row.get("image"))))
        if not system and isinstance(row.get("system"), str):
            system = row["system"]
        last = turns[-1]
        if self.require_answer and (last.role != ASSISTANT or last.calls):
            end = "a function call" if last.role == ASSISTANT else f"a {last.role} turn"
            raise RecordError(f"the trace ends with {end}: it has no final answer; allowed with require_answer=false")
        images = tuple(pictures(picture) for picture in turns[0].pictures)
        steps = read_steps(turns[1:], pictures)
        question = Question(identity, turns[0].text, steps[-1].text, "tool_chat")
        described = self._describe(row.get("tools"))
        yield Trace(identity, images, question, tuple(steps), system="\n\n".join(filter(None, (system, described))))

    def _describe(self, tools: Any) -> str:
        try:
            listed = json.loads(tools) if isinstance(tools, str) and tools.strip() else tools
        except json.JSONDecodeError as error:
            raise RecordError(f"tools is not valid JSON ({error.msg}): {str(tools)[:80]!r}") from error
        if not listed or not self.tools:
            return ""
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise RecordError(f"tools is a {type(listed).__name__}; allowed: a list of tools, or JSON text of one")
        text = tools if isinstance(tools, str) else json.dumps(list(listed), ensure_ascii=False, default=str)
        return self.tools.replace("{tools}", text)
