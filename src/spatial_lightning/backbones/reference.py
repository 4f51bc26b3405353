"""Reference log-probabilities: from a frozen copy of the weights, the weights beneath the adapters, or a cache on disk."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spatial_lightning.backbones.adapters import is_adapter
from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.locks import locked
from spatial_lightning.tree import TreeBatch

_TOLERANCE = 1e-3


class Reference(ABC):
    """Where the reference policy's log-probabilities come from."""

    needs_keys: bool
    """Whether batches must carry the content hash of their trees."""

    @abstractmethod
    def logps(self, batch: TreeBatch) -> Float[Tensor, " targets"]:
        """Log-probability (nats) of every trained token under the reference policy, without gradient."""


class FrozenCopy(Reference):
    """A copy of the policy's weights as they were at the start, run beside it."""

    needs_keys = False

    def __init__(self, policy: Backbone) -> None:
        self.backbone = policy.frozen_copy()

    @torch.no_grad()
    def logps(self, batch: TreeBatch) -> Float[Tensor, " targets"]:
        """See :meth:`Reference.logps`."""
        if self.backbone.device != batch.ids.device:
            self.backbone.to(batch.ids.device)
        return self.backbone.logps(batch)


class AdapterOff(Reference):
    """The policy itself with its adapters switched off: no second model in memory.

    Raises:
        BackboneError: the policy has no adapters, or trains weights beside them.
    """

    needs_keys = False

    def __init__(self, policy: Backbone) -> None:
        moving = [
            name for name, value in policy.model.named_parameters() if value.requires_grad and not is_adapter(name)
        ]
        if moving or not policy.adapters:
            raise BackboneError(
                f"reference=adapter_off needs a policy that trains adapters only; it trains {moving[0] if moving else 'none'}: "
                "choose towers=lora, or reference=cached or frozen_copy"
            )
        self.policy = policy

    @torch.no_grad()
    def logps(self, batch: TreeBatch) -> Float[Tensor, " targets"]:
        """See :meth:`Reference.logps`."""
        with _beneath(self.policy):
            return self.policy.logps(batch)


class CachedReference(Reference):
    """Per-token log-probabilities on disk, addressed by content: weights, processor and example.

    The file is written by whichever run comes first and read by every other run, sweep job and epoch. With a complete
    cache no reference model is loaded and no reference forward is run.

    Args:
        policy: the weights that define the reference, as they are now; those beneath its adapters if it has any.
        folder: where caches live; one file for each fingerprint of weights and processor.
    """

    needs_keys = True

    def __init__(self, policy: Backbone, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with policy.adapters_off():
            self.path = folder / f"{policy.fingerprint()}.sqlite"
        self.computed = 0
        self._memory: dict[str, np.ndarray] = {}
        with self._open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS logps (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            database.execute("CREATE TABLE IF NOT EXISTS complete (corpus TEXT PRIMARY KEY)")

    def is_complete(self, corpus: str) -> bool:
        """Whether every example of a corpus (its content hash) is in the cache."""
        with self._open() as database:
            return database.execute("SELECT 1 FROM complete WHERE corpus = ?", (corpus,)).fetchone() is not None

    @torch.no_grad()
    def fill(self, policy: Backbone, batches: Iterable[TreeBatch], corpus: str) -> int:
        """Compute what is missing with the policy's present weights and return how many examples that were.

        Of processes that come at once, one computes and the others wait and then find everything.
        """
        computed = 0
        with locked(self.path.with_suffix(".lock")), _beneath(policy):
            if self.is_complete(corpus):
                return 0
            for batch in batches:
                if all(self._find(key) is not None for key in batch.tree_keys):
                    continue
                values = policy.logps(batch.to(policy.device)).float().cpu().split(list(batch.tree_targets))
                rows = [(key, value.numpy().tobytes()) for key, value in zip(batch.tree_keys, values, strict=True)]
                with self._open() as database:
                    database.executemany("INSERT OR IGNORE INTO logps VALUES (?, ?)", rows)
                computed += len(rows)
            with self._open() as database:
                database.execute("INSERT OR IGNORE INTO complete VALUES (?)", (corpus,))
        self.computed += computed
        return computed

    @torch.no_grad()
    def check(self, policy: Backbone, batch: TreeBatch) -> None:
        """Compare one batch with a live forward of the same weights.

        Raises:
            BackboneError: the cache does not hold what these weights say.
        """
        with _beneath(policy):
            live, stored = policy.logps(batch), self.logps(batch)
        error = float((live.float() - stored).norm() / live.float().norm())
        if not error <= _TOLERANCE * (1 if live.dtype == torch.float32 else 20):
            raise BackboneError(
                f"the reference cache {self.path} differs from the model by {error:.1e}: delete the file to compute it anew"
            )

    def logps(self, batch: TreeBatch) -> Float[Tensor, " targets"]:
        """See :meth:`Reference.logps`.

        Raises:
            BackboneError: an example is not in the cache.
        """
        if len(batch.tree_keys) != len(batch.tree_ids):
            raise BackboneError("a cached reference needs batches packed with their content hashes (keys=True)")
        values = []
        for identity, key, targets in zip(batch.tree_ids, batch.tree_keys, batch.tree_targets, strict=True):
            value = self._find(key)
            if value is None or value.size != targets:
                raise BackboneError(
                    f"example {identity} is not in the reference cache {self.path}: its record or picture has changed since; "
                    "delete the file to compute it anew"
                )
            values.append(torch.from_numpy(value))
        return torch.cat(values).to(batch.ids.device)

    def _find(self, key: str) -> np.ndarray | None:
        if key not in self._memory:
            with self._open() as database:
                row = database.execute("SELECT value FROM logps WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            if len(row[0]) % 4:
                raise BackboneError(f"the reference cache {self.path} is damaged: delete the file to compute it anew")
            self._memory[key] = np.frombuffer(row[0], dtype=np.float32).copy()
        return self._memory[key]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=60.0)) as database, database:
                yield database
        except sqlite3.DatabaseError as error:
            raise BackboneError(
                f"the reference cache {self.path} cannot be used ({error}): delete the file to compute it anew"
            ) from error


@contextmanager
def _beneath(policy: Backbone) -> Iterator[None]:
    """The policy without adapters and without dropout."""
    training = policy.training
    policy.eval()
    try:
        with policy.adapters_off():
            yield
    finally:
        policy.train(training)


ReferenceKind = Literal["none", "frozen_copy", "adapter_off", "cached"]
