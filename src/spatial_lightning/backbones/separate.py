"""Every root-to-leaf path through the stock forward of transformers: the reference of the shared engine, and its fallback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spatial_lightning.backbones.inputs import stock_inputs
from spatial_lightning.tree import TreeBatch

if TYPE_CHECKING:
    from spatial_lightning.backbones.backbone import Backbone


def separate_hidden(backbone: Backbone, batch: TreeBatch, rows: Int[Tensor, " n"]) -> Float[Tensor, "n hidden"]:
    """Last hidden states at some positions of the row; a token that several paths share is taken from the first of them."""
    paths = [batch.path(leaf) for leaf in batch.leaves()]
    wanted = torch.zeros(batch.tokens, dtype=torch.bool)
    wanted[rows.cpu()] = True
    ids = batch.ids.cpu()
    covered: set[int] = set()
    places, pieces = [], []
    for start in range(0, len(paths), backbone.paths_per_forward):
        chunk = paths[start : start + backbone.paths_per_forward]
        sequences = [torch.cat([torch.tensor(batch.node(node)) for node in path]) for path in chunk]
        inputs = stock_inputs(
            backbone.processor,
            [ids[sequence] for sequence in sequences],
            batch.images_of([node for path in chunk for node in path]),
            prompts=[len(batch.node(path[0])) for path in chunk],
            side="right",
        )
        inputs = {name: tensor.to(backbone.device) for name, tensor in inputs.items()}
        hidden = backbone.model.model(**inputs, use_cache=False).last_hidden_state
        for index, (path, sequence) in enumerate(zip(chunk, sequences, strict=True)):
            new = torch.tensor([node not in covered for node in path for _ in batch.node(node)])
            covered.update(path)
            own = (wanted[sequence] & new).nonzero().flatten()
            places.append(sequence[own])
            pieces.append(hidden[index, own])
    found = torch.cat(places)
    place = torch.zeros(batch.tokens, dtype=torch.long)
    place[found] = torch.arange(found.numel())
    return torch.cat(pieces)[place[rows.cpu()]]
