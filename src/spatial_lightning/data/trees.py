"""The abstract DataModule: reads records, encodes them in the loader, packs each optimizer step into rows."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import lightning as L
import torch
from torch.utils.data import DataLoader

from spatial_lightning.data.corpora.store import RecordStore, open_record_file
from spatial_lightning.data.corpora.stream import RecordStream
from spatial_lightning.data.encode import Encoder, SegmentContext, TextAndImages
from spatial_lightning.data.lengths import Lengths
from spatial_lightning.data.loading import OVERLONG, REASONS, UNUSABLE, Examples, Lost, StepLoader
from spatial_lightning.data.sampling import StepSampler
from spatial_lightning.data.streaming import StreamedBad, StreamLoader, StreamSteps
from spatial_lightning.records import ImageQuestions, PreferencePair, Question, RecordError, Trace
from spatial_lightning.tree import TokenTree, TreeBatch, TreeError, pack, split_by_budget

RecordT = TypeVar("RecordT", ImageQuestions, PreferencePair, Trace)

_SAMPLES = 64

log = logging.getLogger(__name__)


class TreeDataModule(L.LightningDataModule, ABC, Generic[RecordT]):
    """Packed token trees from record files.

    Args:
        processor: the backbone's processor.
        train, val: record files (JSON lines beside their images), or stores of published corpora; training also takes a
            stream, which is read in order without an index.
        batch_size: examples (trees) of one optimizer step over all ranks.
        token_budget: longest row in tokens, image tokens counted; a step becomes as many rows as it needs.
        on_overlong: what happens to an example longer than the budget: ``drop`` (counted) or ``error``.
        max_bad_fraction: share of unusable rows, in [0, 1], above which reading stops.
        val_examples: how many held-out examples validation goes through; None takes all.
        num_workers: loader processes.
        system: system turn; None keeps what the chat template writes.
        seed: order of the examples.
    """

    record_type: type[RecordT]

    def __init__(
        self,
        processor: TextAndImages,
        *,
        train: Path | RecordStore[RecordT] | RecordStream[RecordT],
        val: Path | RecordStore[RecordT],
        batch_size: int = 8,
        token_budget: int = 8192,
        on_overlong: Literal["drop", "error"] = "drop",
        max_bad_fraction: float = 0.0,
        val_examples: int | None = None,
        num_workers: int = 0,
        system: str | None = None,
        segment_context: SegmentContext = "single_pass",
        shuffle_segments: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if on_overlong not in ("drop", "error"):
            raise ValueError(f"data.on_overlong is {on_overlong!r}; allowed: drop, error")
        self.encoder = Encoder(processor, system, segment_context, shuffle_segments)
        self.files = {"train": train, "val": val}
        self.batch_size, self.token_budget, self.on_overlong = batch_size, token_budget, on_overlong
        self.max_bad_fraction, self.val_examples = max_bad_fraction, val_examples
        self.num_workers, self.seed = num_workers, seed
        self.records: dict[str, RecordStore[RecordT]] = {}
        self.stream = train if isinstance(train, RecordStream) else None
        self.pack_keys = False
        self.bad_rows: list[str] = []
        self._unread: Counter[str] = Counter()
        self._streamed = StreamedBad()
        self._loaders: list[DataLoader[Any]] = []
        self._lengths: Lengths | None = None
        self._lost = torch.zeros(0, dtype=torch.uint8)

    # ------------------------------------------------------------------ for the leaves

    @abstractmethod
    def encode(self, record: RecordT, *, epoch: int | None) -> TokenTree:
        """One record as a token tree; ``epoch`` is None for held-out examples, which never vary."""

    @abstractmethod
    def texts(self, record: RecordT, *, epoch: int | None) -> list[str]:
        """What each branch of :meth:`encode` adds to the images, as text; for estimates of its length."""

    @abstractmethod
    def questions(self, split: str) -> list[tuple[tuple[Path, ...], Question]]:
        """Questions of a split with their images, for generation."""

    # ------------------------------------------------------------------ reading

    def setup(self, stage: str | None = None) -> None:
        """Read the record files and check that every image is there and is a picture.

        Raises:
            FileNotFoundError: a record file does not exist.
            RecordError: too many unusable rows, or none that is usable.
        """
        for split, source in self.files.items():
            if split in self.records or isinstance(source, RecordStream):
                continue
            if not isinstance(source, RecordStore):
                source = open_record_file(Path(source), self.record_type, self.max_bad_fraction)
            if not any(store.bad is source.bad for store in self.records.values()):
                for reason, count in source.bad.reasons.items():
                    log.warning("%s: left out %d rows: %s", source.reader.path, count, reason)
                    self._unread[reason] += count
                self.bad_rows += source.bad.places
            self.records[split] = source
        examples = sum(map(len, self.records.values()))
        if len(self._lost) != examples:
            # Shared with loader processes, one place a record: each example is counted once, whoever meets it how often.
            self._lost = torch.zeros(examples, dtype=torch.uint8).share_memory_()

    def teardown(self, stage: str) -> None:
        """End the loader processes, which otherwise live on between epochs."""
        for loader in self._loaders:
            loader._iterator = None
        self._loaders.clear()

    @property
    def training_examples(self) -> int:
        """Training examples; 0 for a stream, whose number nobody knows."""
        return len(self.records["train"]) if "train" in self.records else 0

    @property
    def dropped(self) -> Counter[str]:
        """Examples left out so far, by reason, each counted once; of a stream those that this rank has met."""
        met = Counter(REASONS[code] for code in self._lost[self._lost > 0].tolist())
        return self._unread + met + Counter(self._streamed.kinds.values())

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the training examples.

        Raises:
            ValueError: training reads a stream, whose number of rows is not known.
        """
        if self.stream is not None:
            raise ValueError("a streamed corpus has no known number of steps: set trainer.max_steps, and max_epochs=-1")
        return len(StepSampler(self.training_examples, self.batch_size))

    def fingerprint(self) -> str:
        """Content hash of the corpus, of how it is encoded and of which examples fit; pictures count by their size."""
        digest = hashlib.blake2b(digest_size=16)
        for source in (self.stream, *self.records.values()):
            digest.update(b"" if source is None else source.fingerprint().encode())
        encoder = self.encoder
        settings = (
            encoder.system,
            encoder.segment_context,
            encoder.shuffle_segments,
            self.val_examples,
            self.token_budget,
        )
        digest.update(repr(settings).encode())
        return digest.hexdigest()

    # ------------------------------------------------------------------ loading

    def train_dataloader(self) -> DataLoader[list[TreeBatch]]:
        """Steps of packed rows in shuffled order, resumable in the middle of an epoch."""
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        if self.stream is not None:
            steps = StreamSteps(self, self.stream, rank, world)
            loader = StreamLoader(self, steps, self._streamed, **self._processes("train"))
            self._loaders.append(loader)
            return loader
        return self._loader("train", self.share(rank, world))

    def share(self, rank: int, ranks: int) -> StepSampler:
        """What a rank has of each training step: about as many tokens as every other."""
        examples = self.training_examples
        return StepSampler(examples, self.batch_size, seed=self.seed, rank=rank, world_size=ranks, length=self.length)

    def length(self, index: int, epoch: int) -> float:
        """Estimated tokens of a training example, image tokens counted, without reading its images."""
        records = self.records["train"]
        if self._lengths is None:
            samples = [text for record in islice(records, _SAMPLES) for text in self.texts(record, epoch=epoch)]
            self._lengths = Lengths(self.encoder.processor, self.encoder.system, samples)
        record = records[index]
        return self._lengths(records.sizes(index), self.texts(record, epoch=epoch))

    def val_dataloader(self) -> DataLoader[list[TreeBatch]]:
        """Held-out examples in their own order."""
        return self._loader("val", StepSampler(len(self.held_out()), self.batch_size, shuffle=False))

    def _loader(self, split: str, sampler: StepSampler) -> DataLoader[list[TreeBatch]]:
        loader = StepLoader(
            self,
            Examples(self, split, sampler),
            batch_sampler=sampler,
            collate_fn=self.rows,
            **self._processes(split),
        )
        self._loaders.append(loader)
        return loader

    def _processes(self, split: str) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": split == "train" and self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # Loaders draw a number each time they start, more often in a run that is resumed: not from training's numbers.
            "generator": torch.Generator(),
        }

    def held_out(self) -> Sequence[RecordT]:
        """The examples that validation goes through."""
        return self.records["val"][: self.val_examples]

    def transfer_batch_to_device(self, batch: list[TreeBatch], device: Any, dataloader_idx: int) -> list[TreeBatch]:
        """Rows on the training device."""
        return [row.to(device, non_blocking=True) for row in batch]

    def rows(self, trees: Sequence[TokenTree | None]) -> list[TreeBatch]:
        """Pack the trees of one step into rows under the token budget; no row where every example was left out."""
        present = [tree for tree in trees if tree is not None]
        return [pack(row, keys=self.pack_keys) for row in split_by_budget(present, self.token_budget)]

    def reference_rows(self, limit: int | None = None) -> Iterator[TreeBatch]:
        """Every example that training or validation can meet, or the first ``limit``, packed with content hashes."""
        records = chain(self.stream or self.records["train"], self.held_out())
        trees = (self.tree(record, epoch=0) for record in records)
        usable = islice((tree for tree in trees if tree is not None), limit)
        for row in split_by_budget(usable, self.token_budget):
            yield pack(row, keys=True)

    def tree(self, record: RecordT, *, epoch: int | None, place: int | None = None) -> TokenTree | None:
        """One record encoded; None, and counted, where it cannot be or is longer than the token budget.

        Args:
            place: of the record among the training and then the held-out ones; None looks for its id.

        Raises:
            RecordError: the record is bad and ``max_bad_fraction`` is used up.
            TreeError: the record is too long and ``on_overlong`` is ``error``, or no training example is left.
        """
        tree, lost = self.try_tree(record, epoch=epoch)
        if lost is None:
            return tree
        place = self._find(record) if place is None else place
        if place is not None and not self._lost[place]:
            self._lost[place] = lost.code
            log.warning("left out %s", lost.reason)
        if lost.code == UNUSABLE and int((self._lost == UNUSABLE).sum()) > self.max_bad_fraction * len(self._lost):
            raise RecordError(
                f"{lost.reason}\nFix it, or raise data.max_bad_fraction (now {self.max_bad_fraction:g})."
            ) from lost.error
        if lost.code == OVERLONG and self.training_examples and bool(self._lost[: self.training_examples].all()):
            raise TreeError(f"no training example can be used; the last one: {lost.reason}. Raise the budget.")
        return None

    def try_tree(self, record: RecordT, *, epoch: int | None) -> tuple[TokenTree | None, Lost | None]:
        """One record encoded, or why it cannot be used.

        Raises:
            TreeError: the record is too long and ``on_overlong`` is ``error``.
        """
        try:
            tree = self.encode(record, epoch=epoch)
        except (RecordError, TreeError) as error:
            return None, Lost(UNUSABLE, f"record {record.id}: {error}", error)
        if tree.tokens <= self.token_budget:
            return tree, None
        problem = f"{tree.id}: {tree.tokens} tokens are more than data.token_budget={self.token_budget}"
        error = TreeError(f"{problem}; raise the budget or set data.on_overlong=drop")
        if self.on_overlong == "error":
            raise error
        return None, Lost(OVERLONG, problem, error)

    def _find(self, record: RecordT) -> int | None:
        before = 0
        for store in self.records.values():
            found = store.find(record.id)
            if found is not None:
                return before + found
            before += len(store)
        return None

    def position(self) -> dict[str, int]:
        """Where in the order of examples training stands: the epoch, and its steps whose update is done."""
        assert self.trainer is not None
        # Not `completed`, which Lightning raises behind the hook in which checkpoints are written.
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]
        # Of all epochs, because the count of the present one stays until the next has begun.
        epoch = self.trainer.current_epoch
        return {"epoch": epoch, "steps": done - epoch * int(self.trainer.num_training_batches)}
