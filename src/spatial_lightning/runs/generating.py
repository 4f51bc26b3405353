"""Answers to the questions of a benchmark, batch by batch, each on the disk before the next begins."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import torch

from spatial_lightning.backbones.prefixes import can_share_prefixes
from spatial_lightning.data import Encoder
from spatial_lightning.records import RecordError
from spatial_lightning.runs.answering import Asked
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.evaluated import Evaluated
from spatial_lightning.runs.predictions import Journal
from spatial_lightning.runs.progress import clock
from spatial_lightning.tree import Prompt

AnswerBatch = Callable[[Sequence[Asked]], list[str]]
"""From images and questions, in the words in which they are put, to answers."""

_SPEAK_EVERY = 10.0


def answer_all(
    asked: Sequence[Asked], journal: Journal, answer: AnswerBatch, *, batch_size: int, say: Callable[[str], None]
) -> list[str]:
    """One answer a question, in the order asked; only those that the journal lacks are generated.

    Questions about the same images stay together. Batches are cut over all questions, so that a run that goes on after a
    kill pads as one that was never killed.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    first: dict[tuple[Path, ...], int] = {}
    for index, (images, _) in enumerate(asked):
        first.setdefault(images, index)
    order = sorted(range(len(asked)), key=lambda index: first[asked[index][0]])
    there = len(journal.answers)
    began = spoke = time.monotonic()
    for start in range(0, len(order), batch_size):
        batch = [asked[index] for index in order[start : start + batch_size]]
        missing = [pair for pair in batch if pair[1].id not in journal.answers]
        if not missing:
            continue
        journal.append([question.id for _, question in missing], answer(missing))
        now, done = time.monotonic(), len(journal.answers)
        if now - spoke >= _SPEAK_EVERY or done == len(asked):
            spoke = now
            rate = (done - there) / max(now - began, 1e-9)
            left = clock((len(asked) - done) / max(rate, 1e-9))
            say(f"{done}/{len(asked)} answers ({100 * done / len(asked):.0f} %)  {rate:.2f} answers/s  {left} left")
    return [journal.answers[question.id] for _, question in asked]


def by_transformers(
    evaluated: Evaluated,
    *,
    max_new_tokens: int,
    share: bool,
    device: str,
    say: Callable[[str], None],
    temperature: float = 0.0,
    seed: int = 0,
) -> AnswerBatch:
    """Answers by transformers' own forward, images read once for all questions of a batch about them.

    Args:
        temperature: 0 answers greedily; above 0, what is drawn for a batch depends on the seed and the batch alone.
    """
    backbone = evaluated.backbone
    backbone.to(_device(device))
    if share and not can_share_prefixes(backbone.model.config.model_type, backbone.decoder.config):
        say(f"{backbone.model.config.model_type} reads every question with its images anew: its layers cannot share")
    encoder = Encoder(backbone.processor, evaluated.system)

    def answer(batch: Sequence[Asked]) -> list[str]:
        prompts: list[Prompt] = []
        for images, pairs in groupby(batch, key=lambda pair: pair[0]):
            prompts += encoder.prompts(images, [question for _, question in pairs])
        if temperature:
            torch.manual_seed(zlib.crc32(f"{seed} {batch[0][1].id}".encode()))
        return backbone.generate(
            prompts,
            max_new_tokens=max_new_tokens,
            batch_size=len(prompts),
            share=share,
            temperature=temperature,
        )

    return answer


def require_askable(asked: Sequence[Asked], evaluated: Evaluated) -> None:
    """Refuse questions that cannot be put to a model, before the first is.

    Raises:
        RecordError: a question has a control token of the model in it.
    """
    for _, question in asked:
        try:
            evaluated.backbone.processor.check_text(question.text)
        except RecordError as error:
            raise RecordError(
                f"question {question.id!r} cannot be put to {evaluated.backbone.path}: {error}"
            ) from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; allowed: auto, cpu, cuda, cuda:0, ...") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name}, but there is no GPU here: device=auto takes what there is")
    return device
