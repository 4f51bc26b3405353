"""Which examples make up which optimizer step: a pure function of seed, epoch and position, so that runs resume exactly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class StepSampler(Sampler[list[int]]):
    """Indices of the examples of each optimizer step, this rank's share of them.

    Args:
        examples: size of the data set.
        batch_size: examples of one step over all ranks; the last step of an epoch may have fewer.
        seed: order of the epochs.
        shuffle: draw a new order each epoch; without it the order is that of the data.
        rank, world_size: which ranks share a step.

    Raises:
        ValueError: an empty data set, or fewer examples a step than ranks.
    """

    def __init__(
        self, examples: int, batch_size: int, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world_size: int = 1
    ) -> None:
        if examples < 1:
            raise ValueError("the data set is empty: there is no example to train on")
        if batch_size < world_size:
            raise ValueError(f"data.batch_size is {batch_size}, fewer than the {world_size} ranks that share a step")
        self.examples, self.batch_size, self.seed, self.shuffle = examples, batch_size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._skip: tuple[int, int] = (0, 0)

    @property
    def sampler(self) -> StepSampler:
        """Itself: Lightning announces epochs to the ``sampler`` of a batch sampler, never to the batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self.epoch = epoch

    def resume(self, epoch: int, steps: int) -> None:
        """Go on with ``epoch`` behind its first ``steps`` steps; later epochs are whole."""
        # Loader processes start drawing before Lightning announces the epoch of a resumed run.
        self.epoch, self._skip = epoch, (epoch, steps)

    def __len__(self) -> int:
        return -(-self.examples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.examples)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.examples)
        first = self._skip[1] if self._skip[0] == self.epoch else 0
        for step in range(first, len(self)):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield indices[self.rank :: self.world_size].tolist()
