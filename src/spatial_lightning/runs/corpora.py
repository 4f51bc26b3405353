"""Corpora from scenes: made once for each content, kept in the cache, shared by all runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from spatial_lightning.records import BadRows, ImageQuestions, Question, read_records
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.scenes import DIFFICULTIES, Scene, read_scenes, write_scenes
from spatial_lightning.synthesis.corpus import write_preference_corpus, write_question_corpus

log = logging.getLogger(__name__)

_FORMAT = 1
"""Raised when the same settings make other records than before."""
_STEMS = ("train", "val", "train_questions", "val_questions")


@dataclass(frozen=True)
class Corpus:
    """What to make of which scenes.

    Attributes:
        kind: ``questions`` about images or ``preferences`` between responses.
        scenes: ``procedural`` (generated), ``clevr`` (scene files in ``root``) or ``records`` (ready files in ``root``:
            ``train.jsonl``, ``val.jsonl``, ``train_questions.jsonl`` and ``val_questions.jsonl``).
        root: folder of the CLEVR layout or of the records; for ``procedural`` null.
        difficulty: of procedural scenes.
        train_images, val_images: number of procedural scenes; for CLEVR at most so many of what is there.
        val_share: share of CLEVR images held out, in (0, 1).
        size: width and height in pixels of procedural images.
        seed: of scenes, questions and errors.
        per_image: questions or pairs of each training image.
        reasoned_per_image: for ``questions``, further questions answered with a description and reasoning.
        grounding: for ``questions``, further training questions that ask for the objects in order and for each one's place.
        rounding, wording, kinds, others, errors: see :mod:`spatial_lightning.synthesis`.
        val_questions, val_reasoned: direct and reasoned evaluation questions of each held-out image.

    Raises:
        ConfigError: an impossible combination.
    """

    kind: Literal["questions", "preferences"]
    scenes: Literal["procedural", "clevr", "records"] = "procedural"
    root: str | None = None
    difficulty: str = "default"
    train_images: int | None = 2000
    val_images: int | None = 100
    val_share: float = 0.25
    size: tuple[int, int] = (112, 112)
    seed: int = 0
    per_image: int = 8
    reasoned_per_image: int = 0
    grounding: bool = False
    rounding: str = "decimal"
    wording: str = "plain"
    kinds: Any = None
    others: int = 1
    errors: Mapping[str, float] | None = None
    val_questions: int = 6
    val_reasoned: int = 2

    def __post_init__(self) -> None:
        for name, allowed in (
            ("kind", ("questions", "preferences")),
            ("scenes", ("procedural", "clevr", "records")),
            ("difficulty", tuple(DIFFICULTIES)),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"data.{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if self.scenes == "procedural" and self.root is not None:
            raise ConfigError(
                f"data.root={self.root} needs data.scenes=clevr or records; procedural scenes are generated"
            )
        if self.scenes != "procedural" and self.root is None:
            raise ConfigError(f"data.scenes={self.scenes} needs data.root, the folder it lies in")
        if self.scenes == "procedural" and not (self.train_images and self.val_images):
            raise ConfigError("procedural scenes need data.train_images and data.val_images of at least 1")
        if not 0 < self.val_share < 1:
            raise ConfigError(f"data.val_share is {self.val_share}; it must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class CorpusFiles:
    """Record files of a corpus: what is trained on, and questions for evaluation and for the majority baseline."""

    name: str
    train: Path
    val: Path
    train_questions: Path
    val_questions: Path
    notes: tuple[str, ...] = field(default=())

    def questions(self, split: Literal["train", "val"]) -> list[tuple[tuple[Path, ...], Question]]:
        """Evaluation questions (``val``) or questions to learn the majority answer from (``train``), with their images."""
        path = self.train_questions if split == "train" else self.val_questions
        bad = BadRows()
        records = list(read_records(path, ImageQuestions, bad))
        bad.check()
        return [(record.images, question) for record in records for question in record.questions]


def prepare(corpus: Corpus, cache: Path, *, say: Callable[[str], None] = log.info) -> CorpusFiles:
    """Record files of a corpus, made first if the cache does not hold them.

    Raises:
        FileNotFoundError: scene or record files are missing.
        RecordError: the scenes allow no question.
    """
    if corpus.scenes == "records":
        return _existing(resolve_path(corpus.root or ""))
    key = hashlib.blake2b(
        json.dumps([_FORMAT, asdict(corpus), _root_state(corpus)], default=str).encode(), digest_size=8
    )
    folder = cache / "corpora" / f"{corpus.scenes}-{corpus.kind}-{key.hexdigest()}"
    files = _files(folder, f"{corpus.scenes}-{corpus.kind}")
    if not (folder / "complete.json").is_file():
        with _lock(folder):
            if not (folder / "complete.json").is_file():
                _make(corpus, cache, folder, files, say)
    notes = json.loads((folder / "complete.json").read_text())["notes"]
    return CorpusFiles(files.name, files.train, files.val, files.train_questions, files.val_questions, tuple(notes))


def _make(corpus: Corpus, cache: Path, folder: Path, files: CorpusFiles, say: Callable[[str], None]) -> None:
    train, val, notes = _procedural(corpus, cache, say) if corpus.scenes == "procedural" else _clevr(corpus)
    options: dict[str, Any] = {"kinds": corpus.kinds, "wording": corpus.wording, "others": corpus.others}
    questions = {"seed": corpus.seed, "rounding": corpus.rounding, **options}
    for path, scenes in ((files.train, train), (files.val, val)):
        if corpus.kind == "preferences":
            write_preference_corpus(
                path, scenes, seed=corpus.seed, pairs_per_image=corpus.per_image, errors=corpus.errors, **options
            )
        else:
            write_question_corpus(
                path,
                scenes,
                questions_per_image=corpus.per_image,
                reasoned_per_image=corpus.reasoned_per_image,
                grounding=corpus.grounding,
                progress=say,
                **questions,
            )
    for path, scenes in ((files.train_questions, train[:500]), (files.val_questions, val)):
        write_question_corpus(
            path,
            scenes,
            questions_per_image=corpus.val_questions,
            reasoned_per_image=corpus.val_reasoned,
            **questions,
        )
    temporary = folder / "complete.json.part"
    temporary.write_text(json.dumps({"corpus": asdict(corpus), "notes": notes}, default=str, indent=1))
    temporary.replace(folder / "complete.json")


def _procedural(corpus: Corpus, cache: Path, say: Callable[[str], None]) -> tuple[list[Scene], list[Scene], list[str]]:
    width, height = corpus.size
    folder = cache / "scenes" / f"{corpus.difficulty}-{width}x{height}-{corpus.seed}"
    scenes = {}
    for split, count in (("train", corpus.train_images or 0), ("val", corpus.val_images or 0)):
        root = folder / f"{split}-{count}"
        with _lock(root):
            if not (root / "scenes" / f"CLEVR_{split}_scenes.json").is_file():
                say(f"rendering {count} {corpus.difficulty} {split} scenes at {width}x{height}")
                write_scenes(
                    root,
                    split,
                    count,
                    seed=corpus.seed,
                    difficulty=corpus.difficulty,
                    size=(width, height),
                    workers=min(os.cpu_count() or 1, 16),
                    progress=say,
                )
        scenes[split] = read_scenes(root, split)
    return scenes["train"], scenes["val"], []


def _clevr(corpus: Corpus) -> tuple[list[Scene], list[Scene], list[str]]:
    """Scenes of all splits in ``root``, a share of the images held out at random."""
    root = resolve_path(corpus.root or "")
    bad = BadRows(max_fraction=1.0)
    found = sorted(path.stem.split("_")[1] for path in (root / "scenes").glob("CLEVR_*_scenes.json"))
    if not found:
        raise FileNotFoundError(f"no CLEVR scene file: looked for {root}/scenes/CLEVR_*_scenes.json")
    scenes = [scene for split in found for scene in read_scenes(root, split, bad=bad)]
    if not scenes:
        bad.max_fraction = 0.0
        bad.check()
    random.Random(corpus.seed).shuffle(scenes)
    held_out = max(1, round(corpus.val_share * len(scenes)))
    held_out = min(held_out, corpus.val_images or held_out)
    if held_out >= len(scenes):
        raise ConfigError(f"data.val_images={held_out} leaves nothing of {len(scenes)} scenes to train on")
    train = scenes[held_out:][: corpus.train_images]
    notes = [f"{len(train)} training and {held_out} held-out images of {len(scenes)} in {', '.join(found)}"]
    notes += [f"left out: {place}" for place in bad.places]
    return train, scenes[:held_out], notes


def _root_state(corpus: Corpus) -> list[Any]:
    """What makes a folder of scene files the same as before: names, sizes and times of its scene files."""
    if corpus.root is None:
        return []
    files = sorted((resolve_path(corpus.root) / "scenes").glob("*.json"))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _existing(folder: Path) -> CorpusFiles:
    files = _files(folder, folder.name)
    for path in (files.train, files.val, files.train_questions, files.val_questions):
        if not path.is_file():
            raise FileNotFoundError(f"data.scenes=records needs {path}")
    return files


def _files(folder: Path, name: str) -> CorpusFiles:
    train, val, train_questions, val_questions = (folder / f"{stem}.jsonl" for stem in _STEMS)
    return CorpusFiles(name, train, val, train_questions, val_questions)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time make a folder; the lock of a killed process is released by the system."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
