"""What a run trains on and what it is asked, wherever that comes from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from spatial_lightning.data.corpora.store import RecordStore
from spatial_lightning.data.corpora.stream import RecordStream
from spatial_lightning.records import BadRows, ImageQuestions, Question, read_records

_ASKED = 4000
"""Records of a published corpus whose questions are asked or counted at most, evenly spaced."""


@dataclass(frozen=True, slots=True)
class CorpusFiles:
    """A corpus as a run sees it.

    Attributes:
        train, val: records to train on and held-out ones: a record file, or the store or stream of a published corpus.
        train_questions, val_questions: where the questions for the majority baseline and for evaluation come from.
        notes: what a reader of the report has to know.
    """

    name: str
    train: Path | RecordStore[Any] | RecordStream[Any]
    val: Path | RecordStore[Any]
    train_questions: Path | RecordStore[Any] | None
    val_questions: Path | RecordStore[Any]
    notes: tuple[str, ...] = field(default=())

    def questions(self, split: Literal["train", "val"]) -> list[tuple[tuple[Path, ...], Question]]:
        """Evaluation questions (``val``) or questions to learn the majority answer from (``train``), with their images."""
        source = self.train_questions if split == "train" else self.val_questions
        if source is None:
            return []
        if isinstance(source, RecordStore):
            step = max(1, len(source) // _ASKED)
            records = [source[index] for index in range(0, len(source), step)]
        else:
            bad = BadRows()
            records = list(read_records(source, ImageQuestions, bad))
            bad.check()
        asked = [(record.images, question) for record in records for question in _questions(record)]
        return list({question.id: (images, question) for images, question in asked}.values())

    def digest(self) -> str:
        """Content hash of what is trained on and held out."""
        digest = hashlib.blake2b(digest_size=16)
        for source in (self.train, self.val):
            digest.update(source.read_bytes() if isinstance(source, Path) else source.fingerprint().encode())
        return digest.hexdigest()


def _questions(record: Any) -> tuple[Question, ...]:
    return record.questions if isinstance(record, ImageQuestions) else (record.question,)
