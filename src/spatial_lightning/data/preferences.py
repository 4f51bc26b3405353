"""Preference pairs: one tree a pair, chosen and rejected response behind a shared image and question."""

from __future__ import annotations

from pathlib import Path
from typing import final

from spatial_lightning.data.trees import TreeDataModule
from spatial_lightning.records import PreferencePair, Question
from spatial_lightning.tree import TokenTree


@final
class PreferenceDataModule(TreeDataModule[PreferencePair]):
    """Preference pairs with segments and, where somebody scored them, reward gaps (arXiv:2506.21656)."""

    record_type = PreferencePair

    def encode(self, record: PreferencePair, *, epoch: int | None) -> TokenTree:
        """See :meth:`TreeDataModule.encode`."""
        return self.encoder.pair(record)

    def texts(self, record: PreferencePair, *, epoch: int | None) -> list[str]:
        """See :meth:`TreeDataModule.texts`; the conversation up to the question belongs to what the responses share."""
        shared = [record.system, *(turn for turns in record.history for turn in turns), record.question.text]
        return ["".join(shared) + record.chosen.text, record.rejected.text]

    def questions(self, split: str) -> list[tuple[tuple[Path, ...], Question]]:
        """See :meth:`TreeDataModule.questions`; each question once, however many pairs it has."""
        unique = {record.question.id: (record.images, record.question) for record in self.records[split]}
        return list(unique.values())
