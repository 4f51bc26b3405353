"""What the stock forward of a family takes: padded ids, per-token types, and images in the layout it expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from spatial_lightning.backbones.blocks import token_types
from spatial_lightning.backbones.processor import Processor
from spatial_lightning.tree import ImageFeatures, join_rows


def image_inputs(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Image inputs of a row; families with a mask of pixels take all tiles as those of one sample."""
    nested = "pixel_attention_mask" in images
    return {name: tensor.unsqueeze(0) if nested else tensor for name, tensor in images.items()}


def joined(features: Sequence[ImageFeatures]) -> dict[str, Tensor]:
    """Inputs of several images, one after the other."""
    names = sorted(features[0].tensors) if features else []
    return {name: join_rows([feature.tensors[name] for feature in features]) for name in names}


def stock_inputs(
    processor: Processor,
    rows: Sequence[Int[Tensor, " tokens"]],
    images: Mapping[str, Tensor],
    *,
    prompts: Sequence[int],
    side: Literal["left", "right"],
) -> dict[str, Tensor]:
    """Sequences as one padded batch for the stock forward.

    Args:
        rows: token ids of each sequence.
        images: inputs of their images, in token order.
        prompts: how many tokens of each sequence are its prompt.
        side: where the padding goes.
    """

    def pad(tensors: list[Tensor], value: int) -> Tensor:
        return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)

    ids = [row.cpu() for row in rows]
    inputs = {"input_ids": pad(ids, processor.pad_id), "attention_mask": pad([torch.ones_like(row) for row in ids], 0)}
    for name in processor.type_inputs:
        if images or name == "token_type_ids":
            kinds = [
                token_types(processor.config.model_type, row, processor.image_token_id, prompt)
                for row, prompt in zip(ids, prompts, strict=True)
            ]
            inputs[name] = pad(kinds, 0).int()
    return {**inputs, **image_inputs(images)}
