"""A benchmark: where its questions are from, how they are put to a model, and how answers are scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Any

from spatial_lightning.data.corpora.passing import PassProgress
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.store import open_corpus
from spatial_lightning.data.corpora.validate import kind_of, records_of
from spatial_lightning.evaluation.protocols import Protocol
from spatial_lightning.records import BadRows, ImageQuestions, Question, RecordError
from spatial_lightning.runs.answering import Asked, by_family
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.placeholders import NOTE, Placeholders
from spatial_lightning.runs.published import located
from spatial_lightning.runs.scene_questions import SceneQuestions

_BLOCK = 2**20
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Opened:
    """A benchmark that was read.

    Attributes:
        asked: images and questions, in the order of the file.
        scored: the questions with the kinds under which results are reported, in the same order.
        bad: rows that were left out.
        version: what was read: ``rows``, ``digest`` (blake2b of the file or files, 16 bytes, in hex; None for none here),
            ``content`` (the same of the questions), ``path``, ``placeholders`` (how many pictures were drawn) and
            ``warnings`` in words.
        beyond: ids of the questions that a limit left out.
    """

    asked: list[Asked]
    scored: list[Question]
    bad: BadRows
    version: dict[str, Any]
    beyond: frozenset[str] = frozenset()

    def at_most(self, limit: int | None) -> Opened:
        """As many questions, evenly spaced; all for None.

        Raises:
            ConfigError: a limit below 1.
        """
        if limit is None or limit >= len(self.asked):
            return self
        if limit < 1:
            raise ConfigError(f"limit is {limit}; it must be at least 1, or null")
        chosen = [index * len(self.asked) // limit for index in range(limit)]
        asked = [self.asked[index] for index in chosen]
        warnings = [*self.version["warnings"], f"only {limit} of {len(self.asked)} questions were asked"]
        if any(question.tags for _, question in asked):
            warnings.append(
                "groups (pairs, sets, forms of a question) may be incomplete: their figures are then too high"
            )
        version = {**self.version, "content": _content(asked), "warnings": warnings}
        beyond = {question.id for _, question in self.asked} - {question.id for _, question in asked}
        return Opened(asked, [self.scored[index] for index in chosen], self.bad, version, frozenset(beyond))


@dataclass(frozen=True)
class Benchmark:
    """Questions with known answers and the rules by which others score them.

    Attributes:
        name: names the run directory.
        reader: reads a published file; null where ``scenes`` are asked about.
        scenes: scenes to make questions about.
        protocol: how answers are scored; null scores by the kind of question.
        rows: rows of the published file; null where that is not known for sure.
        digest: blake2b of the published file, 16 bytes, in hex; null where it is not known.
        prompt: how a question is put: ``{question}``, and ``{options}`` as lettered lines.

    Raises:
        ConfigError: neither a reader nor scenes, both, or a prompt without the question.
    """

    name: str
    reader: CorpusReader[Any] | None = None
    scenes: SceneQuestions | None = None
    protocol: Protocol | None = None
    rows: int | None = None
    digest: str | None = None
    prompt: str = "{question}"

    def __post_init__(self) -> None:
        if (self.reader is None) == (self.scenes is None):
            raise ConfigError("a benchmark has either a reader (benchmark.reader) or scenes (benchmark.scenes)")
        if "{question}" not in self.prompt:
            raise ConfigError(f"benchmark.prompt is {self.prompt!r}; it must hold {{question}}")

    def put(self, question: Question) -> Question:
        """The question in the words in which a model is asked."""
        options = "\n".join(f"{letter}. {text}" for letter, text in zip(_LETTERS, question.options, strict=False))
        text = self.prompt.replace("{options}", options).replace("{question}", question.text)
        return replace(question, text=text.strip())

    def open(
        self, cache: Path, *, max_bad_fraction: float, say: Callable[[str], None], placeholders: bool = False
    ) -> Opened:
        """Read the questions; a file that is not the published one is warned of, not refused.

        Args:
            cache: for pictures that come inside rows, drawn ones and generated scenes.
            max_bad_fraction: share of unusable rows, in [0, 1], above which reading stops.
            placeholders: draw a picture with its name for each that is missing; such figures say nothing about vision.

        Raises:
            FileNotFoundError: no such file.
            RecordError: too many unusable rows, or no question.
        """
        bad = BadRows(max_bad_fraction, setting="max_bad_fraction")
        asked: dict[str, Asked] = {}
        if self.reader is None:
            assert self.scenes is not None
            records = self.scenes.records(cache, bad, say)
            rows, drawn, path, digest = len(records), 0, self.scenes.root, None
            _take(records, asked, bad, "")
        else:
            rows, drawn = self._read(self.reader, cache, asked, bad, say, placeholders)
            path = located(self.reader).path
            digest = _digest(path)
        bad.check()
        if not asked:
            raise RecordError(f"benchmark {self.name} has no usable question: {path}")
        everything = list(asked.values())
        warnings = self._warnings(rows, digest)
        if drawn:
            warnings.append(f"{NOTE} ({drawn} were drawn)")
        for warning in warnings:
            say(f"warning: {warning}")
        scored = by_family(everything) if self.scenes else [question for _, question in everything]
        version = {"rows": rows, "digest": digest, "content": _content(everything), "path": path}
        return Opened(everything, scored, bad, {**version, "placeholders": drawn, "warnings": warnings})

    def _read(
        self,
        given: CorpusReader[Any],
        cache: Path,
        asked: dict[str, Asked],
        bad: BadRows,
        say: Callable[[str], None],
        placeholders: bool,
    ) -> tuple[int, int]:
        """Take in the questions of all rows; returns how many rows there were and how many pictures were drawn."""
        if given.record_type is not ImageQuestions:
            raise ConfigError(f"{type(given).__name__} does not read questions, of which a benchmark is made")
        reader = located(given)
        rows, found_pictures = open_corpus(reader, cache)
        pictures: Any = found_pictures
        if placeholders:
            pictures = Placeholders(found_pictures, cache / "placeholders")
        progress, count = PassProgress(rows, str(reader.path), say), 0
        for found in rows.scan():
            count += 1
            try:
                records = records_of(reader, rows, found, pictures)
            except RecordError as error:
                bad.add(found.place, str(error), found.kind or kind_of(error))
            else:
                _take(records, asked, bad, found.place)
            progress.row(found, bad)
        progress.end(bad, len(asked))
        return count, len(pictures.drawn) if placeholders else 0

    def _warnings(self, rows: int, digest: str | None) -> list[str]:
        """How what was read differs from what was published, in words."""
        warnings = []
        if self.rows is not None and rows != self.rows:
            warnings.append(f"{rows} rows, the published file of {self.name} has {self.rows}: compare with care")
        if self.digest is not None and digest != self.digest:
            warnings.append(
                f"the file is not the published one of {self.name}: its content hash is {digest}, expected {self.digest}"
            )
        return warnings


def _take(records: Iterable[ImageQuestions], asked: dict[str, Asked], bad: BadRows, place: str) -> None:
    """Take in the questions of a row; one whose id occurred before makes it a bad row, as does a system turn."""
    for record in records:
        again = next((question.id for question in record.questions if question.id in asked), None)
        if again is not None:
            bad.add(place, f"question id {again!r} occurs twice", "question id occurs twice")
        elif record.system:
            bad.add(place, "has a system turn of its own, which evaluation does not put")
        else:
            bad.good += 1
            asked.update({question.id: (record.images, question) for question in record.questions})


def _content(asked: Sequence[Asked]) -> str:
    """Content hash of questions, answers and names of pictures."""
    digest = hashlib.blake2b(digest_size=16)
    for images, question in asked:
        facts = (question.id, question.text, question.answer, question.kind, question.options, question.value)
        digest.update(json.dumps([*facts, [image.name for image in images]]).encode())
    return digest.hexdigest()


def _digest(path: str) -> str | None:
    """Content hash of a file, or of the files of a glob or folder one behind the other; None where there are none here."""
    place = Path(path)
    found = [place] if place.is_file() else place.iterdir() if place.is_dir() else map(Path, glob(path, recursive=True))
    files = sorted(file for file in found if file.is_file())
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest() if files else None
