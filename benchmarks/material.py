"""What both sides train on: a model directory with random weights, and questions and pairs about given pictures."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from spatial_lightning.records import (
    DESCRIPTION,
    REASONING,
    ImageQuestions,
    PreferencePair,
    Question,
    Response,
    Segment,
)

_PICTURES = {".png", ".jpg", ".jpeg"}
_ARCHITECTURE = ("config.json", "generation_config.json")
_FACTS = ("small red rubber", "large blue metal", "tiny green glass", "tall yellow wooden", "flat purple plastic")
_SHAPES = ("cube", "sphere", "cylinder", "cone", "pyramid")
_RELATIONS = ("to the left of", "to the right of", "in front of", "behind")


@dataclass(frozen=True, slots=True)
class Shape:
    """A model to compare on.

    Attributes:
        overrides: changes to the configuration by dotted name.
        dtype: type of the weights and of all computation.
        checkpointing: whether activations of the layers are recomputed in the backward pass.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    checkpointing: bool = False


SHAPES = {
    # SmolVLM-256M with its widths divided by three and its depths by six; vocabulary, tiles and tokens of a picture are its own.
    "smolvlm_small": Shape(
        {
            "vision_config.hidden_size": 256,
            "vision_config.intermediate_size": 1024,
            "vision_config.num_attention_heads": 4,
            "vision_config.num_hidden_layers": 2,
            "text_config.hidden_size": 192,
            "text_config.intermediate_size": 512,
            "text_config.num_attention_heads": 3,
            "text_config.num_key_value_heads": 1,
            "text_config.num_hidden_layers": 5,
        }
    ),
    "qwen2_5_vl_3b": Shape(dtype="bfloat16", checkpointing=True),
}


def trains(name: str) -> bool:
    """Whether a parameter learns: everything but the vision tower, whose projector learns."""
    parts = name.split(".")
    return "merger" in parts or not {"vision_model", "vision_tower", "visual"} & set(parts)


def write_model(
    folder: Path, *, config: Path, processor: Path, shape: Shape, seed: int = 0, device: str = "cpu"
) -> None:
    """Write the directories ``policy`` and ``reference``: one architecture, random weights that differ a little.

    Args:
        config: a ``config.json``, or the directory that holds it.
        processor: directory with tokenizer, chat template and image processor.
        device: where the weights are drawn; large ones are slow to draw on a CPU.
    """
    architecture: Any = AutoConfig.from_pretrained(config)
    for name, value in shape.overrides.items():
        *parents, last = name.split(".")
        part = architecture
        for parent in parents:
            part = getattr(part, parent)
        setattr(part, last, value)
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(architecture, dtype=getattr(torch, shape.dtype))
    _save(model, folder / "policy", processor)
    # A reference equal to the policy would make every first DPO loss ln 2, whatever the log-probabilities are.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn_like(parameter) * 0.3 * parameter.std())
    _save(model, folder / "reference", processor)
    del model
    torch.cuda.empty_cache()  # the sides need the memory; nothing where there is no GPU


def _save(model: Any, folder: Path, processor: Path) -> None:
    folder.mkdir(parents=True)
    for file in processor.iterdir():
        if file.suffix in (".json", ".jinja", ".txt", ".model") and file.name not in _ARCHITECTURE:
            shutil.copyfile(file, folder / file.name)
    model.save_pretrained(folder)


def pictures(folder: Path, count: int) -> list[Path]:
    """The first ``count`` pictures below a folder.

    Raises:
        FileNotFoundError: there are fewer.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES)
    if len(found) < count:
        raise FileNotFoundError(f"{folder} holds {len(found)} pictures (png, jpg), {count} are needed")
    return found[:count]


def questions(images: Sequence[Path], count: int) -> list[ImageQuestions]:
    """``count`` questions about each picture, question and answer of about 25 tokens each."""
    rng = random.Random(0)
    records = []
    for image in images:
        asked = tuple(_question(rng, f"{image.stem}/{index}") for index in range(count))
        records.append(ImageQuestions(image.stem, (image,), asked))
    return records


def pairs(images: Sequence[Path], *, sentences: tuple[int, int] = (9, 27)) -> list[PreferencePair]:
    """One pair about each picture; a sentence has about 22 tokens, half of a response's are its description."""
    rng = random.Random(1)
    return [
        PreferencePair(
            image.stem,
            (image,),
            _question(rng, image.stem),
            _response(rng, rng.randint(*sentences), 3.0),
            _response(rng, rng.randint(*sentences), 1.0),
        )
        for image in images
    ]


def _thing(rng: random.Random) -> str:
    return f"{rng.choice(_FACTS)} {rng.choice(_SHAPES)}"


def _claim(rng: random.Random) -> str:
    where, distance = rng.choice(_RELATIONS), rng.randint(10, 99) / 10
    return f"The {_thing(rng)} is {where} the {_thing(rng)}, about {distance} meters from it."


def _question(rng: random.Random, identity: str) -> Question:
    text = f"Is the {_thing(rng)} {rng.choice(_RELATIONS)} the {_thing(rng)}, and how far apart are their centres?"
    return Question(identity, text, _claim(rng), "distance")


def _response(rng: random.Random, sentences: int, score: float) -> Response:
    half = sentences // 2
    first = f"<description>{' '.join(_claim(rng) for _ in range(half))}</description>\n"
    second = f"<reasoning>{' '.join(_claim(rng) for _ in range(sentences - half))}</reasoning>"
    rewards = [{"vc": score, "sp": rng.uniform(0, 4)}, {"lc": score, "sp": rng.uniform(0, 4)}]
    return Response(
        first + second,
        (
            Segment(DESCRIPTION, 0, len(first), rewards[0]),
            Segment(REASONING, len(first), len(first + second), rewards[1]),
        ),
    )
