"""Corpora from scenes: made once for each content, kept in the cache, shared by all runs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from spatial_lightning.locks import locked
from spatial_lightning.records import BadRows
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.runs.corpus_files import CorpusFiles
from spatial_lightning.runs.published import Published, open_published
from spatial_lightning.scenes import DIFFICULTIES, Scene, read_scenes, write_scenes
from spatial_lightning.synthesis.corpus import write_preference_corpus, write_question_corpus
from spatial_lightning.synthesis.traces import TraceSettings, write_task_questions, write_trace_corpus

log = logging.getLogger(__name__)

_FORMAT = 1
"""Raised when the same settings make other records than before."""


@dataclass(frozen=True)
class Corpus:
    """What to make of which scenes.

    Attributes:
        kind: ``questions`` about images, ``preferences`` between responses, or ``traces`` of tool use.
        scenes: ``procedural`` (generated), ``clevr`` (scene files in ``root``) or ``records`` (ready files in ``root``:
            ``train.jsonl``, ``val.jsonl``, ``train_questions.jsonl`` and ``val_questions.jsonl``).
        root: folder of the CLEVR layout or of the records; for ``procedural`` null.
        difficulty: of procedural scenes.
        train_images, val_images: number of procedural scenes; for CLEVR at most so many of what is there.
        val_share: share of CLEVR images held out, in (0, 1).
        size: width and height in pixels of procedural images.
        seed: of scenes, questions and errors.
        per_image: questions or pairs of each training image; for ``traces`` the questions, each with several traces.
        reasoned_per_image: for ``questions``, further questions answered with a description and reasoning.
        grounding: for ``questions``, further training questions that ask for the objects in order and for each one's place.
        rounding, wording, kinds, others, errors: see :mod:`spatial_lightning.synthesis`.
        traces: for ``traces``, how they are made; null takes the defaults.
        val_kinds: kinds of the evaluation questions; null takes those of the training questions.
        val_questions, val_reasoned: direct and reasoned evaluation questions of each held-out image.

    Raises:
        ConfigError: an impossible combination.
    """

    kind: Literal["questions", "preferences", "traces"]
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
    traces: TraceSettings | None = None
    val_kinds: Any = None
    val_questions: int = 6
    val_reasoned: int = 2

    def __post_init__(self) -> None:
        for name, allowed in (
            ("kind", ("questions", "preferences", "traces")),
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
        if self.scenes == "procedural" and min(self.train_images or 0, self.val_images or 0) < 1:
            raise ConfigError("procedural scenes need data.train_images and data.val_images of at least 1")
        if self.kind == "traces" and self.val_kinds is not None:
            raise ConfigError(
                "data.corpus.val_kinds is for questions and preferences: a policy plays the tasks of its traces"
            )
        if not 0 < self.val_share < 1:
            raise ConfigError(f"data.val_share is {self.val_share}; it must be between 0 and 1")


class _Files(NamedTuple):
    """The record files in the folder of a corpus."""

    train: Path
    val: Path
    train_questions: Path
    val_questions: Path

    @classmethod
    def of(cls, folder: Path) -> _Files:
        return cls(*(folder / f"{name}.jsonl" for name in cls._fields))


def prepare(corpus: Corpus | Published, cache: Path, *, say: Callable[[str], None] = log.info) -> CorpusFiles:
    """Record files of a corpus, made first if the cache does not hold them.

    Raises:
        FileNotFoundError: scene or record files are missing.
        RecordError: the scenes allow no question.
    """
    if isinstance(corpus, Published):
        return open_published(corpus, cache, say=say)
    if corpus.scenes == "records":
        return _existing(resolve_path(corpus.root or ""))
    key = hashlib.blake2b(
        json.dumps([_FORMAT, _content(corpus), _root_state(corpus)], default=str).encode(), digest_size=8
    )
    folder = cache / "corpora" / f"{corpus.scenes}-{corpus.kind}-{key.hexdigest()}"
    files = _Files.of(folder)
    if not (folder / "complete.json").is_file():
        with locked(folder / ".lock", say):
            if not (folder / "complete.json").is_file():
                _make(corpus, cache, folder, files, say)
    notes = json.loads((folder / "complete.json").read_text())["notes"]
    return CorpusFiles(f"{corpus.scenes}-{corpus.kind}", *files, tuple(notes))


def trace_scenes(corpus: Corpus | Published, cache: Path) -> list[Scene]:
    """The held-out scenes of a trace corpus, on which a policy can be tried; none for ready records."""
    if isinstance(corpus, Published) or corpus.kind != "traces" or corpus.scenes == "records":
        return []
    return scenes_of(corpus, cache, say=log.info)[1]


def scenes_of(
    corpus: Corpus, cache: Path, *, say: Callable[[str], None] = log.info
) -> tuple[list[Scene], list[Scene], list[str]]:
    """Training scenes and held-out ones of a corpus that is made from scenes, and what a reader has to know."""
    return _procedural(corpus, cache, say) if corpus.scenes == "procedural" else _clevr(corpus)


def _make(corpus: Corpus, cache: Path, folder: Path, files: _Files, say: Callable[[str], None]) -> None:
    train, val, notes = scenes_of(corpus, cache, say=say)
    if corpus.kind == "traces":
        _make_traces(corpus, files, train, val, say)
    else:
        _make_questions(corpus, files, train, val, say)
    temporary = folder / "complete.json.part"
    temporary.write_text(json.dumps({"corpus": asdict(corpus), "notes": notes}, default=str, indent=1))
    temporary.replace(folder / "complete.json")


def _make_traces(
    corpus: Corpus, files: _Files, train: list[Scene], val: list[Scene], say: Callable[[str], None]
) -> None:
    options: dict[str, Any] = {"seed": corpus.seed, "kinds": corpus.kinds}
    for path, scenes in ((files.train, train), (files.val, val)):
        write_trace_corpus(
            path, scenes, questions_per_image=corpus.per_image, settings=corpus.traces, progress=say, **options
        )
    for path, scenes in ((files.train_questions, train[:500]), (files.val_questions, val)):
        write_task_questions(path, scenes, questions_per_image=corpus.val_questions, **options)


def _make_questions(
    corpus: Corpus, files: _Files, train: list[Scene], val: list[Scene], say: Callable[[str], None]
) -> None:
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
            **{**questions, "kinds": corpus.kinds if corpus.val_kinds is None else corpus.val_kinds},
        )


def _procedural(corpus: Corpus, cache: Path, say: Callable[[str], None]) -> tuple[list[Scene], list[Scene], list[str]]:
    width, height = corpus.size
    folder = cache / "scenes" / f"{corpus.difficulty}-{width}x{height}-{corpus.seed}"
    scenes = {}
    for split, count in (("train", corpus.train_images or 0), ("val", corpus.val_images or 0)):
        root = folder / f"{split}-{count}"
        with locked(root / ".lock", say):
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


def _content(corpus: Corpus) -> dict[str, Any]:
    """What a corpus is made from."""
    unused = {"traces"} if corpus.kind != "traces" else set()
    # What is new and not set leaves the corpora of before valid.
    unused |= {"val_kinds"} if corpus.val_kinds is None else set()
    return {key: value for key, value in asdict(corpus).items() if key not in unused}


def _root_state(corpus: Corpus) -> list[Any]:
    """What makes a folder of scene files the same as before: names, sizes and times of its scene files."""
    if corpus.root is None:
        return []
    files = sorted((resolve_path(corpus.root) / "scenes").glob("*.json"))
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _existing(folder: Path) -> CorpusFiles:
    files = _Files.of(folder)
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"data.scenes=records needs {path}")
    return CorpusFiles(folder.name, *files)
