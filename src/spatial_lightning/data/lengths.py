"""How long examples are, by what records and picture sizes say: enough to balance ranks, without encoding anything."""

from __future__ import annotations

from collections.abc import Sequence

from spatial_lightning.data.corpora.pictures import Size
from spatial_lightning.data.encode import TextAndImages


class Lengths:
    """Tokens of examples, those of pictures by the processor's own rule, those of text by their characters.

    Args:
        system: system turn of every example.
        samples: texts as they occur, from which the tokens of a character are learned.
    """

    def __init__(self, processor: TextAndImages, system: str | None, samples: Sequence[str]) -> None:
        self.processor, self.system = processor, system
        characters = sum(map(len, samples))
        self._per_character = sum(self._tokens(text) for text in samples) / max(1, characters)
        frame = processor.frame(0, system)
        self._turn = self._tokens(frame.question_end + frame.answer_start + frame.answer_end)
        self._prefixes: dict[int, int] = {}
        self._pictures: dict[Size, int] = {}

    def __call__(self, pictures: Sequence[Size], texts: Sequence[str]) -> float:
        """Estimated tokens of an example.

        Args:
            pictures: height and width of each, in pixels.
            texts: what each branch adds to the prefix.
        """
        words = sum(map(len, texts)) * self._per_character + len(texts) * self._turn
        return self._prefix(len(pictures)) + sum(map(self._picture, pictures)) + words

    def _prefix(self, pictures: int) -> int:
        if pictures not in self._prefixes:
            self._prefixes[pictures] = self._tokens(self.processor.frame(pictures, self.system).prefix)
        return self._prefixes[pictures]

    def _picture(self, size: Size) -> int:
        if size not in self._pictures:
            self._pictures[size] = self.processor.image_tokens(*size)
        return self._pictures[size]

    def _tokens(self, text: str) -> int:
        return self.processor.tokenize(text)[0].numel()
