"""What VQASynth makes: vqasynth_spacellava and OpenSpaces, and SpaceThinker with its reasoning."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from spatial_lightning.data.corpora.exchanges import PLACEHOLDER, independent, listed_pictures, read_exchanges
from spatial_lightning.data.corpora.fields import list_field, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.wording import LENGTHS, one_length, spatial_kind
from spatial_lightning.records import ImageQuestions, Question, RecordError

_HEADED = re.compile(
    r"<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>(.*?)(?=<\|start_header_id\|>|<\|eot_id\|>|\Z)", re.DOTALL
)
_REASONED = re.compile(r"<think>.+</think>\s*<answer>(.+)</answer>", re.DOTALL)


@final
@dataclass(frozen=True, kw_only=True)
class VQASynth(CorpusReader[ImageQuestions]):
    """Rows with ``images`` and either ``input`` and ``output``, or ``messages`` of typed parts.

    An output keeps its ``<think>`` and ``<answer>`` and makes its question a reasoned one; system turns stay with the record.
    """

    record_type: ClassVar[type] = ImageQuestions

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions]:
        """See :meth:`CorpusReader.records`."""
        listed = listed_pictures(row)
        if not listed:
            raise RecordError(f"the row lists no picture in images; it has {', '.join(map(str, row))}")
        if row.get("output") is not None:
            system, asked = _prompt(text_field(row, "input"))
            images, pairs = tuple(map(pictures, listed)), [(asked, text_field(row, "output"))]
        else:
            given = list_field(row, "messages")
            messages = [_numbered(message, listed) for message in given]
            unplaced = listed if messages == given else ()
            system, exchanges = read_exchanges(messages, unplaced, pictures)
            images, pairs = exchanges[0].images, list(independent(exchanges))
        questions = [_question(f"{identity}/{number}", *pair) for number, pair in enumerate(pairs)]
        yield ImageQuestions(identity, images, tuple(questions), system)


def _numbered(message: Any, listed: Sequence[Any]) -> Any:
    """A turn whose picture parts, which number the pictures of the row, hold the pictures themselves."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, Sequence) or not any(map(_is_picture, content)):
        return message
    parts: list[Any] = []
    for part in content:
        if not _is_picture(part):
            said = part.get("text") if isinstance(part, Mapping) else None
            parts.append({**part, "text": said.replace(PLACEHOLDER, "")} if isinstance(said, str) else part)
            continue
        index = part.get("index") or 0
        if not isinstance(index, int) or not 0 <= index < len(listed):
            raise RecordError(f"a turn shows picture {index}, the row lists {len(listed)}, counted from 0")
        parts.append({"type": "image", "image": listed[index]})
    return {**message, "content": parts}


def _is_picture(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image"


def _prompt(text: str) -> tuple[str, str]:
    """System turn and question of a prompt, which may be written with Llama's headers."""
    turns = [(role, said.strip()) for role, said in _HEADED.findall(text)] or [("user", text)]
    asked = [said for role, said in turns if role == "user"]
    if len(asked) != 1:
        raise RecordError(f"input has {len(asked)} user turns; it must have one")
    system = next((said for role, said in turns if role == "system"), "")
    return system, asked[0].replace(PLACEHOLDER, "").replace("<|image|>", "").strip()


def _question(name: str, asked: str, answer: str) -> Question:
    reasoned = _REASONED.fullmatch(answer)
    if reasoned is None and ("<think>" in answer or "<answer>" in answer):
        raise RecordError(
            f"answer is not <think>...</think> <answer>...</answer>: {answer[:40]!r} ... {answer[-40:]!r}"
        )
    kind, said = spatial_kind(asked), reasoned[1] if reasoned else answer
    value = one_length(said) if kind in LENGTHS else None
    return Question(name, asked, answer, kind, (), value, "reasoned" if reasoned else "direct")
