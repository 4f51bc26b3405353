"""Answers by transformers' own generation, greedy or drawn at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from spatial_lightning.backbones.inputs import joined, stock_inputs
from spatial_lightning.backbones.processor import Processor
from spatial_lightning.tree import Prompt


@torch.no_grad()
def generate(
    model: Any,
    processor: Processor,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
) -> list[str]:
    """Answers, one a prompt, in the order given; prompts of similar length are padded together."""
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: prompts[index].ids.numel())
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = [prompts[index].ids for index in chosen]
        images = joined([image for index in chosen for image in prompts[index].images])
        inputs = stock_inputs(processor, rows, images, prompts=[row.numel() for row in rows], side="left")
        with plain_generation(model, processor, temperature):
            output = model.generate(
                **{name: tensor.to(model.device) for name, tensor in inputs.items()}, max_new_tokens=max_new_tokens
            )
        new = output[:, inputs["input_ids"].shape[1] :]
        texts = processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            answers[index] = text.strip()
    return answers


@contextmanager
def plain_generation(model: Any, processor: Processor, temperature: float = 0.0) -> Iterator[None]:
    """Leave out the sampling defaults of the model directory, some of which (repetition penalty) bend greedy answers.

    Args:
        temperature: of the whole distribution from which tokens are drawn; 0 takes the likeliest.
    """
    before = model.generation_config
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    model.generation_config = GenerationConfig(
        **{"do_sample": False, **drawn}, eos_token_id=processor.end_ids, pad_token_id=processor.pad_id
    )
    try:
        yield
    finally:
        model.generation_config = before
