"""Tokens that see one another in both directions: each picture of Gemma 3, the prompt of PaliGemma."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from spatial_lightning.tree import TreeBatch

_PICTURES = {"gemma3"}
_PROMPT = {"paligemma"}


@dataclass(frozen=True, slots=True)
class Blocks:
    """Which tokens of a row attend to later ones too.

    Attributes:
        of: block of each token, -1 for none; tokens of one block and one path see one another.
        windowed: whether the window of sliding layers hides a block's own tokens as it hides others.
    """

    of: Int[Tensor, " tokens"]
    windowed: bool


def is_causal(model_type: str) -> bool:
    """Whether no token of this family sees a later one."""
    return model_type not in _PICTURES | _PROMPT


def blocks_of(model_type: str, batch: TreeBatch, image_token_id: int) -> Blocks | None:
    """The blocks of a packed row under the rule of a family; None for causal families.

    Gemma 3 reads every picture as a block; PaliGemma the root of the tree, which is the prompt, or its shared part where
    questions branch off it (arXiv:2407.07726).
    """
    if model_type in _PICTURES:
        is_image = (batch.ids == image_token_id).cpu()
        starts = is_image & ~torch.nn.functional.pad(is_image, (1, 0))[:-1]
        return Blocks(torch.where(is_image, starts.cumsum(0), -1), windowed=True)
    if model_type in _PROMPT:
        of = torch.full((batch.tokens,), -1)
        for node, parent in enumerate(batch.node_parents):
            if parent < 0:
                of[batch.node_starts[node] : batch.node_starts[node + 1]] = node
        return Blocks(of, windowed=False)
    return None


def token_types(
    model_type: str, ids: Int[Tensor, " tokens"], image_token_id: int, prompt: int
) -> Int[Tensor, " tokens"]:
    """The per-token input by which a stock forward knows pictures, or for PaliGemma what follows the prompt.

    Args:
        ids: token ids of one sequence.
        prompt: length of its prompt in tokens.
    """
    if model_type in _PROMPT:
        return (torch.arange(ids.numel()) >= prompt).long()
    return (ids == image_token_id).long()
