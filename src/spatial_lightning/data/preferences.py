"""Preference pairs: one tree a pair, chosen and rejected response behind a shared image and question."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, final

from spatial_lightning.data.trees import TreeDataModule
from spatial_lightning.records import PreferencePair, Question
from spatial_lightning.tree import TokenTree


@final
class PreferenceDataModule(TreeDataModule[PreferencePair]):
    """Preference pairs with segments and, where somebody scored them, reward gaps (arXiv:2506.21656).

    Args:
        chosen_only: leave out the rejected responses: what supervised fine-tuning imitates.
    """

    record_type = PreferencePair

    def __init__(self, *args: Any, chosen_only: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.chosen_only = chosen_only

    def encode(self, record: PreferencePair, *, epoch: int | None) -> TokenTree:
        """See :meth:`TreeDataModule.encode`."""
        return self.encoder.pair(record, chosen_only=self.chosen_only)

    def texts(self, record: PreferencePair, *, epoch: int | None) -> list[str]:
        """See :meth:`TreeDataModule.texts`; the conversation up to the question belongs to what the responses share."""
        shared = [record.system, *(turn for turns in record.history for turn in turns), record.question.text]
        chosen = "".join(shared) + record.chosen.text
        return [chosen] if self.chosen_only else [chosen, record.rejected.text]

    def fingerprint(self) -> str:
        """See :meth:`TreeDataModule.fingerprint`."""
        pairs = super().fingerprint()
        return hashlib.blake2b(f"{pairs} chosen".encode(), digest_size=16).hexdigest() if self.chosen_only else pairs

    def questions(self, split: str) -> list[tuple[tuple[Path, ...], Question]]:
        """See :meth:`TreeDataModule.questions`; each question once, however many pairs it has."""
        unique = {record.question.id: (record.images, record.question) for record in self.records[split]}
        return list(unique.values())
