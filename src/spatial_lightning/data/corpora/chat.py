"""Chats about pictures as TRL, LLaMA-Factory and ms-swift store them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from spatial_lightning.data.corpora.exchanges import Exchange, independent, listed_pictures, read_exchanges
from spatial_lightning.data.corpora.fields import choose, nested, text_field
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.records import ImageQuestions, Question, RecordError, Step, Trace

KIND = "chat"
_COLUMNS = ("messages", "conversations", "conversation")
_REFUSED = ("tools", "videos", "audios")


@final
@dataclass(frozen=True, kw_only=True)
class Chat(CorpusReader[Any]):
    """Rows with ``messages`` or ``conversations`` (or TRL's ``prompt`` and ``completion``), ``images`` or ``image``, ``system``.

    Roles may be user, human, assistant, gpt, model or system. A content is text with ``<image>`` where the next picture
    belongs, or a list of parts of type text, image, image_url or reasoning (written ``<think>``).

    Attributes:
        turns: ``conversation`` makes a :class:`Trace` with one step for each assistant turn, the next user turn being what it
            observes; ``independent`` makes the pairs of turns questions about the pictures of the first, which do not
            see one another.
        messages_column: column of the turns; null takes the first of messages, conversations, conversation that a row has.
    """

    record_type: ClassVar[type] = Trace

    turns: Literal["conversation", "independent"] = "conversation"
    messages_column: str | None = None

    def __post_init__(self) -> None:
        choose("turns", self.turns, ("conversation", "independent"))
        # What a reader makes is known before it has read a row.
        object.__setattr__(self, "record_type", Trace if self.turns == "conversation" else ImageQuestions)

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[ImageQuestions | Trace]:
        """See :meth:`CorpusReader.records`."""
        refused = next((name for name in _REFUSED if row.get(name) not in (None, "", "[]", [])), None)
        if refused:
            raise RecordError(f"the row has {refused}; this format holds text and pictures only")
        system, exchanges = read_exchanges(self._messages(row), listed_pictures(row), pictures)
        if not system and row.get("system") not in (None, ""):
            system = text_field(row, "system")
        if self.turns == "independent":
            pairs = enumerate(independent(exchanges))
            questions = tuple(Question(f"{identity}/{number}", *pair, KIND) for number, pair in pairs)
            yield ImageQuestions(identity, exchanges[0].images, questions, system)
        else:
            yield _trace(identity, system, exchanges)

    def _messages(self, row: Mapping[str, Any]) -> Any:
        if self.messages_column is not None:
            names = (self.messages_column,)
        elif row.get("prompt") is not None and row.get("completion") is not None:
            return _completed(row)
        else:
            names = _COLUMNS
        found = next((row[name] for name in names if row.get(name) is not None), None)
        if found is None:
            raise RecordError(
                f"no turns in {', '.join(names)}; the row has {', '.join(map(str, row)) or 'no fields'}: set messages_column to "
                "the column of its turns"
            )
        return found


def _completed(row: Mapping[str, Any]) -> list[Any]:
    """Turns of TRL's prompt and completion, each a text or a list of turns; only the completion may hold answers."""
    prompt, completion = (
        _said(row[name], name, role) for name, role in (("prompt", "user"), ("completion", "assistant"))
    )
    if any(isinstance(turn, Mapping) and turn.get("role") == "assistant" for turn in prompt):
        raise RecordError("prompt holds an assistant turn, which would be trained: give the whole chat as messages")
    return [*prompt, *completion]


def _said(given: Any, name: str, role: str) -> Sequence[Any]:
    if isinstance(given, str) and not given.lstrip().startswith("["):
        return [{"role": role, "content": given}]
    turns = nested(given, name)
    if not isinstance(turns, Sequence):
        raise RecordError(f"{name} must be text or a list of turns, got {type(turns).__name__}")
    return turns


def _trace(identity: str, system: str, exchanges: Sequence[Exchange]) -> Trace:
    # Nothing is seen after the last answer.
    seen = [*exchanges[1:], Exchange("", (), "")]
    steps = tuple(Step(own.answer, after.asked, after.images) for own, after in zip(exchanges, seen, strict=True))
    first = exchanges[0]
    question = Question(identity, first.asked, exchanges[-1].answer, KIND)
    return Trace(identity, first.images, question, steps, None, system)
