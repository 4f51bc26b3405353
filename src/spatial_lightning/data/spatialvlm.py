"""Many questions about each image: one tree an image, one branch a question."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from spatial_lightning.data.drawing import QuestionDraw
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
        self.draw = QuestionDraw(questions_per_image, self.seed)

    def encode(self, record: ImageQuestions, *, epoch: int | None) -> TokenTree:
        """See :meth:`TreeDataModule.encode`."""
        return self.encoder.questions(record, self.draw(record, epoch))

    def texts(self, record: ImageQuestions, *, epoch: int | None) -> list[str]:
        """See :meth:`TreeDataModule.texts`."""
        return [question.text + question.answer for question in self.draw(record, epoch)]

    def questions(self, split: str) -> list[tuple[tuple[Path, ...], Question]]:
        """See :meth:`TreeDataModule.questions`."""
        return [(record.images, question) for record in self.records[split] for question in record.questions]
