"""Text and pictures to model inputs: tokenizer, image processor and chat template of one model directory."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from spatial_lightning.backbones.composing import BackboneError, compose_processor, load_part
from spatial_lightning.records import RecordError
from spatial_lightning.tree import ImageFeatures

_QUESTION, _ANSWER, _OBSERVATION = "⟦question⟧", "⟦answer⟧", "⟦observation⟧"


_TEXT_INPUTS = {"input_ids", "attention_mask", "position_ids", "token_type_ids", "mm_token_type_ids", "labels"}
_WITHOUT_TEMPLATE = {"paligemma"}  # pictures, start token, text and a line break; no turns
_FIRST_POSITION = {"paligemma": 1}
_FRAMES = 1024


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """What the chat template writes around a question and its answer.

    Attributes:
        prefix: everything before the question, image placeholders included; shared by all questions about the images.
        question_end: from the end of the question to where the model goes on.
        answer_end: the end-of-turn marker, which is trained.
        answer_start: blanks that the template puts before an answer and generation does not; trained with the answer.
    """

    prefix: str
    question_end: str
    answer_end: str
    answer_start: str = ""


class Processor:
    """Tokenizer, image processor, chat template and position rule of one model, loaded without torchvision.

    Args:
        path: a Hugging Face model directory or hub id.
        min_pixels, max_pixels: bounds on the resized image area in pixels, for families that keep the picture's own
            size (Qwen-VL, GLM-V); None keeps the model's own.
        image_settings: other settings of the image processor (e.g. ``do_image_splitting: false``, ``max_patches: 4``).

    Raises:
        BackboneError: a part is missing, the template has no place for an image, or the image processor has no such
            setting.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        image_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = str(path)
        self.config = load_part(AutoConfig, self.path, "config.json")
        self.image_settings = dict(image_settings or {})
        self.composed = compose_processor(self.path, self.config, self.image_settings)
        self.tokenizer = self.composed.tokenizer
        self.image_processor = self.composed.image_processor
        if min_pixels is not None or max_pixels is not None:
            self._limit(min_pixels, max_pixels)
        if not self.tokenizer.chat_template and self.config.model_type not in _WITHOUT_TEMPLATE:
            raise BackboneError(f"{self.path} has no chat template: add chat_template.jinja to the directory")
        self.image_token_id: int = self.config.image_token_id
        self.image_token: str = self.tokenizer.convert_ids_to_tokens(self.image_token_id)
        if self.image_token is None:  # transformers makes an empty tokenizer where the files of one are missing
            raise BackboneError(
                f"cannot load a tokenizer from {self.path!r}: the one there has {len(self.tokenizer)} tokens and no image token "
                f"(number {self.image_token_id}); put the model's tokenizer.json into the directory"
            )
        self.placeholder: str = self.composed.image_token
        added = (token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        special = {*self.tokenizer.all_special_tokens, *added, self.image_token, self.placeholder}
        self._special = tuple(sorted(special, key=len, reverse=True))
        self._frames: dict[tuple[int, str | None], ChatFrame] = {}
        self._make_frame(1, None)  # refuses a template without a place for a picture

    @property
    def pixel_limits(self) -> tuple[int, int] | None:
        """Smallest and largest area in pixels that images are resized to; None where the family cuts tiles of one size."""
        size = dict(self.image_processor.size)
        if not hasattr(self.image_processor, "merge_size") or "shortest_edge" not in size:
            return None
        return size["shortest_edge"], size["longest_edge"]

    def _limit(self, min_pixels: int | None, max_pixels: int | None) -> None:
        if self.pixel_limits is None:
            raise BackboneError(
                f"the {type(self.image_processor).__name__} of {self.path} resizes to fixed sizes, not to an area: leave "
                "backbone.min_pixels and max_pixels null and set backbone.image_settings"
            )
        smallest, largest = self.pixel_limits
        self.image_processor.size = dict(self.image_processor.size) | {
            "shortest_edge": smallest if min_pixels is None else min_pixels,
            "longest_edge": largest if max_pixels is None else max_pixels,
        }

    def fingerprint(self) -> str:
        """Content hash of everything that turns records into model inputs."""
        settings = {
            "vocabulary": hashlib.blake2b(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            "template": self.tokenizer.chat_template,
            "images": {key: value for key, value in self.image_processor.to_dict().items() if _is_plain(value)},
        }
        return hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()

    def image(self, path: Path | IO[bytes]) -> ImageFeatures:
        """Decode and preprocess one picture.

        Raises:
            RecordError: the file is missing or not a picture.
        """
        output = self.composed(
            images=[load_image(path)],
            text=[self.placeholder],
            images_kwargs={**self.image_settings, "return_tensors": "pt"},
            return_text_replacement_offsets=True,
            return_mm_token_type_ids=False,
        )
        text = output["text_replacement_offsets"][0][0]["replacement"]
        tensors = {name: _rows(name, output[name]) for name in self.image_inputs if name in output}
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(tensors):
            digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
        return ImageFeatures(tensors, text.count(self.image_token), digest.hexdigest(), text)

    def image_tokens(self, height: int, width: int) -> int:
        """How many image tokens a picture of so many pixels fills, by the processor's own rule."""
        return self.composed._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0]

    @cached_property
    def image_inputs(self) -> tuple[str, ...]:
        """What the model's forward may take about images, by name."""
        return tuple(sorted(self._forward_inputs - _TEXT_INPUTS))

    @cached_property
    def type_inputs(self) -> tuple[str, ...]:
        """What the model's forward takes about the kind of each token, by name."""
        return tuple(sorted(self._forward_inputs & {"token_type_ids", "mm_token_type_ids"}))

    @cached_property
    def _forward_inputs(self) -> set[str]:
        return set(inspect.signature(self._skeleton.forward).parameters)

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's own and the end-of-turn marker that training teaches."""
        ends = {self.tokenizer.eos_token_id, self.tokenizer.convert_tokens_to_ids(self.frame(0).answer_end)}
        return sorted(end for end in ends if end is not None)

    @property
    def pad_id(self) -> int:
        """Token that fills short sequences of a padded batch."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id

    def frame(self, images: int, system: str | None = None) -> ChatFrame:
        """Text around a question about ``images`` pictures and around its answer, as the chat template writes it.

        Raises:
            BackboneError: the template drops the question, the answer or the pictures.
        """
        key = (images, system)
        if key not in self._frames:
            if len(self._frames) >= _FRAMES:  # a corpus may bring a system turn of its own with every record
                self._frames.clear()
            self._frames[key] = self._make_frame(images, system)
        return self._frames[key]

    def _make_frame(self, images: int, system: str | None) -> ChatFrame:
        end = self.tokenizer.eos_token
        if not self.tokenizer.chat_template:
            task = f"{system} " if system else ""
            return ChatFrame(self.placeholder * images + (self.tokenizer.bos_token or "") + task, "\n", end)
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
        if prefix.count(self.placeholder) != images:
            raise BackboneError(
                f"the chat template of {self.path} writes {prefix.count(self.placeholder)} image placeholders "
                f"({self.placeholder}) for {images} images before the question"
            )
        before, tail = answered.split(_ANSWER)
        gap = before.removeprefix(asked)
        marker = next((token for token in self._special if tail.strip().startswith(token)), end)
        lead = "" if prefix.startswith(self._lead) else self._lead
        return ChatFrame(lead + prefix, question_end, marker, "" if gap.strip() else gap)

    @cached_property
    def _lead(self) -> str:
        """Tokens that the tokenizer itself puts before every text."""
        with_lead, plain = (self.tokenizer("a", add_special_tokens=add)["input_ids"] for add in (True, False))
        return "".join(self.tokenizer.convert_ids_to_tokens(with_lead[: max(0, with_lead.index(plain[0]))]))

    def next_turn(self, images: int) -> str:
        """Text from the end-of-turn marker of an answer to the observation with ``images`` pictures that follows it.

        Raises:
            BackboneError: the template drops the pictures.
        """
        if not self.tokenizer.chat_template:
            return "\n" + self.placeholder * images
        observation = [{"type": "image"}] * images + [{"type": "text", "text": _OBSERVATION}]
        messages = [
            {"role": "user", "content": [{"type": "text", "text": _QUESTION}]},
            {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]},
            {"role": "user", "content": observation},
        ]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        turn = text.split(_ANSWER)[1].split(_OBSERVATION)[0].removeprefix(self.frame(0).answer_end)
        if turn.count(self.placeholder) != images:
            raise BackboneError(
                f"the chat template of {self.path} writes {turn.count(self.placeholder)} image placeholders "
                f"({self.placeholder}) for {images} images before an observation"
            )
        return turn

    def tokenize(self, text: str, images: Sequence[ImageFeatures] = ()) -> tuple[Int[Tensor, " n"], Int[Tensor, "n 2"]]:
        """Token ids of a piece of text and the character span of each.

        Args:
            images: the pictures whose placeholders are in ``text``, in order; spans count their expanded text.
        """
        if images:
            first, *rest = text.split(self.placeholder)
            text = first + "".join(image.text + piece for image, piece in zip(images, rest, strict=True))
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
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
            return torch.arange(ids.numel()).unsqueeze(0) + _FIRST_POSITION.get(self.config.model_type, 0)
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


def load_image(path: Path | IO[bytes]) -> Image.Image:
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


def _rows(name: str, tensor: Tensor) -> Tensor:
    """An image input with one row for each patch, tile or image, so that images are joined along the first dimension."""
    if name == "pixel_attention_mask":
        return tensor.flatten(0, 1).bool()
    return tensor.flatten(0, 1) if name == "pixel_values" and tensor.ndim == 5 else tensor


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list | dict | tuple | type(None) | np.number)
