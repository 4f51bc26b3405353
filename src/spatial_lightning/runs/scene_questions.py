"""Questions about scenes whose geometry is known, as a benchmark: generated scenes that no training sees, or CLEVR's."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from spatial_lightning.locks import locked
from spatial_lightning.records import BadRows, ImageQuestions, read_records
from spatial_lightning.runs.config import ConfigError, resolve_path
from spatial_lightning.scenes import DIFFICULTIES, Scene, read_scenes, write_scenes
from spatial_lightning.synthesis.corpus import write_question_corpus

SPLIT = "benchmark"
"""Takes part in the seed of scenes and questions, so that both differ from those of all training and validation splits."""


@dataclass(frozen=True)
class SceneQuestions:
    """What is asked about which scenes.

    Attributes:
        source: ``procedural`` (generated) or ``clevr`` (scene files in ``root``).
        root: folder of the CLEVR layout; null for generated scenes.
        splits: of CLEVR, which scene files are read.
        difficulty: of generated scenes.
        images: number of generated scenes; of CLEVR at most so many of each split, null for all.
        size: width and height in pixels of generated pictures.
        seed: of scenes and questions.
        per_image, reasoned_per_image: direct and reasoned questions of each image.
        rounding, wording, kinds: see :mod:`spatial_lightning.synthesis`.

    Raises:
        ConfigError: an impossible combination.
    """

    source: Literal["procedural", "clevr"] = "procedural"
    root: str | None = None
    splits: tuple[str, ...] = ("val",)
    difficulty: str = "default"
    images: int | None = 200
    size: tuple[int, int] = (112, 112)
    seed: int = 0
    per_image: int = 6
    reasoned_per_image: int = 2
    rounding: str = "decimal"
    wording: str = "plain"
    kinds: Any = None

    def __post_init__(self) -> None:
        for name, allowed in (("source", ("procedural", "clevr")), ("difficulty", tuple(DIFFICULTIES))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"benchmark.scenes.{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if (self.root is None) != (self.source == "procedural"):
            raise ConfigError("benchmark.scenes.root is the folder of source=clevr, and for no other source")
        if len(self.size) != 2:
            raise ConfigError(f"benchmark.scenes.size is {list(self.size)}; it is width and height, e.g. [112, 112]")
        if self.source == "procedural" and not self.images:
            raise ConfigError(f"benchmark.scenes.images is {self.images}; generated scenes need at least 1")

    def records(self, cache: Path, bad: BadRows, say: Callable[[str], None]) -> list[ImageQuestions]:
        """The questions, image by image, the same for the same settings and scenes.

        Args:
            cache: generated pictures are kept below it.
            bad: counts CLEVR scenes that cannot be used.

        Raises:
            FileNotFoundError: no scene file in ``root``.
            RecordError: the scenes allow no question.
        """
        key = hashlib.blake2b(json.dumps(asdict(self), default=str).encode(), digest_size=8).hexdigest()
        folder = cache / "benchmarks" / f"{self.source}-{key}"
        with locked(folder / ".lock", say):
            path = folder / "questions.jsonl"
            write_question_corpus(
                path,
                self._scenes(cache, bad, say),
                seed=self.seed,
                questions_per_image=self.per_image,
                reasoned_per_image=self.reasoned_per_image,
                kinds=self.kinds,
                rounding=self.rounding,
                wording=self.wording,
            )
            return list(read_records(path, ImageQuestions, BadRows()))

    def _scenes(self, cache: Path, bad: BadRows, say: Callable[[str], None]) -> list[Scene]:
        if self.source == "clevr":
            root = resolve_path(self.root or "")
            return [scene for split in self.splits for scene in read_scenes(root, split, self.images, bad)]
        width, height = self.size
        root = cache / "benchmarks" / "scenes" / f"{self.difficulty}-{width}x{height}-{self.seed}-{self.images}"
        with locked(root / ".lock", say):
            if not (root / "scenes" / f"CLEVR_{SPLIT}_scenes.json").is_file():
                say(f"rendering {self.images} {self.difficulty} scenes at {width}x{height}")
                write_scenes(
                    root,
                    SPLIT,
                    self.images or 0,
                    seed=self.seed,
                    difficulty=self.difficulty,
                    size=(width, height),
                    workers=min(os.cpu_count() or 1, 16),
                    progress=say,
                )
        return read_scenes(root, SPLIT)
