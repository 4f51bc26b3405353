"""Writes the embedded backbone without weights: `python -m spatial_lightning.runs.tiny_skeleton`, before `pretrain_tiny`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spatial_lightning.backbones.tiny import write_skeleton
from spatial_lightning.runs.config import resolve_path
from spatial_lightning.scenes import generate
from spatial_lightning.synthesis.grounding import grounding_questions
from spatial_lightning.synthesis.longcot import preference_pairs
from spatial_lightning.synthesis.spatialvlm import question_set

SCENES = 1500


def texts(scenes: int = SCENES) -> Iterator[str]:
    """What the tokenizer is trained on: questions, answers and chains of thought about generated scenes."""
    yield from ["user\n", "assistant\n", "system\n"] * scenes
    for index in range(scenes):
        difficulty = ("easy", "default", "default", "hard")[index % 4]
        scene, rng = generate(1, index, difficulty=difficulty), np.random.default_rng([1, index])
        for question in question_set(scene, count=12, rng=rng, wording="varied", rounding="human"):
            yield question.text
            yield question.answer
        for question in [*question_set(scene, count=6, rng=rng), *grounding_questions(scene)]:
            yield question.text
            yield question.answer
        for pair in preference_pairs(scene, count=2, rng=rng):
            yield pair.question.text
            yield pair.chosen.text
            yield pair.rejected.text


def main(folder: Path | None = None) -> None:
    """Write the skeleton to ``assets/tiny-vlm``."""
    write_skeleton(folder or resolve_path("assets/tiny-vlm"), texts())


if __name__ == "__main__":
    main()
