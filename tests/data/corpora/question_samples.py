"""Reading corpora in tests: rows through a reader, with generated pictures under the names that the rows ask for."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import Encoder
from spatial_lightning.data.corpora import CorpusReader, Pictures
from spatial_lightning.evaluation.scoring import score_answer
from spatial_lightning.records import ImageQuestions, Question, Trace

SIZE = (48, 64)
"""Height and width of the generated pictures."""


def picture_bytes(kind: str = "JPEG") -> bytes:
    """A small noisy picture as a file's content."""
    noise = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def write_pictures(folder: Path, names: Iterable[str]) -> Path:
    """The same picture under each name; returns the folder."""
    data = picture_bytes()
    for name in set(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON lines; returns the path as a reader takes it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def pictures_of(folder: Path) -> Pictures:
    """Pictures below a folder; embedded ones go to ``cache`` in it."""
    return Pictures(folder, folder / "cache")


def read(reader: CorpusReader[Any], folder: Path) -> list[Any]:
    """All records of a corpus; a row that cannot be used fails the test."""
    pictures, records = pictures_of(folder), []
    for at in reader.rows().scan():
        assert at.row is not None, f"{at.place}: {at.error}"
        records += reader.records(at.row, f"corpus/{at.number}", pictures)
    return records


def convert(reader: CorpusReader[Any], row: Mapping[str, Any], folder: Path) -> Any:
    """The only record of a row."""
    (record,) = reader.records(row, "row", pictures_of(folder))
    assert type(record) is reader.record_type
    return record


def questions_of(records: Iterable[ImageQuestions]) -> list[Question]:
    return [question for record in records for question in record.questions]


def assert_encodes(tiny: Backbone, record: ImageQuestions | Trace) -> None:
    """The record becomes a tree with its pictures in which its answers are trained, in their order, and nothing else."""
    encoder = Encoder(tiny.processor)
    if isinstance(record, Trace):
        tree, answers = encoder.trace(record), [step.text for step in record.steps]
        pictures = [*record.images, *(path for step in record.steps for path in step.images)]
    else:
        tree, answers = encoder.questions(record), [question.answer for question in record.questions]
        pictures = list(record.images)
    assert sum(len(node.images) for node in tree.nodes) == len(pictures) > 0
    decode = tiny.processor.tokenizer.decode
    trained = [decode(node.ids[node.trained]) for node in tree.nodes if bool(node.trained.any())]
    assert trained == [f"{answer}<|im_end|>" for answer in answers]


def assert_answers_score(questions: Iterable[Question]) -> None:
    """The true answer of each question is right by the rules of the evaluation."""
    for question in questions:
        assert score_answer(question, question.answer).correct, question
