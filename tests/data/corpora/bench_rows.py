"""Rows and files as benchmarks publish them, with generated pictures, and what a question of theirs must be."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from question_samples import picture_bytes

Row = dict[str, Any]


@dataclass(frozen=True)
class Expected:
    """What a question of a sample must be; options are compared in order unless ``shuffled``."""

    kind: str
    answer: str
    options: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    value: float | None = None
    pictures: int = 1
    shuffled: bool = False


@dataclass(frozen=True)
class Sample:
    """A file of a benchmark, settings of its reader besides the path, and the questions that it holds."""

    path: str
    questions: list[Expected]
    settings: dict[str, Any] = field(default_factory=dict)


def png() -> bytes:
    return picture_bytes("PNG")


def encoded() -> str:
    return base64.b64encode(png()).decode()


def embedded(name: str = "1.png") -> Row:
    """A picture as the Hub's parquet files hold it."""
    return {"bytes": png(), "path": name}


def tsv(path: Path, rows: Iterable[Row]) -> str:
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), dialect="excel-tab")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def parquet(path: Path, rows: Iterable[Row]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return str(path)


def document(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def controlled(first: str, second: str, kinds: Mapping[str, str], folder_name: str) -> list[Row]:
    """The four pictures of two objects, with the true caption first; ``kinds`` from a relation to its words."""
    captions = {kind: f"A {first} {words} a {second}" for kind, words in kinds.items()}
    return [
        {
            "image_path": f"data/{folder_name}/{first}_{kind}_{second}.jpeg",
            "caption_options": [captions[kind], *(captions[other] for other in kinds if other != kind)],
        }
        for kind in kinds
    ]


A = {"left_of": "to the left of", "right_of": "to the right of", "on": "on", "under": "under"}
B = {"left_of": "to the left of", "right_of": "to the right of", "in-front_of": "in front of", "behind": "behind"}


def three_dsr_rows() -> list[Row]:
    """A question in all of its forms, and one with four options."""
    question = {
        "question": "Which is closer, the dog or the cat?",
        "category": "location_closer_to_camera",
        "C": "",
        "D": "",
    }
    rows = [
        {"qid": "VIN6MS3J", "A": "dog", "B": "cat", "answer": "A"},
        {"qid": "VIN6MS3J-1", "A": "cat", "B": "dog", "answer": "B"},
        {"qid": "VIN6MS3J-flip", "A": "dog", "B": "cat", "answer": "A"},
        {"qid": "VIN6MS3J-flip-1", "A": "cat", "B": "dog", "answer": "B"},
        {"qid": "0GT8ZK2A", "A": "front", "B": "left", "C": "back", "D": "right", "answer": "D"}
        | {"category": "orientation_viewpoint"},
    ]
    columns = ("index", "qid", "question", "A", "B", "C", "D", "answer", "category", "image")
    filled = [question | row | {"index": n, "image": encoded()} for n, row in enumerate(rows)]
    return [{name: row[name] for name in columns} for row in filled]


def q_spatial_row(**change: Any) -> Row:
    asked = {
        "question": "What is the minimum distance between the mug and the jar?",
        "question_type": "horizontal_distance",
    }
    return asked | {"answer_value": 55.0, "answer_unit": "centimeter", "image_path": "1.png", "image": None} | change


def cv_bench_row(**change: Any) -> Row:
    row = {
        "idx": 0,
        "type": "2D",
        "task": "Count",
        "image": embedded(),
        "question": "How many organs are in the image?",
    }
    row |= {"choices": ["3", "2", "1", "0"], "answer": "(C)", "prompt": "How many organs are in the image? (A) 3"}
    return row | {"filename": "img/2D/count/ade20k_10.png", "source": "ADE20K"} | change


def blink_row(**change: Any) -> Row:
    row = {"idx": "val_Spatial_Relation_1", "sub_task": "Spatial_Relation", "question": "Is the car beneath the cat?"}
    row |= {f"image_{n}": None for n in (2, 3, 4)} | {"image_1": embedded(), "choices": ["yes", "no"], "answer": "(B)"}
    return row | {"prompt": "Is the car beneath the cat?\n(A) yes\n(B) no", "explanation": ""} | change


def emb_spatial_row(**change: Any) -> Row:
    row = {"question_id": "mp3d_8", "question": "Which object is closest?", "relation": "close", "data_source": "mp3d"}
    return row | {"answer_options": ["lamp", "bed", "2", "tv"], "answer": 1, "image": encoded()} | change


def omni3d_row(**change: Any) -> Row:
    row = {"image_index": "91339.246_00000463.jpg", "image": embedded(), "q_index": "0", "question": "Is it wide?"}
    return row | {"answer": "yes", "answer_type": "str"} | change
