"""The abstract DataModule: reads records, encodes them in the loader, packs each optimizer step into rows."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from spatial_lightning.data.encode import Encoder, SegmentContext, TextAndImages
from spatial_lightning.data.lengths import Lengths, Size, image_size
from spatial_lightning.data.sampling import StepSampler
from spatial_lightning.records import BadRows, ImageQuestions, PreferencePair, Question, RecordError, read_records
from spatial_lightning.tree import TokenTree, TreeBatch, TreeError, pack, split_by_budget

RecordT = TypeVar("RecordT", ImageQuestions, PreferencePair)

_SAMPLES = 64
_UNUSABLE, _OVERLONG = 1, 2
_REASONS = {_UNUSABLE: "cannot be encoded", _OVERLONG: "longer than the token budget"}

log = logging.getLogger(__name__)


class TreeDataModule(L.LightningDataModule, ABC, Generic[RecordT]):
    """Packed token trees from record files.

    Args:
        processor: the backbone's processor.
        train, val: record files (JSON lines beside their images).
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
        train: Path,
        val: Path,
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
        self.files = {"train": Path(train), "val": Path(val)}
        self.batch_size, self.token_budget, self.on_overlong = batch_size, token_budget, on_overlong
        self.max_bad_fraction, self.val_examples = max_bad_fraction, val_examples
        self.num_workers, self.seed = num_workers, seed
        self.records: dict[str, list[RecordT]] = {}
        self.pack_keys = False
        self._unread: Counter[str] = Counter()
        self._places: dict[str, int] = {}
        self._sizes: dict[Path, Size] = {}
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
        for split, path in self.files.items():
            if split not in self.records:
                bad = BadRows(self.max_bad_fraction)
                good = list(self._with_images(read_records(path, self.record_type, bad), path, bad))
                bad.check()
                if not good:
                    raise RecordError(f"{path} holds no usable record")
                for reason, count in bad.reasons.items():
                    log.warning("%s: left out %d rows: %s", path, count, reason)
                    self._unread[reason] += count
                self.records[split] = good
        records = [record for split in self.records.values() for record in split]
        self._places = {record.id: place for place, record in enumerate(records)}
        # Shared with loader processes, one place a record: each example is counted once, whoever meets it how often.
        self._lost = torch.zeros(len(records), dtype=torch.uint8).share_memory_()

    def _with_images(self, records: Iterator[RecordT], path: Path, bad: BadRows) -> Iterator[RecordT]:
        problems: dict[Path, str] = {}
        for record in records:
            problem = None
            for image in record.images:
                if image not in self._sizes and image not in problems:
                    try:
                        self._sizes[image] = image_size(image)
                    except RecordError as error:
                        problems[image] = str(error)
                problem = problem or problems.get(image)
            if problem is None:
                yield record
            else:
                bad.good -= 1
                bad.add(f"{path}: record {record.id}", problem, "image missing or unreadable")

    @property
    def dropped(self) -> Counter[str]:
        """Examples left out so far, by reason, each counted once."""
        met = Counter(_REASONS[code] for code in self._lost[self._lost > 0].tolist())
        return self._unread + met

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the training examples."""
        return len(StepSampler(len(self.records["train"]), self.batch_size))

    def fingerprint(self) -> str:
        """Content hash of the corpus, of how it is encoded and of which examples fit; pictures count by their size."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self.files.values():
            digest.update(path.read_bytes())
        for image in sorted({image for records in self.records.values() for r in records for image in r.images}):
            digest.update(f"{image.name},{image.stat().st_size};".encode())
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
        return self._loader("train", self.share(rank, world))

    def share(self, rank: int, ranks: int) -> StepSampler:
        """What a rank has of each training step: about as many tokens as every other."""
        examples = len(self.records["train"])
        return StepSampler(examples, self.batch_size, seed=self.seed, rank=rank, world_size=ranks, length=self.length)

    def length(self, index: int, epoch: int) -> float:
        """Estimated tokens of a training example, image tokens counted, without reading its images."""
        records = self.records["train"]
        if self._lengths is None:
            samples = [text for record in records[:_SAMPLES] for text in self.texts(record, epoch=epoch)]
            self._lengths = Lengths(self.encoder.processor, self.encoder.system, samples)
        record = records[index]
        return self._lengths([self._sizes[image] for image in record.images], self.texts(record, epoch=epoch))

    def val_dataloader(self) -> DataLoader[list[TreeBatch]]:
        """Held-out examples in their own order."""
        return self._loader("val", StepSampler(len(self._held_out()), self.batch_size, shuffle=False))

    def _loader(self, split: str, sampler: StepSampler) -> DataLoader[list[TreeBatch]]:
        return StepLoader(
            self,
            _Examples(self, split, sampler),
            batch_sampler=sampler,
            collate_fn=self.rows,
            num_workers=self.num_workers,
            persistent_workers=False,
            pin_memory=False,
            # Loaders draw a number each time they start, more often in a run that is resumed: not from training's numbers.
            generator=torch.Generator(),
        )

    def _held_out(self) -> list[RecordT]:
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
        records = [*self.records["train"], *self._held_out()]
        trees = (self.tree(record, epoch=0) for record in records)
        usable = islice((tree for tree in trees if tree is not None), limit)
        for row in split_by_budget(usable, self.token_budget):
            yield pack(row, keys=True)

    def tree(self, record: RecordT, *, epoch: int | None) -> TokenTree | None:
        """One record encoded; None, and counted, where it cannot be or is longer than the token budget.

        Raises:
            RecordError: the record is bad and ``max_bad_fraction`` is used up.
            TreeError: the record is too long and ``on_overlong`` is ``error``, or no training example is left.
        """
        try:
            tree = self.encode(record, epoch=epoch)
        except (RecordError, TreeError) as error:
            self._drop(record, f"record {record.id}: {error}", _UNUSABLE)
            if int((self._lost == _UNUSABLE).sum()) > self.max_bad_fraction * len(self._lost):
                raise RecordError(
                    f"record {record.id}: {error}\nFix it, or raise data.max_bad_fraction (now {self.max_bad_fraction:g})."
                ) from error
            return None
        if tree.tokens <= self.token_budget:
            return tree
        problem = f"{tree.id}: {tree.tokens} tokens are more than data.token_budget={self.token_budget}"
        if self.on_overlong == "error":
            raise TreeError(f"{problem}; raise the budget or set data.on_overlong=drop")
        self._drop(record, problem, _OVERLONG)
        if bool(self._lost[: len(self.records["train"])].all()):
            raise TreeError(f"no training example can be used; the last one: {problem}. Raise the budget.")
        return None

    def _drop(self, record: RecordT, problem: str, reason: int) -> None:
        place = self._places[record.id]
        if not self._lost[place]:
            self._lost[place] = reason
            log.warning("left out %s", problem)

    def position(self) -> dict[str, int]:
        """Where in the order of examples training stands: the epoch, and its steps whose update is done."""
        assert self.trainer is not None
        # Not `completed`, which Lightning raises behind the hook in which checkpoints are written.
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # pyright: ignore[reportAttributeAccessIssue]
        # Of all epochs, because the count of the present one stays until the next has begun.
        epoch = self.trainer.current_epoch
        return {"epoch": epoch, "steps": done - epoch * int(self.trainer.num_training_batches)}


class StepLoader(DataLoader["list[TreeBatch]"]):
    """Loads packed steps; its state lets a run go on in the middle of an epoch without reading what it has seen."""

    def __init__(self, module: TreeDataModule[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.module = module

    def state_dict(self) -> dict[str, int]:
        """See :meth:`TreeDataModule.position`."""
        return self.module.position()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue behind the examples that a saved run has seen."""
        assert isinstance(self.batch_sampler, StepSampler)
        self.batch_sampler.resume(**state)


class _Examples(Dataset["TokenTree | None"]):
    """Records of one split, encoded when asked for."""

    def __init__(self, module: TreeDataModule[Any], split: str, sampler: StepSampler) -> None:
        self.records = module.records["train"] if split == "train" else module._held_out()
        self.module, self.split, self.sampler = module, split, sampler

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> TokenTree | None:
        epoch = self.sampler.epoch if self.split == "train" else None
        return self.module.tree(self.records[index], epoch=epoch)
