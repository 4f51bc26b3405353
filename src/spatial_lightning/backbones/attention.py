"""Tree attention: every node of a packed row attends to its path, through transformers' attention-interface registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface

from spatial_lightning.backbones.blocks import Blocks
from spatial_lightning.backbones.kernels import Kernel, Sequences
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
        reach: of each group, place of every query on its path.
        exempt: of each group, what no window hides; empty where there is nothing.
        queries: the tokens whose queries the groups take, one group after the other, flattened.
        keys: the same for keys and values.
        inverse: for each token of the row, its place in ``queries``.
    """

    masks: tuple[Bool[Tensor, "chains 1 queries keys"], ...]
    reach: tuple[Int[Tensor, "chains 1 queries 1"], ...]
    exempt: tuple[Bool[Tensor, "chains 1 queries keys"], ...]
    queries: Int[Tensor, " queries"]
    keys: Int[Tensor, " keys"]
    inverse: Int[Tensor, " tokens"]

    def to(self, device: torch.device | str) -> AttentionPlan:
        """The plan with every tensor on ``device``."""
        return AttentionPlan(
            tuple(mask.to(device) for mask in self.masks),
            tuple(reach.to(device) for reach in self.reach),
            tuple(mask.to(device) for mask in self.exempt),
            self.queries.to(device),
            self.keys.to(device),
            self.inverse.to(device),
        )

    def layer_masks(self, window: int | None) -> list[Bool[Tensor, "chains 1 queries keys"]]:
        """The masks of a layer that looks back ``window`` tokens along the path, itself included; None for all."""
        masks = [within(mask, reach, window) for mask, reach in zip(self.masks, self.reach, strict=True)]
        return [mask | kept for mask, kept in zip(masks, self.exempt, strict=True)] if self.exempt else masks


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """The same without padding and masks: chains laid end to end, for a kernel that takes sequences of any length.

    Attributes:
        sequences: where chains start in ``queries`` and in ``keys``.
        queries, keys, inverse: as in :class:`AttentionPlan`; each token is a query once.
        kernel: see :data:`~.kernels.Kernel`.
    """

    sequences: Sequences
    queries: Int[Tensor, " tokens"]
    keys: Int[Tensor, " keys"]
    inverse: Int[Tensor, " tokens"]
    kernel: Kernel

    def to(self, device: torch.device | str) -> SequencePlan:
        """The plan with every tensor on ``device``."""
        return SequencePlan(
            self.sequences.to(device),
            self.queries.to(device),
            self.keys.to(device),
            self.inverse.to(device),
            self.kernel,
        )


def plan_sequences(batch: TreeBatch, kernel: Kernel) -> SequencePlan:
    """Plan the attention of a packed row for a kernel of sequences."""
    chains = _chains(batch)
    queries = torch.cat([chain.queries for chain in chains])
    inverse = torch.empty_like(queries)
    inverse[queries] = torch.arange(queries.numel())
    sequences = Sequences.of([chain.queries.numel() for chain in chains], [chain.keys.numel() for chain in chains])
    return SequencePlan(sequences, queries, torch.cat([chain.keys for chain in chains]), inverse, kernel)


def plan_attention(batch: TreeBatch, blocks: Blocks | None = None) -> AttentionPlan:
    """Plan the attention of a packed row; the cost is the sum over chains of queries times path, never the row squared.

    Args:
        blocks: tokens that also see later ones of their own block.
    """
    groups = _group(_chains(batch))
    padded = [_pad(chains) for chains in groups]
    same = []
    if blocks is not None:
        same = [_same_block(*rows[:2], chains, blocks.of) for chains, rows in zip(groups, padded, strict=True)]
    inverse = torch.empty(batch.tokens, dtype=torch.long)
    masks = []
    offset = 0
    for index, (chains, (queries, keys, reach)) in enumerate(zip(groups, padded, strict=True)):
        mask = (torch.arange(keys.shape[1]) <= reach.unsqueeze(-1)).unsqueeze(1)
        masks.append(mask | same[index] if same else mask)
        places = offset + torch.arange(queries.numel()).view_as(queries)
        for row, chain in enumerate(chains):
            inverse[chain.queries] = places[row, : chain.queries.numel()]
        offset += queries.numel()
    return AttentionPlan(
        tuple(masks),
        tuple(reach[:, None, :, None] for _, _, reach in padded),
        tuple(same) if blocks and not blocks.windowed else (),
        torch.cat([queries.flatten() for queries, _, _ in padded]),
        torch.cat([keys.flatten() for _, keys, _ in padded]),
        inverse,
    )


def within(
    mask: Bool[Tensor, "chains 1 queries keys"], reach: Int[Tensor, "chains 1 queries 1"], window: int | None
) -> Bool[Tensor, "chains 1 queries keys"]:
    """The mask without the keys that lie ``window`` tokens or more before the query on its path; None keeps all."""
    length = mask.shape[-1]
    if window is None or window >= length:
        return mask
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
    tree_plan: AttentionPlan | SequencePlan,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Float[Tensor, "1 tokens heads dim"], None]:
    """Attention of one layer over a packed row of token trees, in the signature of transformers' attention functions.

    Args:
        softcap: bound of the scores, ``softcap * tanh(scores / softcap)``; None leaves them.

    Raises:
        BackboneError: the layer has attention sinks.
    """
    if s_aux is not None:
        raise BackboneError(
            f"{type(module).__name__} has attention sinks, which the shared engine cannot do: set backbone.engine=separate"
        )
    if isinstance(tree_plan, SequencePlan):
        return _sequence_attention(query, key, value, tree_plan, scaling, sliding_window), None
    repeats = query.shape[1] // key.shape[1]
    shapes = [mask.shape for mask in tree_plan.masks]
    queries = _gather(query, tree_plan.queries).split([chains * width for chains, _, width, _ in shapes])
    keys, values = (
        _gather(tensor, tree_plan.keys).split([chains * length for chains, _, _, length in shapes])
        for tensor in (key, value)
    )
    outputs = []
    for mask, *rows in zip(tree_plan.layer_masks(sliding_window), queries, keys, values, strict=True):
        q, k, v = (row.unflatten(0, (mask.shape[0], -1)).transpose(1, 2) for row in rows)
        if repeats > 1:
            k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        if softcap is None:
            out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
        else:
            out = _capped_attention(q, k, v, mask, softcap, dropout, scaling)
        outputs.append(out.transpose(1, 2).flatten(0, 1))
    return take_rows(torch.cat(outputs), tree_plan.inverse).unsqueeze(0), None


def _sequence_attention(
    query: Float[Tensor, "1 heads tokens dim"],
    key: Float[Tensor, "1 kv_heads tokens dim"],
    value: Float[Tensor, "1 kv_heads tokens dim"],
    plan: SequencePlan,
    scaling: float | None,
    window: int | None,
) -> Float[Tensor, "1 tokens heads dim"]:
    q, k, v = _gather(query, plan.queries), _gather(key, plan.keys), _gather(value, plan.keys)
    out = plan.kernel(q, k, v, plan.sequences, scaling=scaling, causal=True, window=window)
    return take_rows(out, plan.inverse).unsqueeze(0)


def _capped_attention(
    query: Float[Tensor, "chains heads queries dim"],
    key: Float[Tensor, "chains heads keys dim"],
    value: Float[Tensor, "chains heads keys dim"],
    mask: Bool[Tensor, "chains 1 queries keys"],
    softcap: float,
    dropout: float,
    scaling: float | None,
) -> Float[Tensor, "chains heads queries dim"]:
    """Attention whose scores are bounded before the softmax, which no fused kernel of torch does."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~mask, -torch.inf)
    return nn.functional.dropout(scores.softmax(-1, dtype=torch.float32).to(value.dtype), dropout) @ value


def _gather(
    tensor: Float[Tensor, "1 heads tokens dim"], places: Int[Tensor, " places"]
) -> Float[Tensor, "places heads dim"]:
    return take_rows(tensor.squeeze(0).transpose(0, 1), places)


def take_rows(
    rows: Float[Tensor, "tokens heads dim"], places: Int[Tensor, " places"]
) -> Float[Tensor, "places heads dim"]:
    """Rows in another order; as an embedding lookup, whose backward adds rows up in parallel where indexing does not."""
    return nn.functional.embedding(places, rows.flatten(1)).unflatten(1, rows.shape[1:])


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
) -> tuple[Int[Tensor, "chains queries"], Int[Tensor, "chains keys"], Int[Tensor, "chains queries"]]:
    """Queries and keys of some chains, filled up with the row's first token, and each query's place on its path."""
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
    return queries, keys, reach


def _same_block(
    queries: Int[Tensor, "chains queries"],
    keys: Int[Tensor, "chains keys"],
    chains: list[Chain],
    blocks: Int[Tensor, " tokens"],
) -> Bool[Tensor, "chains 1 queries keys"]:
    own, seen = blocks[queries].unsqueeze(-1), blocks[keys].unsqueeze(-2)
    lengths = torch.tensor([chain.keys.numel() for chain in chains]).view(-1, 1, 1)
    same = (own == seen) & (own >= 0) & (torch.arange(keys.shape[1]) < lengths)
    return same.unsqueeze(1)
