"""Published corpora in their own formats: what of them is trained on and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.store import RecordStore, open_store
from spatial_lightning.data.corpora.stream import open_stream
from spatial_lightning.records import AnyRecord, ImageQuestions, PreferencePair, Trace
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.runs.corpus_files import CorpusFiles

_KINDS: dict[type[AnyRecord], str] = {ImageQuestions: "questions", PreferencePair: "preferences", Trace: "traces"}
_HUB = "hub:"


@dataclass(frozen=True)
class Published:
    """A corpus as somebody else published it.

    Attributes:
        kind: what its records are: ``questions``, ``preferences`` or ``traces``.
        reader: knows the format; ``+corpus=NAME`` chooses one.
        val_path: rows of the same format that are held out; null holds out a share of the images of ``reader.path``.
        val_images: folder of the pictures of ``val_path``; null takes that of the reader.
        val_share: share of the images held out, in (0, 1).
        train_records, val_records: at most so many; null takes all.
        max_bad_fraction: share of unusable rows, in [0, 1], above which reading stops.
        group: questions about the same images become one record, and one tree.
        streaming: read in order and without looking at all rows first; needs ``val_path`` and a limit in steps.
        shuffle_rows: of a stream, how many neighbouring rows are shuffled among each other.
        allow_urls: fetch pictures that rows name by URL.
        max_side: largest side of a picture in pixels.
        seed: which images are held out.

    Raises:
        ConfigError: an impossible combination.
    """

    kind: Literal["questions", "preferences", "traces"]
    reader: CorpusReader[Any]
    val_path: str | None = None
    val_images: str | None = None
    val_share: float = 0.05
    train_records: int | None = None
    val_records: int | None = None
    max_bad_fraction: float = 0.0
    group: bool = True
    streaming: bool = False
    shuffle_rows: int = 1024
    allow_urls: bool = False
    max_side: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.reader, CorpusReader):
            raise ConfigError("data.reader is missing: choose the format with +corpus=NAME and set data.reader.path")
        read = _KINDS[self.reader.record_type]
        if read != self.kind:
            raise ConfigError(
                f"data.reader={type(self.reader).__name__} reads {read}, and this data takes {self.kind}: "
                f"choose data=published_{read}"
            )
        if not 0 < self.val_share < 1:
            raise ConfigError(f"data.val_share is {self.val_share}; it must be between 0 and 1")
        if self.streaming and self.val_path is None:
            raise ConfigError("data.streaming=true cannot hold anything out of a stream: set data.val_path")


def open_published(corpus: Published, cache: Path, *, say: Callable[[str], None]) -> CorpusFiles:
    """The training and held-out records of a published corpus.

    Raises:
        FileNotFoundError: no corpus there.
        RecordError: too many unusable rows, or none that is usable.
    """
    reader = located(corpus.reader)
    name = f"{type(reader).__name__}: {reader.path}"
    pictures: dict[str, Any] = {"allow_urls": corpus.allow_urls, "max_side": corpus.max_side}

    def store(of: CorpusReader[Any]) -> RecordStore[Any]:
        return open_store(of, cache, max_bad_fraction=corpus.max_bad_fraction, group=corpus.group, say=say, **pictures)

    if corpus.val_path is None:
        train, val = store(reader).split(corpus.val_share, corpus.seed)
        notes = [f"{len(train):,} training and {len(val):,} held-out records, split by image"]
    else:
        held_out = replace(reader, path=corpus.val_path, images=corpus.val_images or corpus.reader.images)
        val = store(located(held_out))
        if corpus.streaming:
            train = open_stream(reader, cache, shuffle_rows=corpus.shuffle_rows, **pictures)
            return CorpusFiles(name, train, val[: corpus.val_records], None, val, ("read as a stream",))
        everything = store(reader)
        train = everything.without_images_of(val)
        notes = [f"{len(train):,} training and {len(val):,} held-out records"]
        if len(train) < len(everything):
            notes.append(
                f"{len(everything) - len(train):,} training records are about held-out images and were left out"
            )
    train, val = train[: corpus.train_records], val[: corpus.val_records]
    return CorpusFiles(name, train, val, train, val, tuple(notes))


def located(reader: CorpusReader[Any]) -> CorpusReader[Any]:
    """The reader with its paths found from the project root.

    Raises:
        ConfigError: a path that is no text.
    """
    if not isinstance(reader.path, str):
        raise ConfigError(
            f"reader.path is {reader.path}; it is one path: for several files give a glob, e.g. 'rows/*.jsonl'"
        )
    path = reader.path if reader.path.startswith(_HUB) else str(resolve_path(reader.path))
    images = None if reader.images is None else str(resolve_path(reader.images))
    return replace(reader, path=path, images=images)
