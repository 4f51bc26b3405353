"""Question-answer pairs from hyper-detailed captions: one tree an image, rare relations drawn more often on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, final

from spatial_lightning.data.drawing import QuestionDraw, balancing_weights, spread
from spatial_lightning.data.trees import TreeDataModule
from spatial_lightning.records import ImageQuestions, Question
from spatial_lightning.tree import TokenTree

_COUNTED = 5000
"""Records whose questions are counted for balancing, evenly spaced."""
_POWERS = {"none": 0.0, "soft": 0.5, "kinds": 1.0}


@final
class SpaREDataModule(TreeDataModule[ImageQuestions]):
    """Any number of questions about each image (arXiv:2504.20648), or any other corpus of questions about images.

    Args:
        questions_per_image: how many questions of an image one tree holds, drawn anew each epoch; None takes all.
        balance: ``none`` draws every question of an image alike; ``kinds`` draws those of a kind in inverse proportion to
            its frequency in the corpus, so that rare relations are seen as often as images allow; ``soft`` by the square
            root of that. It has an effect where images have more questions than a tree holds.

    Raises:
        ValueError: an unknown balance.
    """

    record_type = ImageQuestions

    def __init__(
        self,
        *args: Any,
        questions_per_image: int | None = None,
        balance: Literal["none", "soft", "kinds"] = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if balance not in _POWERS:
            raise ValueError(f"data.balance is {balance!r}; allowed: {', '.join(_POWERS)}")
        if balance != "none" and self.stream is not None:
            raise ValueError(
                f"data.balance={balance} counts the kinds of a corpus first, which a stream cannot: use none"
            )
        self.balance = balance
        self.draw = QuestionDraw(questions_per_image, self.seed)

    def setup(self, stage: str | None = None) -> None:
        """Read, and count kinds where they are balanced."""
        super().setup(stage)
        if self.balance != "none" and not self.draw.weights:
            counted = spread(self.records["train"], _COUNTED)
            questions = (question for record in counted for question in record.questions)
            weights = balancing_weights(questions, _POWERS[self.balance])
            self.draw = QuestionDraw(self.draw.count, self.draw.seed, weights)

    def encode(self, record: ImageQuestions, *, epoch: int | None) -> TokenTree:
        """See :meth:`TreeDataModule.encode`; held-out examples are drawn without balancing."""
        return self.encoder.questions(record, self._draw(record, epoch))

    def texts(self, record: ImageQuestions, *, epoch: int | None) -> list[str]:
        """See :meth:`TreeDataModule.texts`."""
        return [question.text + question.answer for question in self._draw(record, epoch)]

    def questions(self, split: str) -> list[tuple[tuple[Path, ...], Question]]:
        """See :meth:`TreeDataModule.questions`."""
        return [(record.images, question) for record in self.records[split] for question in record.questions]

    def _draw(self, record: ImageQuestions, epoch: int | None) -> list[Question]:
        draw = QuestionDraw(self.draw.count, self.draw.seed) if epoch is None else self.draw
        return draw(record, epoch)
