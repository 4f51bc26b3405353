"""Answers behind a shared prefix: the same as those to every prompt alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from families import FAMILIES
from samples import question

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.prefixes import can_share_prefixes
from spatial_lightning.data import Encoder
from spatial_lightning.tree import Prompt

LENGTH = 6
SHARES = ("qwen2_vl", "qwen3_vl", "llava", "llava_onevision", "internvl", "idefics3", "smolvlm", "glm4v")
TEXTS = (
    "How far?",
    "Which of the red cube and the green sphere is to the left of it?",
    "Is it near the cone?",
    "How far is the red cube from the green sphere, and which of the two is taller?",
)


def _prompts(backbone: Backbone, pictures: tuple[Path, ...]) -> list[Prompt]:
    """Questions about one picture, about two, about none, and one question alone with its picture; mixed up."""
    encoder = Encoder(backbone.processor, system=None)
    about = [(pictures[:1], text) for text in TEXTS] + [(pictures[1:], text) for text in TEXTS[:2]]
    about += [((), text) for text in TEXTS[:2]] + [(pictures[2:], TEXTS[3])]
    prompts = [encoder.prompt(images, question(text=text)) for images, text in about]
    return [prompts[index] for index in (3, 8, 0, 5, 1, 6, 2, 4, 7)]


def _counting(backbone: Backbone, prompts: list[Prompt], size: int, share: bool) -> tuple[list[str], int]:
    """Answers, and how many tokens went through the language tower for them."""
    seen: list[int] = []

    def count(_module: torch.nn.Module, arguments: tuple, keywords: dict) -> None:
        del arguments
        seen.append(keywords["inputs_embeds"].shape[:2].numel())

    handle = backbone.decoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        answers = backbone.generate(prompts, max_new_tokens=LENGTH, batch_size=size, share=share)
    finally:
        handle.remove()
    return answers, sum(seen)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_shared_prefixes_change_no_answer(tiny: Backbone, pictures: tuple[Path, ...], size: int) -> None:
    prompts = _prompts(tiny, pictures)
    expected, plainly = _counting(tiny, prompts, size, share=False)
    answers, shared = _counting(tiny, prompts, size, share=True)
    assert answers == expected
    assert len(set(expected)) > len(expected) // 2
    if size == 64:
        assert shared < plainly


@pytest.mark.parametrize("name", SHARES)
def test_families_answer_the_same_behind_shared_prefixes(
    name: str, tmp_path: Path, shared_data: Path, pictures: tuple[Path, ...]
) -> None:
    family = FAMILIES[name]
    torch.manual_seed(3)
    backbone = Backbone(family.write(tmp_path / name, shared_data), weights="random", **family.arguments)
    assert can_share_prefixes(backbone.model.config.model_type, backbone.decoder.config)
    with torch.no_grad():  # so that attention, and with it the picture, matters
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    prompts = _prompts(backbone, pictures)
    expected = backbone.generate(prompts, max_new_tokens=LENGTH)
    assert backbone.generate(prompts, max_new_tokens=LENGTH, share=True, batch_size=4) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "paligemma2"])
def test_families_that_cannot_share_answer_prompt_by_prompt(
    name: str, tmp_path: Path, shared_data: Path, pictures: tuple[Path, ...]
) -> None:
    family = FAMILIES[name]
    backbone = Backbone(family.write(tmp_path / name, shared_data), weights="random", **family.arguments)
    assert not can_share_prefixes(backbone.model.config.model_type, backbone.decoder.config)
    prompts = _prompts(backbone, pictures)[:3]
    plainly, shared = (backbone.generate(prompts, max_new_tokens=2, share=share) for share in (False, True))
    assert plainly == shared


@pytest.mark.parametrize("share", [True, False])
def test_drawn_tokens_have_the_probabilities_of_the_model(
    tiny: Backbone, pictures: tuple[Path, ...], share: bool
) -> None:
    """First tokens of 1,200 answers against the softmax at the temperature; so no token is cut off, either."""
    prompt = Encoder(tiny.processor, system=None).prompt(pictures[:1], question(text=TEXTS[0]))
    temperature, rows = 3.0, 400
    first: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _arguments: tuple, logits: torch.Tensor) -> None:
        first.append(logits[0, -1].detach().float())

    handle = tiny.model.get_output_embeddings().register_forward_hook(keep)
    try:
        tiny.generate([prompt], max_new_tokens=1, share=share)
    finally:
        handle.remove()
    expected = (first[-1] / temperature).softmax(-1)
    torch.manual_seed(0)
    settings = {"max_new_tokens": 1, "batch_size": rows, "share": share, "temperature": temperature}
    drawn = [text for _ in range(3) for text in tiny.generate([prompt] * rows, **settings)]
    probability: Counter[str] = Counter()
    for token, p in enumerate(expected.tolist()):
        probability[tiny.processor.tokenizer.decode([token], skip_special_tokens=True).strip()] += p
    for text, p in probability.most_common(5):
        assert abs(drawn.count(text) / len(drawn) - p) < 4 * (p * (1 - p) / len(drawn)) ** 0.5
    assert len(set(drawn)) > 20
