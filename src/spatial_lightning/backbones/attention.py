"""Tree attention: every node of a packed row attends to its path, through transformers' attention-interface registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface

from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.tree import TreeBatch

TREE_ATTENTION = "token_tree"
_SHAREABLE_LAYERS = {"full_attention", "sliding_attention"}
_CALL_COST = 40_000
"""What one more attention call costs, in query-key pairs: below this, padding two groups together is cheaper."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A node with its line of first children: one run of queries that attends to its ancestors and, causally, to itself."""

    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How a packed row attends: gather keys and values along each path, attend group by group, put the outputs back.

    Attributes:
        masks: of each group, chains of similar shape that are padded together into one attention call.
        queries: the tokens whose queries the groups take, one group after the other, flattened.
        keys: the same for keys and values.
        inverse: for each token of the row, its place in ``queries``.
    """

    masks: tuple[Bool[Tensor, "chains 1 queries keys"], ...]
    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]
    inverse: Int[Tensor, " tokens"]

    def to(self, device: torch.device | str) -> AttentionPlan:
        """The plan with every tensor on ``device``."""
        masks = tuple(mask.to(device) for mask in self.masks)
        return AttentionPlan(masks, self.queries.to(device), self.keys.to(device), self.inverse.to(device))


def plan_attention(batch: TreeBatch) -> AttentionPlan:
    """Plan the attention of a packed row; the cost is the sum over chains of queries times path, never the row squared."""
    padded = [_pad(chains) for chains in _group(_chains(batch))]
    inverse = torch.empty(batch.tokens, dtype=torch.long)
    offset = 0
    for chains, queries, _, _ in padded:
        places = offset + torch.arange(queries.numel()).view_as(queries)
        for row, chain in enumerate(chains):
            inverse[chain.queries] = places[row, : chain.queries.numel()]
        offset += queries.numel()
    return AttentionPlan(
        tuple(mask for _, _, _, mask in padded),
        torch.cat([queries.flatten() for _, queries, _, _ in padded]),
        torch.cat([keys.flatten() for _, _, keys, _ in padded]),
        inverse,
    )


def within(mask: Bool[Tensor, "chains 1 queries keys"], window: int | None) -> Bool[Tensor, "chains 1 queries keys"]:
    """The mask of a layer that looks back ``window`` tokens along the path, itself included; None for all."""
    length = mask.shape[-1]
    if window is None or window >= length:
        return mask
    reach = mask.sum(-1, keepdim=True) - 1
    return mask & (torch.arange(length, device=mask.device) > reach - window)


def require_shareable(config: Any) -> None:
    """Refuse language towers whose layers carry state from token to token, past any attention function.

    Raises:
        BackboneError: a layer is neither full nor sliding attention.
    """
    other = sorted(set(getattr(config, "layer_types", None) or ()) - _SHAREABLE_LAYERS)
    if other:
        raise BackboneError(
            f"{config.model_type} has layers of type {', '.join(other)}, which read a packed row as one sequence: "
            "set backbone.engine=separate"
        )


def tree_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens dim"],
    key: Float[Tensor, "1 kv_heads tokens dim"],
    value: Float[Tensor, "1 kv_heads tokens dim"],
    attention_mask: Tensor | None,
    *,
    tree_plan: AttentionPlan,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Float[Tensor, "1 tokens heads dim"], None]:
    """Attention of one layer over a packed row of token trees, in the signature of transformers' attention functions.

    Raises:
        BackboneError: the layer caps its scores or has attention sinks.
    """
    if softcap is not None or s_aux is not None:
        raise BackboneError(
            f"{type(module).__name__} {'caps its attention scores' if softcap is not None else 'has attention sinks'}, "
            "which the shared engine cannot do: set backbone.engine=separate"
        )
    repeats = query.shape[1] // key.shape[1]
    shapes = [mask.shape for mask in tree_plan.masks]
    queries = _gather(query, tree_plan.queries).split([chains * width for chains, _, width, _ in shapes])
    keys, values = (
        _gather(tensor, tree_plan.keys).split([chains * length for chains, _, _, length in shapes])
        for tensor in (key, value)
    )
    outputs = []
    for mask, *rows in zip(tree_plan.masks, queries, keys, values, strict=True):
        q, k, v = (row.unflatten(0, (mask.shape[0], -1)).transpose(1, 2) for row in rows)
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        out = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=within(mask, sliding_window), dropout_p=dropout, scale=scaling
        )
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    heads = torch.cat(outputs).flatten(1)
    return nn.functional.embedding(tree_plan.inverse, heads).unflatten(1, outputs[0].shape[1:]).unsqueeze(0), None


def _gather(
    tensor: Float[Tensor, "1 heads tokens dim"], places: Int[Tensor, " places"]
) -> Float[Tensor, "places heads dim"]:
    """Rows of all heads; as an embedding lookup, whose backward adds rows up in parallel where indexing does not."""
    heads, _, width = tensor.shape[1:]
    rows = tensor.squeeze(0).transpose(0, 1).flatten(1)
    return nn.functional.embedding(places, rows).unflatten(1, (heads, width))


AttentionInterface.register(TREE_ATTENTION, tree_attention)


def _chains(batch: TreeBatch) -> list[Chain]:
    first_child: dict[int, int] = {}
    for node, parent in enumerate(batch.node_parents):
        if parent >= 0:
            first_child.setdefault(parent, node)
    chains = []
    for node, parent in enumerate(batch.node_parents):
        if parent >= 0 and first_child[parent] == node:
            continue
        line = [node]
        while line[-1] in first_child:
            line.append(first_child[line[-1]])
        queries = torch.cat([_positions(batch, member) for member in line])
        ancestors = [_positions(batch, member) for member in batch.path(node)[:-1]]
        chains.append(Chain(queries, torch.cat([*ancestors, queries])))
    return chains


def _positions(batch: TreeBatch, node: int) -> Int[Tensor, " tokens"]:
    return torch.arange(batch.node_starts[node], batch.node_starts[node + 1])


def _group(chains: Sequence[Chain]) -> list[list[Chain]]:
    """Put chains of similar shape together as long as the padding costs less than another call."""
    ordered = sorted(chains, key=lambda chain: (-chain.queries.numel(), -chain.keys.numel()))
    groups: list[list[Chain]] = []
    longest_keys = 0
    for chain in ordered:
        if groups:
            width = groups[-1][0].queries.numel()
            keys = max(longest_keys, chain.keys.numel())
            grown = width * (keys * (len(groups[-1]) + 1) - longest_keys * len(groups[-1]))
            if grown <= chain.queries.numel() * chain.keys.numel() + _CALL_COST / 4:
                groups[-1].append(chain)
                longest_keys = keys
                continue
        groups.append([chain])
        longest_keys = chain.keys.numel()
    return groups


def _pad(
    chains: list[Chain],
) -> tuple[
    list[Chain],
    Int[Tensor, "chains queries"],
    Int[Tensor, "chains keys"],
    Bool[Tensor, "chains 1 queries keys"],
]:
    width = max(chain.queries.numel() for chain in chains)
    length = max(chain.keys.numel() for chain in chains)
    queries = torch.zeros(len(chains), width, dtype=torch.long)
    keys = torch.zeros(len(chains), length, dtype=torch.long)
    reach = torch.zeros(len(chains), width, dtype=torch.long)
    for row, chain in enumerate(chains):
        own, path = chain.queries.numel(), chain.keys.numel()
        queries[row, :own] = chain.queries
        keys[row, :path] = chain.keys
        reach[row, :own] = torch.arange(path - own, path)
    mask = torch.arange(length) <= reach.unsqueeze(-1)
    return chains, queries, keys, mask.unsqueeze(1)
