"""Text and pictures to model inputs: tokenizer, image processor and chat template of one model directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from spatial_lightning.records import RecordError
from spatial_lightning.tree import ImageFeatures

_QUESTION, _ANSWER, _OBSERVATION = "⟦question⟧", "⟦answer⟧", "⟦observation⟧"


class BackboneError(ValueError):
    """A model directory or a setting that cannot be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """What the chat template writes around a question and its answer.

    Attributes:
        prefix: everything before the question, image placeholders included; shared by all questions about the images.
        question_end: from the end of the question to the first character of the answer.
        answer_end: the end-of-turn marker, which is trained.
    """

    prefix: str
    question_end: str
    answer_end: str


class Processor:
    """Tokenizer, image processor, chat template and position rule of one model, loaded without torchvision.

    Args:
        path: a Hugging Face model directory or hub id.
        min_pixels, max_pixels: bounds on the resized image area in pixels; None keeps the model's own.

    Raises:
        BackboneError: a part is missing or the template has no place for an image.
    """

    def __init__(self, path: str | Path, *, min_pixels: int | None = None, max_pixels: int | None = None) -> None:
        self.path = str(path)
        self.config = _load(AutoConfig, self.path, "config.json")
        self.tokenizer = _load(AutoTokenizer, self.path, "a tokenizer")
        self.image_processor = _load(AutoImageProcessor, self.path, "preprocessor_config.json")
        size = dict(self.image_processor.size)
        if min_pixels is not None:
            size["shortest_edge"] = min_pixels
        if max_pixels is not None:
            size["longest_edge"] = max_pixels
        self.image_processor.size = size
        if not self.tokenizer.chat_template:
            raise BackboneError(f"{self.path} has no chat template: add chat_template.jinja to the directory")
        self.image_token_id: int = self.config.image_token_id
        self.image_token: str = self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        self._special = tuple(sorted(set(self.tokenizer.all_special_tokens), key=len, reverse=True))
        self._frames: dict[tuple[int, str | None], ChatFrame] = {}

    @property
    def pixel_limits(self) -> tuple[int, int]:
        """Smallest and largest area in pixels that images are resized to."""
        return self.image_processor.size["shortest_edge"], self.image_processor.size["longest_edge"]

    def fingerprint(self) -> str:
        """Content hash of everything that turns records into model inputs."""
        settings = {
            "vocabulary": hashlib.blake2b(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "template": self.tokenizer.chat_template,
            "images": {key: value for key, value in self.image_processor.to_dict().items() if _is_plain(value)},
        }
        return hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()

    def image(self, path: Path) -> ImageFeatures:
        """Decode and preprocess one picture.

        Raises:
            RecordError: the file is missing or not a picture.
        """
        pixels = load_image(path)
        tensors = dict(self.image_processor(images=[pixels], return_tensors="pt"))
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(tensors):
            digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
        return ImageFeatures(tensors, self._image_tokens(tensors), digest.hexdigest())

    def frame(self, images: int, system: str | None = None) -> ChatFrame:
        """Text around a question about ``images`` pictures and around its answer, as the chat template writes it.

        Raises:
            BackboneError: the template drops the question, the answer or the pictures.
        """
        key = (images, system)
        if key not in self._frames:
            self._frames[key] = self._make_frame(images, system)
        return self._frames[key]

    def _make_frame(self, images: int, system: str | None) -> ChatFrame:
        question = [{"type": "image"}] * images + [{"type": "text", "text": _QUESTION}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        answer = {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}
        asked = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        answered = self.tokenizer.apply_chat_template([*messages, answer], tokenize=False)
        if asked.count(_QUESTION) != 1 or answered.count(_ANSWER) != 1:
            raise BackboneError(f"the chat template of {self.path} does not keep the text of a question and its answer")
        prefix, question_end = asked.split(_QUESTION)
        if prefix.count(self.image_token) != images:
            raise BackboneError(
                f"the chat template of {self.path} writes {prefix.count(self.image_token)} image placeholders "
                f"({self.image_token}) for {images} images before the question"
            )
        tail = answered.split(_ANSWER)[1].strip()
        marker = next((token for token in self._special if tail.startswith(token)), self.tokenizer.eos_token)
        return ChatFrame(prefix, question_end, marker)

    def next_turn(self, images: int) -> str:
        """Text from the end-of-turn marker of an answer to the observation with ``images`` pictures that follows it.

        Raises:
            BackboneError: the template drops the pictures.
        """
        observation = [{"type": "image"}] * images + [{"type": "text", "text": _OBSERVATION}]
        messages = [
            {"role": "user", "content": [{"type": "text", "text": _QUESTION}]},
            {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]},
            {"role": "user", "content": observation},
        ]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        turn = text.split(_ANSWER)[1].split(_OBSERVATION)[0].removeprefix(self.frame(0).answer_end)
        if turn.count(self.image_token) != images:
            raise BackboneError(
                f"the chat template of {self.path} writes {turn.count(self.image_token)} image placeholders "
                f"({self.image_token}) for {images} images before an observation"
            )
        return turn

    def tokenize(self, text: str, image_tokens: Sequence[int] = ()) -> tuple[Int[Tensor, " n"], Int[Tensor, "n 2"]]:
        """Token ids of a piece of text and the character span of each; image placeholders are repeated.

        Args:
            image_tokens: how many positions each placeholder in ``text`` fills, in order.
        """
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans, counts = [], [], iter(image_tokens)
        for token, span in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            repeat = next(counts) if token == self.image_token_id else 1
            ids.extend([token] * repeat)
            spans.extend([span] * repeat)
        return torch.tensor(ids, dtype=torch.long), torch.tensor(spans, dtype=torch.long).view(-1, 2)

    def check_text(self, text: str) -> None:
        """Refuse text that contains one of the tokenizer's control tokens, which would break the conversation's form.

        Raises:
            RecordError: the text contains a control token.
        """
        found = next((token for token in self._special if token in text), None)
        if found is not None:
            raise RecordError(f"text contains the control token {found!r}: remove it from the corpus")

    def positions(self, ids: Int[Tensor, " path"], images: Sequence[ImageFeatures]) -> Int[Tensor, "axes path"]:
        """Rotary positions of a path by the model's own rule."""
        rope_index = getattr(self._skeleton.model, "get_rope_index", None)
        if rope_index is None:
            return torch.arange(ids.numel()).unsqueeze(0)
        tensors = {
            name: torch.cat([image.tensors[name] for image in images])
            for name in ("image_grid_thw",)
            if images and name in images[0].tensors
        }
        kinds = (ids == self.image_token_id).int().unsqueeze(0)
        return rope_index(ids.unsqueeze(0), mm_token_type_ids=kinds, **tensors)[0][:, 0]

    @cached_property
    def _skeleton(self) -> Any:
        """The model without weights, for rules that transformers keeps as methods of the model."""
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(self.config)

    def _image_tokens(self, tensors: dict[str, Tensor]) -> int:
        grid = tensors.get("image_grid_thw")
        if grid is None:
            raise BackboneError(f"no rule for the number of image tokens of {self.config.model_type}")
        return int(grid.prod()) // self.image_processor.merge_size**2


def load_image(path: Path) -> Image.Image:
    """A picture as RGB; transparency is dropped and greyscale expanded.

    Raises:
        RecordError: the file is missing or not a picture.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise RecordError(f"image {path} does not exist") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RecordError(f"image {path} cannot be read: {error}") from error


def _load(factory: Any, path: str, what: str) -> Any:
    try:
        return factory.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(f"cannot load {what} from {path!r}: {error}") from error


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | dict | tuple | type(None) | np.number)
