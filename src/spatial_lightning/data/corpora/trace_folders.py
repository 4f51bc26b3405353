"""SpatialTraceGen (arXiv:2511.00054): experiment folders with one trace, its tool pictures and its ratings a question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, final

from spatial_lightning.data.corpora.fields import choose
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rows import Rows
from spatial_lightning.data.corpora.steps import find_documents, read_rating, read_steps
from spatial_lightning.data.corpora.turns import Turn, read_turns, require, require_text, split_system
from spatial_lightning.records import Question, RecordError, Step, Trace

_FILE = "complete_trace.json"
_ACTIONS = ("tool_call", "reasoning", "final_answer")
_SHOWN = 200
"""Characters of an attempt that the published verification history keeps."""


@final
@dataclass(frozen=True, kw_only=True)
class TraceFolders(CorpusReader[Trace]):
    """Folders ``EXPERIMENT/questions/qNNN_*`` of geo-179/spatial_trace; one question folder, one trace.

    Steps are the JSON objects the model wrote, observations what the tools said, with their pictures. Ratings and rejected
    attempts come from the verification history, whose published texts end after 200 characters; a history that runs on
    from one question to the next counts from where the last question begins. A trace is correct where its final answer is
    the expected one in lower case.

    Attributes:
        truncated_attempts: ``keep`` takes rejected attempts as far as their text goes, ``drop`` only whole ones.
        require_answer: refuse traces that do not end with a final answer.
        require_ratings: refuse traces with a step that nobody rated.

    Raises:
        RecordError: an unknown way with truncated attempts.
    """

    record_type = Trace

    truncated_attempts: Literal["keep", "drop"] = "keep"
    require_answer: bool = True
    require_ratings: bool = True

    def __post_init__(self) -> None:
        choose("truncated_attempts", self.truncated_attempts, ("keep", "drop"))

    def rows(self) -> Rows:
        """One row a question folder below ``path``: an experiment, many of them, one question, or one file.

        Raises:
            FileNotFoundError: no trace there.
        """
        return find_documents(self.path, _FILE, above=1)

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterator[Trace]:
        """See :meth:`CorpusReader.records`."""
        folder = Path(require(row, "_path")).absolute().parent.parent
        # Of its own, because only the picture that is asked about may be elsewhere.
        local = Pictures(folder, pictures.cache, max_side=pictures.max_side, check=pictures.check)
        system, turns = split_system(read_turns(require(row, "trace")))
        written = read_steps(turns[1:], local)
        actions = [_action(step.text, number) for number, step in enumerate(written, start=1)]
        final = _final_answer(actions)
        if final is None and self.require_answer:
            raise RecordError("the trace has no final answer; allowed: require_answer=false")
        history = _own_history(_history(row, folder))
        steps: list[Step] = []
        for number, step in enumerate(written, start=1):
            attempts = [entry for entry in history if entry["step_index"] == number]
            rated, accepted = self._rated(step, number, attempts)
            seen = tuple(local(picture) for picture in _tool_pictures(row, folder, number, accepted))
            steps.append(replace(rated, images=seen or step.images))
        answer = str(require(row, "expected_answer")).strip()
        image = require_text(row, "image_filename")
        text = require_text(row, "question")
        kind = row.get("difficulty")
        question = Question(f"{image}: {text}", text, answer, kind if isinstance(kind, str) and kind else "unknown")
        name = f"{folder.parent.parent.name}/{folder.name}"
        original = _original(row, folder, turns, local) if self.images is None else pictures(image)
        correct = final is not None and final.lower() == answer.lower()
        yield Trace(name, (original,), question, tuple(steps), correct, system)

    def _rated(self, step: Step, number: int, attempts: Sequence[Mapping[str, Any]]) -> tuple[Step, int | None]:
        """The step with its rating and the attempts rejected before it, and which attempt it is."""
        places = [entry["attempt_number"] for entry in attempts]
        if len(set(places)) < len(places):
            raise RecordError(f"the verification history of step {number} has an attempt twice: {places}")
        own = [entry for entry in attempts if _is_attempt(require_text(entry, "step_content"), step.text)]
        if not own:
            if attempts:
                raise RecordError(
                    f"the verification history of step {number} is about other texts than the step: the files of the "
                    "folder are of different versions"
                )
            if self.require_ratings:
                raise RecordError(f"step {number} has no verification; allowed: require_ratings=false")
            return step, None
        rejected = []
        for entry in attempts:
            text, rating = entry["step_content"], _rating(entry)
            if entry is not own[-1] and (self.truncated_attempts == "keep" or not _is_truncated(text)):
                rejected.append((text, rating))
        return replace(step, rating=_rating(own[-1]), rejected=tuple(rejected)), own[-1]["attempt_number"]


def mean_rating(trace: Trace, *, attempts: bool = False) -> float | None:
    """Mean rating in [1, 10] over the accepted steps of a trace, which retries do not bias; None where nobody rated.

    Args:
        attempts: count rejected attempts too, as the published ``average_rating`` does.
    """
    ratings = [step.rating for step in trace.steps]
    if attempts:
        ratings += [rating for step in trace.steps for _, rating in step.rejected]
    known = [rating for rating in ratings if rating is not None]
    return sum(known) / len(known) if known else None


def _original(row: Mapping[str, Any], folder: Path, turns: Sequence[Turn], pictures: Pictures) -> Path:
    """The picture that is asked about: the folder's copy, or the one in the conversation."""
    copy = folder / str(row.get("original_image_path") or f"images/{row['image_filename']}")
    if turns[0].pictures and not copy.is_file():
        return pictures(turns[0].pictures[0])
    # Every experiment has a copy of its own: by content they are one picture again, also when images are split.
    return pictures(pictures(copy).read_bytes())


def _action(text: str, number: int) -> Mapping[str, Any]:
    try:
        action = json.loads(text)
    except ValueError as error:
        raise RecordError(f"step {number} is not valid JSON: {text[:80]!r}") from error
    if not isinstance(action, Mapping) or action.get("action") not in _ACTIONS:
        given = action.get("action") if isinstance(action, Mapping) else type(action).__name__
        raise RecordError(f"step {number} has the action {given!r}; allowed: {', '.join(_ACTIONS)}")
    return action


def _final_answer(actions: Sequence[Mapping[str, Any]]) -> str | None:
    """The text of the final answer; None where the trace stops without one."""
    versions = {"reasoning" in action for action in actions}
    if len(versions) > 1:
        raise RecordError(
            "some steps have a reasoning of their own and some have none: two versions of the format are mixed"
        )
    finals = [number for number, action in enumerate(actions, start=1) if action["action"] == "final_answer"]
    if not finals:
        return None
    if finals[0] != len(actions):
        raise RecordError(f"step {finals[0]} of {len(actions)} gives a final answer; allowed: the last step only")
    answer = actions[-1].get("text")
    if answer is None or not str(answer).strip():
        raise RecordError("the final answer is empty")
    return str(answer).strip()


def _history(row: Mapping[str, Any], folder: Path) -> list[Mapping[str, Any]]:
    """The verification history, from the trace or from the file beside it, with checked places."""
    history = row.get("verification_history")
    file = folder / "verification" / "verification_history.json"
    if history is None and file.is_file():
        try:
            history = json.loads(file.read_bytes())
        except ValueError as error:
            raise RecordError(f"{file} is not valid JSON ({error})") from error
    if isinstance(history, Mapping):
        history = history.get("verification_history")
    if history is None:
        return []
    if not isinstance(history, list):
        raise RecordError(f"verification_history must be a list, got {type(history).__name__}")
    for entry in history:
        if not isinstance(entry, Mapping):
            raise RecordError(f"an entry of verification_history is a {type(entry).__name__}; allowed: an object")
        for key in ("step_index", "attempt_number"):
            if isinstance(entry.get(key), bool) or not isinstance(entry.get(key), int) or entry[key] < 1:
                raise RecordError(f"{key} in verification_history is {entry.get(key)!r}; allowed: whole numbers from 1")
    return history


def _own_history(history: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The part that belongs to the last question: published histories are never cleared between questions."""
    start = 0
    for place, (before, entry) in enumerate(pairwise(history), start=1):
        again = entry["step_index"] == 1 and entry["attempt_number"] <= before["attempt_number"]
        if entry["step_index"] < before["step_index"] or (again and before["step_index"] == 1):
            start = place
    return history[start:]


def _tool_pictures(row: Mapping[str, Any], folder: Path, number: int, attempt: int | None) -> list[Path]:
    """Saved pictures that the tools of a step returned; none where the conversation alone has them."""
    found = []
    for entry in row.get("tool_images") or ():
        if not isinstance(entry, Mapping):
            raise RecordError(f"an entry of tool_images is a {type(entry).__name__}; allowed: an object")
        if entry.get("step_index") == number and attempt in (None, entry.get("attempt", attempt)):
            found.append(folder / require_text(entry, "path"))
    return found


def _is_attempt(shown: str, text: str) -> bool:
    return shown == text or (len(shown) >= _SHOWN and text.startswith(shown))


def _is_truncated(shown: str) -> bool:
    if len(shown) < _SHOWN:
        return False
    try:
        json.loads(shown)
    except ValueError:
        return True
    return False


def _rating(entry: Mapping[str, Any]) -> float:
    return read_rating(entry.get("result"), f"rating of step {entry['step_index']}")
