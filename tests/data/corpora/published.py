"""A small published corpus and its reader, for tests of what lies above readers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from PIL import Image

from spatial_lightning.data.corpora import CorpusReader, Pictures
from spatial_lightning.records import ImageQuestions, Question, RecordError


@final
@dataclass(frozen=True, kw_only=True)
class Captions(CorpusReader[ImageQuestions]):
    """Rows ``{"id", "image" or "images", "question", "answer"}``; one question a row."""

    record_type: ClassVar[type] = ImageQuestions
    kind: str = "relation"

    def records(self, row: Mapping[str, Any], identity: str, pictures: Pictures) -> Iterable[ImageQuestions]:
        given = row["images"] if "images" in row else [row["image"]]
        if row.get("version", 1) != 1:
            raise RecordError(f"version is {row['version']!r}; this reader reads version 1")
        images = tuple(pictures(picture) for picture in given)
        name = str(row.get("id", identity))
        yield ImageQuestions(name, images, (Question(name, row["question"], row["answer"], self.kind),))


def write_images(folder: Path, count: int) -> list[str]:
    """Pictures of different sizes; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (28 + number, 28), (number * 7 % 256, 90, 30)).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def row(number: int, image: str, **other: Any) -> dict[str, Any]:
    """One good row."""
    return {"id": f"r{number}", "image": image, "question": f"Is {number} red?", "answer": "yes", **other}


def write_rows(path: Path, rows: Iterable[Any]) -> Captions:
    """A file of JSON lines, or of a JSON array by its name; text is written as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text("[" + ",\n".join(map(json.dumps, rows)) + "]")
    else:
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return Captions(path=str(path))
