"""Answers to several questions about the same images, which are read once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spatial_lightning.backbones.blocks import is_causal
from spatial_lightning.backbones.generation import plain_generation
from spatial_lightning.backbones.inputs import joined, stock_inputs
from spatial_lightning.backbones.processor import Processor
from spatial_lightning.tree import ImageFeatures, Prompt


def can_share_prefixes(model_type: str, config: Any) -> bool:
    """Whether padding between a prefix and what follows changes nothing: every layer attends to all earlier tokens.

    A sliding window would count the padding, and a family whose prompt sees itself in both directions reads a prefix
    otherwise with each question.

    Args:
        model_type: of the whole model.
        config: of the language tower.
    """
    layers = getattr(config, "layer_types", None)
    full = set(layers) <= {"full_attention"} if layers else getattr(config, "sliding_window", None) is None
    return full and is_causal(model_type)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt in two parts.

    Attributes:
        index: of the prompt among all.
        rest: tokens behind the shared prefix, at least one, and no images.
    """

    index: int
    rest: Int[Tensor, " tokens"]


@dataclass(frozen=True, slots=True)
class _Group:
    """Prompts that begin alike."""

    prefix: Int[Tensor, " tokens"]
    images: tuple[ImageFeatures, ...]
    asked: tuple[_Asked, ...]


@torch.no_grad()
def generate_behind_prefixes(
    model: Any,
    processor: Processor,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
) -> list[str]:
    """Answers, one a prompt, in the order given.

    Prefixes are padded on their left, and what follows them again on its own left, so that a cache of keys and values is
    read by as many rows as there are questions. Positions are those of each prompt alone.
    """
    answers = [""] * len(prompts)
    for groups in _batches(_groups(prompts, processor.image_token_id), batch_size):
        indices = [asked.index for group in groups for asked in group.asked]
        with plain_generation(model, processor):
            new = _answer(model, processor, groups, max_new_tokens, temperature)
        texts = processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        for index, text in zip(indices, texts, strict=True):
            answers[index] = text.strip()
    return answers


def _groups(prompts: Sequence[Prompt], image_token_id: int) -> list[_Group]:
    """Prompts by their images, each group cut behind the tokens that all of it begin with."""
    members: dict[tuple[str, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        members.setdefault(tuple(image.key for image in prompt.images), []).append(index)
    groups = []
    for indices in members.values():
        first = prompts[indices[0]]
        length = min(_common(first.ids, prompts[index].ids) for index in indices)
        length = min(length, *(prompts[index].ids.numel() - 1 for index in indices))
        if not (first.ids[length:] == image_token_id).any() and len(indices) > 1 and length > 0:
            asked = tuple(_Asked(index, prompts[index].ids[length:]) for index in indices)
            groups.append(_Group(first.ids[:length], first.images, asked))
            continue
        for index in indices:  # alone: all but the last token is the prefix
            ids = prompts[index].ids
            groups.append(_Group(ids[:-1], prompts[index].images, (_Asked(index, ids[-1:]),)))
    return sorted(groups, key=lambda group: group.prefix.numel())


def _common(first: Int[Tensor, " a"], second: Int[Tensor, " b"]) -> int:
    """How many tokens two prompts begin alike with."""
    shortest = min(first.numel(), second.numel())
    differs = (first[:shortest] != second[:shortest]).nonzero()
    return int(differs[0]) if differs.numel() else shortest


def _batches(groups: Sequence[_Group], size: int) -> Iterator[list[_Group]]:
    """Groups with at most ``size`` questions together; a larger group is cut, and its prefix read again."""
    batch: list[_Group] = []
    free = size
    for group in groups:
        left = group.asked
        while left:
            taken, left = left[:free], left[free:]
            batch.append(_Group(group.prefix, group.images, taken))
            free -= len(taken)
            if not free:
                yield batch
                batch, free = [], size
    if batch:
        yield batch


def _answer(
    model: Any, processor: Processor, groups: Sequence[_Group], max_new_tokens: int, temperature: float
) -> Int[Tensor, "questions new"]:
    """Continuations, padded behind their ends."""
    device = model.device
    prefixes = [group.prefix for group in groups]
    images = joined([image for group in groups for image in group.images])
    inputs = stock_inputs(processor, prefixes, images, prompts=[ids.numel() for ids in prefixes], side="left")
    paths = [
        processor.positions(torch.cat([group.prefix, asked.rest]), group.images)
        for group in groups
        for asked in group.asked
    ]
    owner = [number for number, group in enumerate(groups) for _ in group.asked]
    firsts = [owner.index(number) for number in range(len(groups))]
    before = [paths[first][:, : prefix.numel()] for first, prefix in zip(firsts, prefixes, strict=True)]
    output = model(
        **{name: tensor.to(device) for name, tensor in inputs.items()},
        position_ids=_left_padded(before).to(device),
        use_cache=True,
        logits_to_keep=1,
    )
    cache = output.past_key_values
    rows = torch.tensor(owner, device=device)
    cache.batch_select_indices(rows)
    rests = [asked.rest.cpu() for group in groups for asked in group.asked]
    after = [path[:, -rest.numel() :] for path, rest in zip(paths, rests, strict=True)]
    ids = nn.utils.rnn.pad_sequence(rests, batch_first=True, padding_value=processor.pad_id, padding_side="left")
    seen = [torch.ones_like(rest) for rest in rests]
    mask = nn.utils.rnn.pad_sequence(seen, batch_first=True, padding_side="left").to(device)
    mask = torch.cat([inputs["attention_mask"].to(device)[rows], mask], dim=1)
    positions = _left_padded(after).to(device)
    return _continue(model, cache, ids.to(device), mask, positions, processor, max_new_tokens, temperature)


def _continue(
    model: Any,
    cache: Any,
    ids: Int[Tensor, "rows tokens"],
    mask: Int[Tensor, "rows seen"],
    positions: Int[Tensor, "*axes rows tokens"],
    processor: Processor,
    max_new_tokens: int,
    temperature: float,
) -> Int[Tensor, "rows new"]:
    """Append a token to every row until all have ended."""
    ends = torch.tensor(processor.end_ids, device=ids.device)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    new: list[Tensor] = []
    for _ in range(max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        token = torch.where(ended, processor.pad_id, _next(output.logits[:, -1], temperature))
        new.append(token)
        ended = ended | torch.isin(token, ends)
        if bool(ended.all()):
            break
        ids = token.unsqueeze(1)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        positions = positions[..., -1:] + 1
    return torch.stack(new, dim=1)


def _next(logits: Float[Tensor, "rows vocabulary"], temperature: float) -> Int[Tensor, " rows"]:
    """The likeliest tokens, or tokens drawn from the whole distribution at a temperature above 0."""
    if not temperature:
        return logits.argmax(-1)
    return torch.multinomial((logits.float() / temperature).softmax(-1), 1).squeeze(1)


def _left_padded(positions: Sequence[Int[Tensor, "axes tokens"]]) -> Int[Tensor, "*axes rows tokens"]:
    """Positions of several rows as the models take them: without the axis where there is one only."""
    longest = max(row.shape[-1] for row in positions)
    stacked = torch.stack([nn.functional.pad(row, (longest - row.shape[-1], 0)) for row in positions], dim=1)
    return stacked.squeeze(0) if stacked.shape[0] == 1 else stacked
