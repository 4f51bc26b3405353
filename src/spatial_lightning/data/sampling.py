"""Which examples make up which optimizer step: a pure function of seed, epoch and position, so that runs resume exactly."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


class StepSampler(Sampler[list[int]]):
    """Indices of the examples of each optimizer step, this rank's share of them.

    Args:
        examples: size of the data set.
        batch_size: examples of one step over all ranks; the last step of an epoch may have fewer.
        seed: order of the epochs.
        shuffle: draw a new order each epoch; without it the order is that of the data.
        rank, world_size: which ranks share a step.
        order: examples (their indices) of an epoch in order, in place of a permutation of all; ``examples`` is its length.
        length: tokens of an example (its index) in an epoch, by which ranks get equal shares of a step; None deals examples
            out in turn.

    Raises:
        ValueError: an empty data set, or fewer examples a step than ranks.
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        order: Callable[[int], np.ndarray] | None = None,
        length: Callable[[int, int], float] | None = None,
    ) -> None:
        if examples < 1:
            raise ValueError("the data set is empty: there is no example to train on")
        if batch_size < world_size:
            raise ValueError(f"data.batch_size is {batch_size}, fewer than the {world_size} ranks that share a step")
        self.examples, self.batch_size, self.seed, self.shuffle = examples, batch_size, seed, shuffle
        self.rank, self.world_size, self.order, self.length = rank, world_size, order, length
        # Shared with loader processes that live on from epoch to epoch.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._skip: tuple[int, int] = (0, 0)

    @property
    def sampler(self) -> StepSampler:
        """Itself: Lightning announces epochs to the ``sampler`` of a batch sampler, never to the batch sampler."""
        return self

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration goes through, in every process."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self._epoch.fill_(epoch)

    def resume(self, epoch: int, steps: int) -> None:
        """Go on with ``epoch`` behind its first ``steps`` steps; later epochs are whole."""
        # Loader processes start drawing before Lightning announces the epoch of a resumed run.
        self.set_epoch(epoch)
        self._skip = (epoch, steps)

    def __len__(self) -> int:
        return -(-self.examples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.examples)
        if self.order is not None:
            order = self.order(self.epoch)
        elif self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.examples)
        first = self._skip[1] if self._skip[0] == self.epoch else 0
        for step in range(first, len(self)):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size].tolist()
            if self.length is None or self.world_size == 1:
                yield indices[self.rank :: self.world_size]
            else:
                lengths = [self.length(index, self.epoch) for index in indices]
                yield [indices[place] for place in balanced(lengths, self.world_size)[self.rank]]


def balanced(lengths: Sequence[float], ranks: int) -> list[list[int]]:
    """Places of a sequence dealt out so that every rank's sum is about the same: the longest first, to whom has least.

    No rank's sum is more than 4/3 of what the best of all shares would give (Graham 1969, doi:10.1137/0117039). Every rank
    computes the same shares.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    loads = [(0.0, rank) for rank in range(ranks)]
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        load, rank = heapq.heappop(loads)
        shares[rank].append(place)
        heapq.heappush(loads, (load + lengths[place], rank))
    return [sorted(share) for share in shares]
