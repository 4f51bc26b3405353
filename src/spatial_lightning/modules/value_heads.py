"""Value functions on the hidden states of a backbone: V of a state, and twin Q of actions with slowly following targets."""

from __future__ import annotations

import copy
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spatial_lightning.backbones.head import read_out

HEADS = 2
"""Q heads; the smaller of the two counts, which holds overestimation down (clipped double Q, arXiv:1802.09477)."""


@final
class _Head(nn.Module):
    """One hidden layer; the last layer starts at zero, so that all values do and training starts as imitation."""

    def __init__(self, hidden: int, width: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, width)
        self.last = nn.Linear(width, outputs, bias=False)
        nn.init.zeros_(self.last.weight)

    def features(self, states: Tensor) -> Tensor:
        """What the last layer sees."""
        return self.inner(states).relu()

    def forward(self, states: Tensor) -> Tensor:
        """All outputs."""
        return self.last(self.features(states))


@final
class ValueHeads(nn.Module):
    """V, and where there are actions two Q heads with their targets, all in the heads' own precision.

    Args:
        hidden: size of a hidden state.
        width: of each head's hidden layer; None takes ``hidden``.
        actions: outputs of Q: 0 for no Q, 1 for the Q of the state behind an action (IQL on steps), the vocabulary's size
            for the Q of every next token (ILQL).
    """

    def __init__(self, hidden: int, *, width: int | None = None, actions: int = 0) -> None:
        super().__init__()
        width = width or hidden
        self.value = _Head(hidden, width, 1)
        self.q = nn.ModuleList(_Head(hidden, width, actions) for _ in range(HEADS if actions else 0))
        self.targets = copy.deepcopy(self.q).requires_grad_(False)

    def values(self, states: Float[Tensor, "n hidden"]) -> Float[Tensor, " n"]:
        """V of each state."""
        with _exact(states):
            return self.value(self._own(states)).squeeze(-1)

    def q_values(
        self, states: Float[Tensor, "n hidden"], actions: Int[Tensor, " n"] | None = None, *, targets: bool = False
    ) -> Float[Tensor, "heads n"]:
        """Q of each action under both heads, or under both target heads.

        Args:
            states: behind each action, or before it where ``actions`` are given.
            actions: token ids.
        """
        columns = []
        with _exact(states):
            for head in self._heads(targets):
                if actions is None:
                    columns.append(head(self._own(states)).squeeze(-1))
                else:  # only the columns of the actions taken: all of a vocabulary would not fit
                    columns.append((head.features(self._own(states)) * head.last.weight[actions]).sum(-1))
        return torch.stack(columns)

    def conservatism(self, states: Float[Tensor, "n hidden"], actions: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """logsumexp over all tokens of Q minus Q of the one taken (CQL, arXiv:2006.04779), summed over the heads.

        That is minus the log-probability of a softmax over Q, so the output head's chunks serve here as well.
        """
        with _exact(states):
            parts = [
                read_out(head.last, head.features(self._own(states)), actions).logps for head in self._heads(False)
            ]
        return -torch.stack(parts).sum(0)

    def guide(self, states: Float[Tensor, "*batch hidden"], strength: float) -> Float[Tensor, "*batch vocabulary"]:
        """``strength`` times advantage of every next token: min Q over the target heads, minus V."""
        with _exact(states), torch.no_grad():
            own = self._own(states)
            q = torch.stack([head(own) for head in self._heads(True)]).amin(0)
            return strength * (q - self.value(own))

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Move the target heads a share ``rate`` of the way to the heads that learn (Polyak averaging)."""
        for target, learned in zip(self.targets.parameters(), self.q.parameters(), strict=True):
            target.lerp_(learned, rate)

    def _own(self, states: Tensor) -> Tensor:
        return states.to(self.value.inner.weight.dtype)

    def _heads(self, targets: bool) -> list[_Head]:
        return [head for head in (self.targets if targets else self.q) if isinstance(head, _Head)]


def _exact(states: Tensor) -> torch.autocast:
    """Values are regressed in the heads' own precision, whatever the trainer casts to."""
    return torch.autocast(states.device.type, enabled=False)
