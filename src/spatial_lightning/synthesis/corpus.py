"""Writes corpora: one pass over scenes, records as JSON lines beside their images, the same bytes for the same seed."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spatial_lightning.records import AnyRecord, ImageQuestions, PreferencePair, RecordError, write_records
from spatial_lightning.scenes.scene import Scene
from spatial_lightning.synthesis.chains import OTHERS
from spatial_lightning.synthesis.facts import MARGIN
from spatial_lightning.synthesis.grounding import grounding_questions
from spatial_lightning.synthesis.longcot import preference_pairs
from spatial_lightning.synthesis.plans import Kinds
from spatial_lightning.synthesis.rewards import MEAN
from spatial_lightning.synthesis.spatialvlm import question_set

Progress = Callable[[str], None]
_REPORT_SECONDS = 5.0


@dataclass
class CorpusSummary:
    """What a corpus file holds.

    Attributes:
        path: the file.
        records: number of records.
        kinds: number of questions by kind.
        errors: number of preference pairs by error.
        empty_scenes: scenes about which nothing could be asked; they are not in the file.
    """

    path: Path
    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    empty_scenes: int = 0


def write_question_corpus(
    path: Path,
    scenes: Iterable[Scene],
    *,
    seed: int,
    questions_per_image: int,
    kinds: Kinds = None,
    rounding: str = "decimal",
    wording: str = "plain",
    reasoned_per_image: int = 0,
    grounding: bool = False,
    others: int = OTHERS,
    margin: float = MARGIN,
    progress: Progress | None = None,
) -> CorpusSummary:
    """Write one :class:`~spatial_lightning.records.ImageQuestions` a scene, direct questions before reasoned ones.

    What is asked about a scene depends on ``seed``, its split and its index alone, so any subset of the scenes, in any
    order, gives the same records.

    Args:
        path: JSON-lines file; images below its folder are referred to by relative paths.
        reasoned_per_image: further questions of each image that are answered by a LongCoT.
        grounding: add the lists and descriptions of :func:`~.grounding.grounding_questions`.
        others: how many objects that are not asked about a LongCoT names.
        progress: told every few seconds, in words, how many scenes are done and how many a second.

    Raises:
        RecordError: no scene allowed any question.
    """
    summary = CorpusSummary(path)

    def record(scene: Scene) -> Iterator[ImageQuestions]:
        rng = scene_generator(seed, scene, "questions")
        direct = question_set(
            scene, count=questions_per_image, rng=rng, kinds=kinds, rounding=rounding, wording=wording, margin=margin
        )
        reasoned = question_set(
            scene,
            count=reasoned_per_image,
            rng=scene_generator(seed, scene, "reasoned"),
            kinds=kinds,
            wording=wording,
            style="reasoned",
            margin=margin,
            others=others,
            first_id=len(direct),
        )
        questions = [*direct, *reasoned]
        if grounding:
            questions += grounding_questions(scene, first_id=len(questions))
        if questions:
            summary.kinds.update(question.kind for question in questions)
            yield ImageQuestions(f"{scene.split}-{scene.index:06d}", (scene.image,), tuple(questions))

    return write_corpus(summary, scenes, record, progress)


def write_preference_corpus(
    path: Path,
    scenes: Iterable[Scene],
    *,
    seed: int,
    pairs_per_image: int,
    errors: Mapping[str, float] | None = None,
    kinds: Kinds = None,
    wording: str = "plain",
    others: int = OTHERS,
    margin: float = MARGIN,
    aggregate: str = MEAN,
    progress: Progress | None = None,
) -> CorpusSummary:
    """Write the preference pairs of scenes, one record each; see :func:`~.longcot.preference_pairs` for the options.

    Deterministic like :func:`write_question_corpus`.

    Raises:
        RecordError: no scene allowed any pair.
    """
    summary = CorpusSummary(path)

    def pairs(scene: Scene) -> Iterator[PreferencePair]:
        made = preference_pairs(
            scene,
            count=pairs_per_image,
            rng=scene_generator(seed, scene, "preferences"),
            errors=errors,
            kinds=kinds,
            wording=wording,
            others=others,
            margin=margin,
            aggregate=aggregate,
        )
        summary.kinds.update(pair.question.kind for pair in made)
        summary.errors.update(pair.error for pair in made)
        yield from made

    return write_corpus(summary, scenes, pairs, progress)


def scene_generator(seed: int, scene: Scene, purpose: str) -> np.random.Generator:
    """Random numbers that depend on the seed, the purpose and the scene's split and index, and on nothing else."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), zlib.crc32(scene.split.encode()), scene.index])


def write_corpus(
    summary: CorpusSummary,
    scenes: Iterable[Scene],
    records_of: Callable[[Scene], Iterator[AnyRecord]],
    progress: Progress | None,
) -> CorpusSummary:
    """Write the records of each scene, in the order of the scenes, and complete the summary.

    Raises:
        RecordError: no scene gave any record.
    """

    def records() -> Iterator[AnyRecord]:
        for scene in _reported(scenes, summary.path.name, progress):
            empty = True
            for record in records_of(scene):
                empty = False
                yield record
            summary.empty_scenes += empty
        if summary.empty_scenes and not summary.kinds:
            raise RecordError(
                f"none of the {summary.empty_scenes} scenes allows a question of the chosen kinds; "
                "choose more kinds, a smaller margin, or scenes with more objects"
            )

    summary.records = write_records(summary.path, records())
    return summary


def _reported(scenes: Iterable[Scene], name: str, progress: Progress | None) -> Iterator[Scene]:
    if progress is None:
        yield from scenes
        return
    start = reported = time.monotonic()
    done = 0
    for done, scene in enumerate(scenes, start=1):
        yield scene
        now = time.monotonic()
        if now - reported >= _REPORT_SECONDS:
            reported = now
            progress(f"{name}: {done} scenes, {done / (now - start):.0f} a second")
    progress(f"{name}: {done} scenes done, {done / max(time.monotonic() - start, 1e-9):.0f} a second")
