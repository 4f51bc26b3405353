"""Which questions of an image a tree holds: drawn anew each epoch, evenly or in favour of rare kinds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spatial_lightning.records import ImageQuestions, Question


@dataclass(frozen=True)
class QuestionDraw:
    """Draws questions of an image, the same for the same seed, epoch and record.

    Attributes:
        count: how many a tree holds; None takes all.
        seed: of the draws.
        weights: how much more often a question of a kind is drawn than one of weight 1; kinds without one have 1.

    Raises:
        ValueError: a count below 1.
    """

    count: int | None
    seed: int
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ValueError(f"data.questions_per_image is {self.count}; it must be at least 1, or null for all")

    def __call__(self, record: ImageQuestions, epoch: int | None) -> list[Question]:
        """The questions of a tree, in the record's order; without replacement."""
        questions = record.questions
        if self.count is None or self.count >= len(questions):
            return list(questions)
        digest = hashlib.blake2b(f"{self.seed}/{epoch}/{record.id}".encode(), digest_size=8).digest()
        generator = np.random.default_rng(int.from_bytes(digest))
        chances = None
        if self.weights:
            weights = np.array([self.weights.get(question.kind, 1.0) for question in questions])
            chances = weights / weights.sum()
        chosen = generator.choice(len(questions), self.count, replace=False, p=chances)
        return [questions[index] for index in sorted(chosen)]


def balancing_weights(questions: Iterable[Question], power: float) -> dict[str, float]:
    """Weights that favour rare kinds: (most frequent kind's count / own count) ** power.

    Args:
        power: 0 leaves kinds as frequent as they are, 1 makes them equally frequent where images have questions of all.
    """
    counts = Counter(question.kind for question in questions)
    most = max(counts.values(), default=1)
    return {kind: (most / count) ** power for kind, count in counts.items()}


def spread(records: Sequence[ImageQuestions], limit: int) -> Iterable[ImageQuestions]:
    """At most ``limit`` evenly spaced records."""
    step = max(1, -(-len(records) // limit))
    return (records[index] for index in range(0, len(records), step))
