"""Several corpora in one run, by shares of examples or of trained tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch

from spatial_lightning.data.encode import TextAndImages
from spatial_lightning.data.sampling import StepSampler
from spatial_lightning.data.trees import TreeDataModule
from spatial_lightning.records import AnyRecord, Question, RecordError
from spatial_lightning.tree import TokenTree, TreeError

_MEASURED = 64
"""Examples of a corpus from which its trained tokens per example are learned."""


@dataclass(frozen=True, slots=True)
class MixedRecord:
    """A record and the corpus it is from."""

    corpus: str
    record: Any

    @property
    def id(self) -> str:
        """Unique in the mixture."""
        return f"{self.corpus}/{self.record.id}"

    @property
    def images(self) -> tuple[Path, ...]:
        """Those of the record."""
        return self.record.images


@final
class Joined(Sequence[MixedRecord]):
    """Records of several corpora, one corpus after the other."""

    def __init__(self, corpora: Mapping[str, Any]) -> None:
        self.corpora = dict(corpora)
        self.starts = np.cumsum([0, *map(len, self.corpora.values())])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: Any) -> Any:
        name, place = self._at(int(index))
        return MixedRecord(name, self.corpora[name][place])

    def sizes(self, index: int) -> Any:
        """Height and width in pixels of each picture of a record."""
        name, place = self._at(index)
        return self.corpora[name].sizes(place)

    def find(self, identity: str) -> int | None:
        """Where the record with an id is; None where it is not."""
        name, _, own = identity.partition("/")
        found = self.corpora[name].find(own) if name in self.corpora else None
        return None if found is None else int(self.starts[list(self.corpora).index(name)]) + found

    def fingerprint(self) -> str:
        """Those of the corpora."""
        return ",".join(f"{name}={records.fingerprint()}" for name, records in self.corpora.items())

    def _at(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return list(self.corpora)[which], index - int(self.starts[which])


@final
class MixtureDataModule(TreeDataModule[Any]):
    """Draws each step from several corpora, every epoch the same shares, evenly spread over its steps.

    Args:
        corpora: the DataModules to draw from, by name.
        weights: share of each corpus, any positive numbers; None takes their sizes.
        by: what shares count: ``examples`` (trees), or trained ``tokens``, as in the 5 % of tokens of arXiv:2401.12168.
        temperature: shares are raised to 1 / temperature; 1 leaves them, infinity makes them equal.
        exhaustion: an epoch ends when the ``first`` corpus is used up, or when ``all`` are, the smaller ones repeated.

    Raises:
        ValueError: weights for other corpora, weights that are not positive, or an unknown setting.
    """

    record_type = AnyRecord  # pyright: ignore[reportAssignmentType]

    def __init__(
        self,
        processor: TextAndImages,
        *,
        corpora: Mapping[str, TreeDataModule[Any]],
        weights: Mapping[str, float] | None = None,
        by: Literal["examples", "tokens"] = "examples",
        temperature: float = 1.0,
        exhaustion: Literal["first", "all"] = "first",
        **settings: Any,
    ) -> None:
        super().__init__(processor, train=Path(), val=Path(), **settings)
        self.corpora, self.weights = dict(corpora), None if weights is None else dict(weights)
        self.by, self.temperature, self.exhaustion = by, temperature, exhaustion
        if weights is not None and set(weights) != set(corpora):
            raise ValueError(f"data.weights has {', '.join(weights)}; it needs one for each of {', '.join(corpora)}")
        if weights is not None and any(not weight > 0 for weight in weights.values()):
            raise ValueError(
                f"data.weights are {dict(weights)}; each must be above 0, a corpus of weight 0 is left out"
            )
        for name, value, allowed in (("by", by, ("examples", "tokens")), ("exhaustion", exhaustion, ("first", "all"))):
            if value not in allowed:
                raise ValueError(f"data.{name} is {value!r}; allowed: {', '.join(allowed)}")
        if not temperature > 0:
            raise ValueError(f"data.temperature is {temperature}; it must be above 0")
        streams = [name for name, part in self.corpora.items() if part.stream is not None]
        if streams:
            raise ValueError(f"{streams[0]} is a stream, which has no known size: mixtures need data.streaming=false")
        self.shares: dict[str, float] = {}
        self.examples_per_epoch = 0

    def setup(self, stage: str | None = None) -> None:
        """Read all corpora and settle how many examples of each make an epoch."""
        for part in self.corpora.values():
            part.setup(stage)
        self.joined = Joined({name: part.records["train"] for name, part in self.corpora.items()})
        held_out = Joined({name: part.held_out() for name, part in self.corpora.items()})
        self.records = {"train": self.joined, "val": held_out}  # pyright: ignore[reportAttributeAccessIssue]
        self._unread.clear()
        self.bad_rows = [place for part in self.corpora.values() for place in part.bad_rows]
        for part in self.corpora.values():
            self._unread.update(part.dropped)
        examples = sum(map(len, self.records.values()))
        if len(self._lost) != examples:
            self._lost = torch.zeros(examples, dtype=torch.uint8).share_memory_()
        self._settle()

    @property
    def steps_per_epoch(self) -> int:
        """See :meth:`TreeDataModule.steps_per_epoch`."""
        return -(-self.examples_per_epoch // self.batch_size)

    def share(self, rank: int, ranks: int) -> StepSampler:
        """See :meth:`TreeDataModule.share`."""
        return StepSampler(
            self.examples_per_epoch,
            self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=ranks,
            order=self.order,
            length=self.length,
        )

    def drawn(self, epochs: int) -> dict[str, int]:
        """Examples drawn from each corpus in so many epochs; a share of less than one an epoch adds up over epochs."""
        counts = {name: math.floor(epochs * self.examples_per_epoch * share) for name, share in self.shares.items()}
        largest = max(self.shares, key=lambda name: self.shares[name])
        counts[largest] += epochs * self.examples_per_epoch - sum(counts.values())
        return counts

    def order(self, epoch: int) -> np.ndarray:
        """Examples of an epoch: a corpus goes on where the epoch before stopped, and is shuffled anew when it is through."""
        before, behind = self.drawn(epoch), self.drawn(epoch + 1)
        indices, places = [], []
        for number, (name, first) in enumerate(zip(self.corpora, self.joined.starts[:-1].tolist(), strict=True)):
            size, drawn = len(self.corpora[name].records["train"]), np.arange(before[name], behind[name])
            own = np.empty_like(drawn)
            for turn in np.unique(drawn // size).tolist():
                here = drawn // size == turn
                own[here] = np.random.default_rng((self.seed, number, turn)).permutation(size)[drawn[here] % size]
            indices.append(first + own)
            jitter = np.random.default_rng((self.seed, number, epoch, 1)).random(len(drawn))
            places.append((np.arange(len(drawn)) + jitter) / max(1, len(drawn)))
        return np.concatenate(indices)[np.argsort(np.concatenate(places), kind="stable")]

    def held_out(self) -> Sequence[Any]:
        """See :meth:`TreeDataModule.held_out`; each corpus has its own limit."""
        return self.records["val"]

    def encode(self, record: MixedRecord, *, epoch: int | None) -> TokenTree:
        """See :meth:`TreeDataModule.encode`; corpora of different kinds leave out the numbers that not all of them give."""
        tree = self.corpora[record.corpus].encode(record.record, epoch=epoch)
        alike = len({part.record_type for part in self.corpora.values()}) == 1
        return replace(tree, id=f"{record.corpus}/{tree.id}", values=tree.values if alike else {})

    def texts(self, record: MixedRecord, *, epoch: int | None) -> list[str]:
        """See :meth:`TreeDataModule.texts`."""
        return self.corpora[record.corpus].texts(record.record, epoch=epoch)

    def questions(self, split: str) -> list[tuple[tuple[Path, ...], Question]]:
        """See :meth:`TreeDataModule.questions`."""
        return [asked for part in self.corpora.values() for asked in part.questions(split)]

    def _settle(self) -> None:
        """Shares of the corpora in examples, and the examples of an epoch."""
        sizes = {name: len(part.records["train"]) for name, part in self.corpora.items()}
        wanted = self.weights or {name: float(size) for name, size in sizes.items()}
        shares = {name: weight ** (1 / self.temperature) for name, weight in wanted.items()}
        if self.by == "tokens" and self.weights is not None:
            shares = {name: share / self._trained_tokens(name) for name, share in shares.items()}
        total = sum(shares.values())
        self.shares = {name: share / total for name, share in shares.items()}
        pick = min if self.exhaustion == "first" else max
        epoch = pick(sizes[name] / share for name, share in self.shares.items())
        self.examples_per_epoch = max(1, math.floor(epoch + 1e-6))

    def _trained_tokens(self, name: str) -> float:
        """Trained tokens of an example of a corpus, on average."""
        counts = [tree.trained_tokens for tree in self._some_trees(name)]
        if not counts:
            raise RecordError(f"none of {_MEASURED} examples of {name} can be encoded: look at them with inspect=data")
        return sum(counts) / len(counts)

    def _some_trees(self, name: str) -> Iterator[TokenTree]:
        part = self.corpora[name]
        records = part.records["train"]
        step = max(1, len(records) // _MEASURED)
        for index in range(0, len(records), step):
            try:
                yield part.encode(records[index], epoch=0)
            except (RecordError, TreeError):
                continue  # counted when training meets it
