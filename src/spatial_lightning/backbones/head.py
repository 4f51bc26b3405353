"""The output head: from hidden states to log-probabilities of given tokens, without ever holding all logits at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**26
"""Logits of one chunk: 256 MiB in float32."""


Outputs = tuple[Tensor, Tensor | None, Tensor | None]


class Readout(NamedTuple):
    """What the head says at the positions asked for.

    Attributes:
        logps: log-probability of each target, nats.
        entropy: of the distribution each target was drawn from, nats, without gradient; None unless asked for.
        top1: whether the target is the most likely token; None unless asked for.
        states: last hidden states of the tokens named to :meth:`Backbone.read`; None unless asked for.
    """

    logps: Float[Tensor, " n"]
    entropy: Float[Tensor, " n"] | None = None
    top1: Bool[Tensor, " n"] | None = None
    states: Float[Tensor, "m hidden"] | None = None


def read_out(
    head: nn.Module,
    hidden: Float[Tensor, "n hidden"],
    targets: Int[Tensor, " n"],
    *,
    softcap: float | None = None,
    statistics: bool = False,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Readout:
    """Log-probabilities of ``targets`` under ``head``, in chunks that the backward pass computes again.

    The matrix product runs in the head's own type, every reduction in float32. A plain linear layer takes a backward
    pass of its own, which adds the weight's gradient up in float32 over the chunks; any other head (adapted, quantised,
    sharded) is called as a module and left to autograd.

    Args:
        softcap: bound of the logits, ``softcap * tanh(logits / softcap)``; None leaves them.
        statistics: also return entropy and top-1 agreement.
        chunk_elements: how many logits are held at a time.
    """
    rows = max(1, chunk_elements // _vocabulary(head, hidden))
    if type(head) is nn.Linear and head.bias is None and not isinstance(head.weight, DTensor):
        logps, entropy, top1 = _LinearHead.apply(hidden, head.weight, targets, softcap, statistics, rows)
    else:
        logps, entropy, top1 = _module_head(head, hidden, targets, softcap, statistics, rows)
    return Readout(logps, entropy, top1)


def _vocabulary(head: nn.Module, hidden: Tensor) -> int:
    size = getattr(head, "out_features", None)
    if size is None:
        with torch.no_grad():
            size = head(hidden[:1]).shape[-1]
    return int(size)


def _describe(logits: Float[Tensor, "n vocabulary"], targets: Int[Tensor, " n"], statistics: bool) -> Outputs:
    total = logits.logsumexp(-1)
    chosen = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if not statistics:
        return chosen - total, None, None
    with torch.no_grad():
        entropy = total - (logits - total.unsqueeze(-1)).exp().mul_(logits).sum(-1)
        return chosen - total, entropy, logits.argmax(-1) == targets


def _capped(logits: Float[Tensor, "n vocabulary"], softcap: float | None) -> Float[Tensor, "n vocabulary"]:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _joined(pieces: list[Outputs], hidden: Tensor) -> Outputs:
    if not pieces:
        return hidden.sum(-1).float(), None, None
    logps, entropy, top1 = (
        None if column[0] is None else torch.cat([piece for piece in column if piece is not None])
        for column in zip(*pieces, strict=True)
    )
    assert logps is not None
    return logps, entropy, top1


def _module_head(
    head: nn.Module, hidden: Tensor, targets: Tensor, softcap: float | None, statistics: bool, rows: int
) -> Outputs:
    def chunk(states: Tensor, wanted: Tensor) -> Outputs:
        return _describe(_capped(head(states), softcap), wanted, statistics)

    pairs = list(zip(hidden.split(rows), targets.split(rows), strict=True)) if hidden.shape[0] else []
    if len(pairs) == 1:
        return chunk(*pairs[0])
    return _joined([checkpoint(chunk, *pair, use_reentrant=False) for pair in pairs], hidden)


class _LinearHead(torch.autograd.Function):
    """Log-probabilities under a bias-free linear head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        softcap: float | None,
        statistics: bool,
        rows: int,
    ) -> Outputs:
        ctx.save_for_backward(hidden, weight, targets)
        ctx.softcap, ctx.rows = softcap, rows
        # Under autocast the product has a type of its own, which the backward pass, outside of autocast, must repeat.
        ctx.type = nn.functional.linear(hidden[:1], weight).dtype
        pieces = []
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = _capped(nn.functional.linear(hidden[part], weight), softcap)
            pieces.append(_describe(logits, targets[part], statistics))
        outputs = _joined(pieces, hidden)
        ctx.mark_non_differentiable(*(output for output in outputs[1:] if output is not None))
        return outputs

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        hidden, weight, targets = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        matrix = weight.to(ctx.type)
        grad_hidden = torch.zeros_like(hidden) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=upstream[0].dtype) if wants_weight else None
        for start in range(0, hidden.shape[0], ctx.rows):
            part = slice(start, start + ctx.rows)
            states = hidden[part].to(ctx.type)
            logits = _capped(nn.functional.linear(states, matrix), ctx.softcap)
            # d logp / d logit is 1 for the target minus the probability of each token.
            steps = logits.softmax(-1).neg_()
            steps.scatter_add_(-1, targets[part].unsqueeze(-1), torch.ones_like(steps[:, :1]))
            steps.mul_(upstream[0][part].unsqueeze(-1))
            if ctx.softcap is not None:
                steps.mul_(1 - (logits / ctx.softcap).square_())
            steps = steps.to(ctx.type)
            if grad_hidden is not None:
                grad_hidden[part] = steps @ matrix
            if grad_weight is not None:
                grad_weight += steps.T @ states
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None
