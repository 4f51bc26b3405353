"""Steps from a corpus that is read in order: shuffled by blocks, shared by ranks and loader processes, resumed by seeking."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from spatial_lightning.data.corpora.rows import Mark, RowAt
from spatial_lightning.data.corpora.stream import Problem, RecordStream
from spatial_lightning.data.loading import OVERLONG, REASONS
from spatial_lightning.records import RecordError
from spatial_lightning.tree import TreeBatch

if TYPE_CHECKING:
    from spatial_lightning.data.trees import TreeDataModule

log = logging.getLogger(__name__)

_FIELDS = ("block", "taken", *Mark._fields)


class Streamed(NamedTuple):
    """One step of this rank.

    Attributes:
        rows: packed rows.
        problems: rows of the corpus that could not be used.
        after: where to go on behind this step: block, its steps that are done, and the mark at which it begins.
        total: rows of the corpus, estimated from how much of the files holds those read so far.
    """

    rows: list[TreeBatch]
    problems: list[Problem]
    after: tuple[int, ...]
    total: float


class StreamSteps(IterableDataset[Streamed]):
    """Steps of ``batch_size`` neighbouring rows, each block of rows shuffled by (seed, epoch, block).

    A row is one example. Every rank and every loader process reads all rows, which costs the parsing, and makes records,
    pictures and tokens of its own only: rows of a step go to the ranks in turn, steps to the processes in turn. So the
    steps are the same for any number of processes.
    """

    def __init__(self, module: TreeDataModule[Any], stream: RecordStream[Any], rank: int, world_size: int) -> None:
        if module.batch_size < world_size:
            raise ValueError(
                f"data.batch_size is {module.batch_size}, fewer than the {world_size} ranks that share a step"
            )
        self.module, self.stream, self.rank, self.world_size = module, stream, rank, world_size
        self.batch_size = module.batch_size
        # Whole steps make a block, so that no step lies across two of them.
        self.block_rows = max(1, stream.shuffle_rows // self.batch_size) * self.batch_size
        # Shared with loader processes that live on from epoch to epoch.
        self.start = torch.zeros(1 + len(_FIELDS), dtype=torch.int64).share_memory_()
        self.begin(0, None)

    def begin(self, epoch: int, after: tuple[int, ...] | None) -> None:
        """Choose where the next iteration starts."""
        self.start.copy_(torch.tensor([epoch, *(after or (0, 0, *Mark()))]))

    def __iter__(self) -> Iterator[Streamed]:
        worker = get_worker_info()
        index, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        epoch, block, done, *mark = self.start.tolist()
        rows = self.stream.rows.scan(Mark(*mark))
        turn = 0
        while (first := next(rows, None)) is not None:
            own = _Own(self, index, workers, turn, done)
            kept, count = own.keep(chain([first], islice(rows, self.block_rows - 1)), self._places(epoch, block))
            last = first if not kept else max(kept.values(), key=lambda found: found.number)
            if count < self.block_rows:  # the last block: its order depends on how many rows it turned out to have
                kept, count = own.keep(
                    islice(self.stream.rows.scan(first.mark), count), self._places(epoch, block, count)
                )
            steps = -(-count // self.batch_size)
            share = self.stream.rows.done(last.mark) / max(1, self.stream.rows.total_bytes)
            total = max(last.number + 1, last.number / share if share else 0)
            for step in range(done, steps):
                if turn % workers == index:
                    yield self._step(kept, step, count, (block, step + 1, *first.mark), epoch, total)
                turn += 1
            block, done = block + 1, 0

    def _places(self, epoch: int, block: int, rows: int | None = None) -> np.ndarray:
        """For each row of a block its place in the shuffled order."""
        order = np.random.default_rng((self.module.seed, epoch, block)).permutation(rows or self.block_rows)
        return np.argsort(order)

    def _step(
        self, kept: dict[int, RowAt], step: int, count: int, after: tuple[int, ...], epoch: int, total: float
    ) -> Streamed:
        first, end = step * self.batch_size, min((step + 1) * self.batch_size, count)
        trees, problems = [], []
        for place in range(first + self.rank, end, self.world_size):
            records, problem = self.stream.records(kept[place])
            if problem is not None:
                problems.append(problem)
            for record in records:
                tree, lost = self.module.try_tree(record, epoch=epoch)
                trees.append(tree)
                if lost is not None:
                    problems.append((kept[place].place, lost.reason, lost.kind))
        return Streamed(self.module.rows(trees), problems, after, total)


class _Own(NamedTuple):
    """Which rows of a block a loader process of a rank needs."""

    steps: StreamSteps
    index: int
    workers: int
    turn: int
    done: int

    def keep(self, rows: Iterator[RowAt], places: np.ndarray) -> tuple[dict[int, RowAt], int]:
        """Own rows by their place in the shuffled order, and how many rows there are."""
        size, ranks = self.steps.batch_size, self.steps.world_size
        kept, count = {}, 0
        for found, place in zip(rows, places.tolist(), strict=False):
            count += 1
            step = place // size
            mine = step >= self.done and (self.turn + step - self.done) % self.workers == self.index
            if mine and place % size % ranks == self.steps.rank:
                kept[place] = found
        return kept, count


class StreamedBad:
    """Rows of a stream that could not be used, each counted once by the rank that met it.

    Attributes:
        kinds: kind of the problem by place.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}

    def add(self, step: Streamed, max_fraction: float, ranks: int) -> None:
        """Count the problems of a step.

        Raises:
            RecordError: more than ``max_fraction`` of the corpus, as large as it is estimated to be, cannot be used.
        """
        for place, reason, kind in step.problems:
            if place not in self.kinds:
                log.warning("left out %s: %s", place, reason)
            self.kinds[place] = kind
        bad = ranks * sum(kind != REASONS[OVERLONG] for kind in self.kinds.values())
        if step.problems and bad > max_fraction * step.total:
            place, reason, _ = step.problems[-1]
            raise RecordError(
                f"{place}: {reason}\n{bad} of about {step.total:,.0f} rows cannot be used so far: fix them, or raise "
                f"data.max_bad_fraction (now {max_fraction:g})."
            )


class StreamLoader(DataLoader[list[TreeBatch]]):
    """Loads the steps of a stream; its state lets a run go on in the middle of a file."""

    dataset: StreamSteps

    def __init__(self, module: TreeDataModule[Any], steps: StreamSteps, bad: StreamedBad, **kwargs: Any) -> None:
        super().__init__(steps, batch_size=None, collate_fn=_as_is, **kwargs)  # pyright: ignore[reportArgumentType]
        self.module, self.bad = module, bad
        self.epoch = 0
        self._resumed: dict[str, int] | None = None
        self._first, self._before, self._read, self._last = 0, 0, 0, -1
        self._after: dict[int, tuple[int, ...]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[TreeBatch]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        trainer = self.module.trainer
        if trainer is not None:
            self.epoch = trainer.current_epoch
        resumed = self._resumed
        if resumed is not None and self.epoch <= resumed["epoch"]:
            self.epoch, self._first = resumed["epoch"], resumed["steps"]
            self.dataset.begin(self.epoch, tuple(resumed[name] for name in _FIELDS))
            self._after = {self._first: tuple(resumed[name] for name in _FIELDS)}
        else:
            self._first, self._after = 0, {}
            self.dataset.begin(self.epoch, None)
        self._before, self._read, self._last = self._processed() - self._first, self._first, -1
        return self._steps(super().__iter__())

    def _steps(self, loaded: Any) -> Iterator[list[TreeBatch]]:
        for step, item in enumerate(loaded, start=self._first + 1):
            self.bad.add(item, self.module.max_bad_fraction, self.dataset.world_size)
            self._after[step] = item.after
            self._read = step
            yield item.rows
        self._last = self._read

    def _processed(self) -> int:
        trainer = self.module.trainer
        if trainer is None:
            return 0
        # Not `completed`, which Lightning raises behind the hook in which checkpoints are written.
        return trainer.fit_loop.epoch_loop.batch_progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]

    def position(self) -> dict[str, int]:
        """Where in the files training stands, however far the loader has read ahead."""
        trainer = self.module.trainer
        assert trainer is not None
        steps, epoch = self._processed() - self._before, trainer.current_epoch
        if epoch == self.epoch and steps == self._last:
            # Lightning goes on with the next epoch from behind the last step; it, too, knows by reading one step ahead.
            epoch, steps = epoch + 1, 0
        if epoch != self.epoch or not steps:
            return {"epoch": epoch, "steps": 0, **dict(zip(_FIELDS, (0, 0, *Mark()), strict=True))}
        self._after = {step: after for step, after in self._after.items() if step >= steps}
        return {"epoch": epoch, "steps": steps, **dict(zip(_FIELDS, self._after[steps], strict=True))}

    def state_dict(self) -> dict[str, int]:
        """See :meth:`position`."""
        return self.position()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue behind the rows that a saved run has seen."""
        self._resumed = state


def _as_is(item: Any) -> Any:
    return item
