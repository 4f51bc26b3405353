"""What a corpus says about an image: questions, preference pairs and tool-use traces, before any tokenizer.

Records are plain frozen dataclasses. On disk they are versioned JSON lines beside their images: one record a line, image
paths relative to the folder of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

VERSION = 1
DESCRIPTION = "description"
REASONING = "reasoning"
SEGMENTS = (DESCRIPTION, REASONING)

Record = TypeVar("Record", "ImageQuestions", "PreferencePair", "Trace")


class RecordError(ValueError):
    """A row of a corpus that cannot be used; the message says what was given and what is allowed."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about the images of a record, with its true answer.

    Attributes:
        id: unique within the corpus.
        text: what the user asks.
        answer: the answer as text; what supervised training imitates.
        kind: question family, e.g. ``left_right`` or ``distance``; results are reported per kind.
        options: allowed answers of a closed question, the true one included; empty for an open one.
        value: the true length in metres of a quantitative question, else None.
        style: ``direct`` (answer at once) or ``reasoned`` (describe, reason, then conclude).
        tags: facts by which a benchmark groups its questions, by name, e.g. ``{"pair": "cup_bowl"}``.
    """

    id: str
    text: str
    answer: str
    kind: str
    options: tuple[str, ...] = ()
    value: float | None = None
    style: str = "direct"
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _require_text("question", self.text)
        _require_text("answer", self.answer)
        if self.style not in ("direct", "reasoned"):
            raise RecordError(f"question style is {self.style!r}; allowed: direct, reasoned")


@dataclass(frozen=True, slots=True)
class Segment:
    """A half-open character span ``[start, end)`` of a response, with the rewards it earned.

    Attributes:
        name: ``description`` or ``reasoning``.
        rewards: components by name, each in [0, 4] (``vc`` and ``sp`` for a description, ``lc`` and ``sp`` for reasoning;
            arXiv:2506.21656 App. A); None where nobody scored the segment.
    """

    name: str
    start: int
    end: int
    rewards: Mapping[str, float] | None = None

    @property
    def score(self) -> float | None:
        """Sum of the segment's rewards, in [0, 8]; None where it was not scored."""
        return None if self.rewards is None else float(sum(self.rewards.values()))


@dataclass(frozen=True, slots=True)
class Response:
    """A model's answer; its segments, if any, tile the text without gap or overlap.

    Raises:
        RecordError: empty text, or segments that overlap, leave a gap, repeat or run past the text.
    """

    text: str
    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        _require_text("response", self.text)
        if not self.segments:
            return
        position = 0
        for segment in self.segments:
            if segment.name not in SEGMENTS:
                raise RecordError(f"segment is called {segment.name!r}; allowed: {', '.join(SEGMENTS)}")
            if segment.start != position:
                problem = "overlaps the one before it" if segment.start < position else "leaves a gap before it"
                raise RecordError(
                    f"segment {segment.name!r} [{segment.start}, {segment.end}) {problem}: it must start at {position}"
                )
            if segment.end <= segment.start:
                raise RecordError(f"segment {segment.name!r} [{segment.start}, {segment.end}) is empty")
            position = segment.end
        if position != len(self.text):
            raise RecordError(f"segments end at character {position}, the response has {len(self.text)}")
        names = [segment.name for segment in self.segments]
        if len(set(names)) != len(names):
            raise RecordError(f"segment names repeat: {names}")

    def score(self, name: str) -> float | None:
        """Score in [0, 8] of the segment called ``name``; None where it is absent or not scored."""
        return next((segment.score for segment in self.segments if segment.name == name), None)


@dataclass(frozen=True, slots=True)
class ImageQuestions:
    """Images and any number of questions about them: one shared prefix, one branch a question.

    Attributes:
        system: system turn of the conversation; empty takes the one of the training run.
    """

    id: str
    images: tuple[Path, ...]
    questions: tuple[Question, ...]
    system: str = ""

    def __post_init__(self) -> None:
        _require_system(self.system)
        if not self.questions:
            raise RecordError("a record needs at least one question")


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A question about images with a preferred and a less preferred response.

    Attributes:
        error: the controlled error in ``rejected``, e.g. ``attribute`` or ``conclusion``; empty where unknown.
        system: system turn of the conversation; empty takes the one of the training run.
        history: user and assistant turns before the question, in pairs; the images are in the first user turn.
    """

    id: str
    images: tuple[Path, ...]
    question: Question
    chosen: Response
    rejected: Response
    error: str = ""
    system: str = ""
    history: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _require_system(self.system)
        for user, assistant in self.history:
            _require_text("user turn", user)
            _require_text("assistant turn", assistant)
        if self.chosen.text == self.rejected.text:
            raise RecordError("chosen and rejected response are the same text: there is nothing to prefer")

    @property
    def reward_gap(self) -> tuple[float, float] | None:
        """Score of chosen minus rejected for (description, reasoning), each in [-8, 8]; None where a score is missing."""
        gaps: list[float] = []
        for name in SEGMENTS:
            chosen, rejected = self.chosen.score(name), self.rejected.score(name)
            if chosen is None or rejected is None:
                return None
            gaps.append(chosen - rejected)
        return gaps[0], gaps[1]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a trace: what the model wrote, what the tool gave back, and every attempt that was rejected first.

    Attributes:
        text: reasoning and action, as the model writes them (trained).
        observation: text the tool returned (context), empty after the final answer.
        images: pictures the tool returned (context).
        rating: verifier's rating in [1, 10]; None where nobody rated it.
        rejected: earlier attempts at this step, with their ratings.
    """

    text: str
    observation: str = ""
    images: tuple[Path, ...] = ()
    rating: float | None = None
    rejected: tuple[tuple[str, float | None], ...] = ()

    def __post_init__(self) -> None:
        _require_text("step", self.text)
        for rating in (self.rating, *(rating for _, rating in self.rejected)):
            if rating is not None and not 1 <= rating <= 10:
                raise RecordError(f"rating is {rating}; allowed: 1 to 10")


@dataclass(frozen=True, slots=True)
class Trace:
    """A multi-step tool-use trajectory that answers a question about images.

    Attributes:
        correct: whether the final answer is right; None where nobody judged it.
        system: system turn of the conversation; empty takes the one of the training run.
    """

    id: str
    images: tuple[Path, ...]
    question: Question
    steps: tuple[Step, ...]
    correct: bool | None = None
    system: str = ""

    def __post_init__(self) -> None:
        _require_system(self.system)
        if not self.steps:
            raise RecordError("a trace needs at least one step")


AnyRecord = ImageQuestions | PreferencePair | Trace


@dataclass
class BadRows:
    """Counts the rows a reader had to leave out, by reason, and remembers where they are.

    Attributes:
        max_fraction: share of bad rows in [0, 1] above which :meth:`check` raises.
        setting: what a user raises to allow more.
    """

    max_fraction: float = 0.0
    good: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    setting: str = "data.max_bad_fraction"

    def add(self, place: str, reason: str, kind: str | None = None) -> None:
        """Record one bad row at ``place`` (``path:line``); ``kind`` groups reasons that differ in detail only."""
        self.reasons[kind or reason] = self.reasons.get(kind or reason, 0) + 1
        self.places.append(f"{place}: {reason}")

    @property
    def bad(self) -> int:
        """Number of rows left out."""
        return sum(self.reasons.values())

    def check(self) -> None:
        """Raise RecordError when the share of bad rows is above ``max_fraction``."""
        total = self.good + self.bad
        if self.bad and self.bad > self.max_fraction * total:
            shown = "\n  ".join(self.places[:5])
            more = f"\n  ... and {len(self.places) - 5} more" if len(self.places) > 5 else ""
            raise RecordError(
                f"{self.bad} of {total} rows cannot be used, {self.setting} allows {self.max_fraction:g}:\n"
                f"  {shown}{more}\nFix the rows, or raise {self.setting} to go on without them."
            )


def to_json(record: AnyRecord, folder: Path) -> dict[str, Any]:
    """The record as plain JSON values, image paths relative to ``folder`` where they lie below it."""
    kind = {ImageQuestions: "image_questions", PreferencePair: "preference_pair", Trace: "trace"}[type(record)]
    row: dict[str, Any] = {"version": VERSION, "type": kind, "id": record.id}
    row["images"] = [_relative(path, folder) for path in record.images]
    if record.system:
        row["system"] = record.system
    match record:
        case ImageQuestions():
            row["questions"] = [_question_json(question) for question in record.questions]
        case PreferencePair():
            row["question"] = _question_json(record.question)
            row["chosen"], row["rejected"] = _response_json(record.chosen), _response_json(record.rejected)
            row["error"] = record.error
            if record.history:
                row["history"] = [list(turns) for turns in record.history]
        case Trace():
            row["question"], row["correct"] = _question_json(record.question), record.correct
            row["steps"] = [
                {
                    "text": step.text,
                    "observation": step.observation,
                    "images": [_relative(path, folder) for path in step.images],
                    "rating": step.rating,
                    "rejected": [list(attempt) for attempt in step.rejected],
                }
                for step in record.steps
            ]
    return row


def from_json(row: Any, folder: Path) -> AnyRecord:
    """Read one record from JSON values; image paths are taken relative to ``folder``.

    Raises:
        RecordError: unknown version or type, missing or mistyped fields, or a record that breaks its own rules.
    """
    if not isinstance(row, Mapping):
        raise RecordError(f"a row must be a JSON object, got {type(row).__name__}")
    if row.get("version") != VERSION:
        raise RecordError(f"record version is {row.get('version')!r}; this release reads version {VERSION}")
    try:
        images = tuple(folder / path for path in row["images"])
        system = row.get("system", "")
        match row.get("type"):
            case "image_questions":
                questions = tuple(_question(entry) for entry in row["questions"])
                return ImageQuestions(row["id"], images, questions, system)
            case "preference_pair":
                return PreferencePair(
                    row["id"],
                    images,
                    _question(row["question"]),
                    _response(row["chosen"]),
                    _response(row["rejected"]),
                    row.get("error", ""),
                    system,
                    tuple((user, assistant) for user, assistant in row.get("history", ())),
                )
            case "trace":
                steps = tuple(
                    Step(
                        entry["text"],
                        entry.get("observation", ""),
                        tuple(folder / path for path in entry.get("images", ())),
                        entry.get("rating"),
                        tuple((text, rating) for text, rating in entry.get("rejected", ())),
                    )
                    for entry in row["steps"]
                )
                return Trace(row["id"], images, _question(row["question"]), steps, row.get("correct"), system)
            case other:
                raise RecordError(f"record type is {other!r}; allowed: image_questions, preference_pair, trace")
    except KeyError as error:
        raise RecordError(f"field {error.args[0]!r} is missing") from error
    except RecordError:
        raise
    except (TypeError, AttributeError, ValueError) as error:  # a value that is no pair is a ValueError
        raise RecordError(f"a field has the wrong type: {error}") from error


def write_records(path: Path, records: Iterable[AnyRecord]) -> int:
    """Write records as JSON lines, atomically, and return how many there were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(to_json(record, path.parent), ensure_ascii=False) + "\n")
            count += 1
    temporary.replace(path)
    return count


def read_records(path: Path, kind: type[Record], bad: BadRows) -> Iterator[Record]:
    """Records of one kind from a JSON-lines file; rows that cannot be used go to ``bad`` with ``path:line``.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no record file at {path}")
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                record = from_json(json.loads(line), path.parent)
            except json.JSONDecodeError as error:
                bad.add(place, f"not valid JSON ({error.msg})", "not valid JSON")
                continue
            except RecordError as error:
                bad.add(place, str(error))
                continue
            if not isinstance(record, kind):
                bad.add(place, f"is a {type(record).__name__}, expected a {kind.__name__}")
                continue
            bad.good += 1
            yield record


def _require_text(what: str, text: Any) -> None:
    if not isinstance(text, str):
        raise RecordError(f"{what} must be text, got {type(text).__name__}")
    if not text.strip():
        raise RecordError(f"{what} is empty")


def _require_system(text: Any) -> None:
    if not isinstance(text, str):
        raise RecordError(f"system turn must be text, got {type(text).__name__}")


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _question_json(question: Question) -> dict[str, Any]:
    row: dict[str, Any] = {"id": question.id, "text": question.text, "answer": question.answer, "kind": question.kind}
    if question.options:
        row["options"] = list(question.options)
    if question.value is not None:
        row["value"] = question.value
    if question.style != "direct":
        row["style"] = question.style
    if question.tags:
        row["tags"] = dict(question.tags)
    return row


def _question(row: Mapping[str, Any]) -> Question:
    options: Sequence[str] = row.get("options", ())
    return Question(
        row["id"],
        row["text"],
        row["answer"],
        row["kind"],
        tuple(options),
        row.get("value"),
        row.get("style", "direct"),
        dict(row.get("tags", {})),
    )


def _response_json(response: Response) -> dict[str, Any]:
    segments = [
        {"name": segment.name, "start": segment.start, "end": segment.end}
        | ({} if segment.rewards is None else {"rewards": dict(segment.rewards)})
        for segment in response.segments
    ]
    return {"text": response.text, "segments": segments}


def _response(row: Mapping[str, Any]) -> Response:
    segments = tuple(
        Segment(entry["name"], entry["start"], entry["end"], entry.get("rewards")) for entry in row.get("segments", ())
    )
    return Response(row["text"], segments)
