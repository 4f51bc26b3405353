"""Records of a whole corpus through its reader, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from spatial_lightning.data import Encoder
from spatial_lightning.data.corpora import CorpusReader, Pictures
from spatial_lightning.records import ImageQuestions, PreferencePair, Trace


def pictures_of(reader: CorpusReader[Any], cache: Path) -> Pictures:
    """Where the pictures of a reader are, with a cache for embedded ones."""
    return Pictures(reader.rows().root if reader.images is None else reader.images, cache / "cache")


def read(reader: CorpusReader[Any], cache: Path) -> list[Any]:
    """Every record of a corpus; a row that cannot be used raises."""
    pictures = pictures_of(reader, cache)
    found: list[Any] = []
    for at in reader.rows().scan():
        assert at.row is not None, at.error
        found += reader.records(at.row, f"corpus/{at.number}", pictures)
    assert len({record.id for record in found}) == len(found)
    return found


def read_row(reader: CorpusReader[Any], row: Mapping[str, Any], cache: Path) -> list[Any]:
    """The records of one row."""
    return list(reader.records(row, "row", Pictures(cache, cache / "cache")))


def write_picture(path: Path, side: int = 32) -> Path:
    """A small plain picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (side % 256, 90, 30)).save(path)
    return path


def encode(encoder: Encoder, record: Any) -> Any:
    """A record of any kind as a tree."""
    match record:
        case ImageQuestions():
            return encoder.questions(record)
        case PreferencePair():
            return encoder.pair(record)
        case Trace():
            return encoder.trace(record)
    raise TypeError(type(record))
