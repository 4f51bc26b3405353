"""Many questions about each image: one tree an image, one branch a question."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, final

import numpy as np

from spatial_lightning.data.trees import TreeDataModule
from spatial_lightning.records import ImageQuestions, Question
from spatial_lightning.tree import TokenTree


@final
class SpatialVLMDataModule(TreeDataModule[ImageQuestions]):
    """Questions in SpatialVLM's kinds (arXiv:2401.12168), grouped by image so that the image is read once.

    Args:
        questions_per_image: how many questions of an image one tree holds, drawn anew each epoch; None takes all.
    """

    record_type = ImageQuestions

    def __init__(self, *args: Any, questions_per_image: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if questions_per_image is not None and questions_per_image < 1:
            raise ValueError(
                f"data.questions_per_image is {questions_per_image}; it must be at least 1, or null for all"
            )
        self.questions_per_image = questions_per_image

    def encode(self, record: ImageQuestions, *, epoch: int | None) -> TokenTree:
        """See :meth:`TreeDataModule.encode`."""
        return self.encoder.questions(record, self._draw(record, epoch))

    def texts(self, record: ImageQuestions, *, epoch: int | None) -> list[str]:
        """See :meth:`TreeDataModule.texts`."""
        return [question.text + question.answer for question in self._draw(record, epoch)]

    def questions(self, split: str) -> list[tuple[tuple[Path, ...], Question]]:
        """See :meth:`TreeDataModule.questions`."""
        return [(record.images, question) for record in self.records[split] for question in record.questions]

    def _draw(self, record: ImageQuestions, epoch: int | None) -> list[Question]:
        count = len(record.questions)
        if self.questions_per_image is None or self.questions_per_image >= count:
            return list(record.questions)
        digest = hashlib.blake2b(f"{self.seed}/{epoch}/{record.id}".encode(), digest_size=8).digest()
        chosen = np.random.default_rng(int.from_bytes(digest)).choice(count, self.questions_per_image, replace=False)
        return [record.questions[index] for index in sorted(chosen)]
