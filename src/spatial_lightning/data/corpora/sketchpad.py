"""Visual Sketchpad (arXiv:2406.09403): conversations of THOUGHT, ACTION (Python) and OBSERVATION with pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

from spatial_lightning.data.corpora.fields import choose
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Rows
from spatial_lightning.data.corpora.steps import find_documents, read_steps
from spatial_lightning.data.corpora.turns import Turn, read_turns, require, split_system
from spatial_lightning.records import Question, RecordError, Trace

_GOLD = ("request.json", "example.json", "ex.json")
_REQUEST = re.compile(r"(?:#[ \t]*)?USER REQUEST[ \t]*#:[ \t]*")
_REMOVED = re.compile(r"\[image removed: .*\]")
_ANSWER = re.compile(r"ANSWER:\s*(.+?)\s*(?:TERMINATE|\Z)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@final
@dataclass(frozen=True, kw_only=True)
class Sketchpad(CorpusReader[Trace]):
    """Folders ``TASK/NAME/output.json`` of Yushi-Hu/VisualSketchpad; one conversation, one trace.

    The first user turn explains the tools and ends with the request behind the last ``USER REQUEST #:``: what is before it
    becomes the system turn. The true answer is in ``request.json``, ``example.json`` or ``ex.json`` beside the
    conversation; where there is none, the trace's own answer stands for it and nobody says whether it is right.

    Attributes:
        instructions: ``system`` keeps the explanation of the tools as system turn, ``drop`` leaves it out.
        removed: what happens to a picture that was taken out of the published file (``[image removed: ...]``): ``error``
            refuses the trace unless there is ``removed_N.png`` beside it, or in ``TASK/NAME`` below ``images`` (N counts from
            1 through the conversation); ``drop`` goes on without.
        require_answer: refuse conversations without ``ANSWER:``.

    Raises:
        RecordError: an option of an unknown value.
    """

    record_type = Trace

    instructions: Literal["system", "drop"] = "system"
    removed: Literal["error", "drop"] = "error"
    require_answer: bool = True

    def __post_init__(self) -> None:
        choose("instructions", self.instructions, ("system", "drop"))
        choose("removed", self.removed, ("error", "drop"))

    def rows(self) -> Rows:
        """One row a conversation below ``path``, which may be one of them.

        Raises:
            FileNotFoundError: no conversation there.
        """
        return find_documents(self.path, "output.json", above=0)

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[Trace]:
        """See :meth:`CorpusReader.records`."""
        file = Path(require(row, "_path")).absolute()
        system, turns = split_system(self._resolve(read_turns(require(row, "document")), file.parent))
        explained, request = _cut_request(turns[0].text)
        if self.instructions == "system" and explained:
            system = f"{system}\n\n{explained}" if system else explained
        steps = read_steps(turns[1:], pictures)
        answers = _ANSWER.findall(steps[-1].text)
        if not answers and self.require_answer:
            raise RecordError(
                "the last step has no ANSWER: the trace has no final answer; allowed: require_answer=false"
            )
        said = answers[-1] if answers else ""
        gold, choices = _gold(file.parent)
        name = f"{file.parent.parent.name}/{file.parent.name}"
        question = Question(name, request, gold or said or steps[-1].text, file.parent.parent.name)
        images = tuple(pictures(picture) for picture in turns[0].pictures)
        correct = _is_right(said, gold, choices) if gold else None
        yield Trace(name, images, question, tuple(steps), correct, system)

    def _resolve(self, turns: list[Turn], folder: Path) -> list[Turn]:
        """Turns whose removed pictures are those that were put back, or dropped."""
        number = 0
        resolved = []
        for turn in turns:
            kept: list[Any] = []
            for picture in turn.pictures:
                if not isinstance(picture, str) or not _REMOVED.fullmatch(picture):
                    kept.append(picture)
                    continue
                number += 1
                if self.removed == "error":
                    kept.append(self._put_back(folder, number, picture))
            resolved.append(replace(turn, pictures=tuple(kept)))
        return resolved

    def _put_back(self, folder: Path, number: int, marker: str) -> Path:
        below = Path(folder.parent.name, folder.name)
        place = (folder if self.images is None else Path(self.images).absolute() / below) / f"removed_{number}.png"
        if not place.is_file():
            raise RecordError(
                f"picture {number} is {marker}: put it at {place}, or set removed=drop to go on without it"
            )
        return place


def _cut_request(text: str) -> tuple[str, str]:
    """What explains the tools, and the request itself."""
    found = list(_REQUEST.finditer(text))
    if not found:
        return "", text
    return text[: found[-1].start()].strip(), text[found[-1].end() :].strip()


def _gold(folder: Path) -> tuple[str, list[Any]]:
    """The true answer and, where it is a letter, the choices it may stand for; "" where there is none."""
    for name in _GOLD:
        file = folder / name
        if not file.is_file():
            continue
        try:
            said = json.loads(file.read_bytes())
        except ValueError as error:
            raise RecordError(f"{file} is not valid JSON ({error})") from error
        if not isinstance(said, Mapping):
            raise RecordError(f"{file} must be a JSON object, got {type(said).__name__}")
        gold = said.get("answer", said.get("label"))
        if gold is not None:
            return str(gold).strip(), list(said.get("choices") or ())
    return "", []


def _is_right(answer: str, gold: str, choices: list[Any]) -> bool | None:
    """Whether an answer in words says the true one: its letter, its number or the same words; None where it is unclear."""
    if not answer:
        return False
    if letter := re.fullmatch(r"\(?([A-Z])\)?", gold):
        letters = re.findall(r"\(([A-Z])\)", answer)
        if letters:
            return letters[-1] == letter[1]
        place = ord(letter[1]) - ord("A")
        if place >= len(choices):
            return None
        gold = str(choices[place])
    if _NUMBER.fullmatch(gold):
        numbers = _NUMBER.findall(answer)
        return float(numbers[-1]) == float(gold) if numbers else None
    return True if answer.lower().strip(" .") == gold.lower().strip(" .") else None
