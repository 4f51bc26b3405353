"""Loaders: examples encoded in loader processes, a step at a time, with a state that resumes exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from spatial_lightning.data.sampling import StepSampler
from spatial_lightning.tree import TokenTree, TreeBatch

if TYPE_CHECKING:
    from spatial_lightning.data.trees import TreeDataModule

UNUSABLE, OVERLONG = 1, 2
REASONS = {UNUSABLE: "cannot be encoded", OVERLONG: "longer than the token budget"}


class Lost(NamedTuple):
    """Why a record makes no tree."""

    code: int
    reason: str
    error: Exception

    @property
    def kind(self) -> str:
        """Groups reasons that differ in detail only."""
        return REASONS[self.code]


class StepLoader(DataLoader[list[TreeBatch]]):
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


class Examples(Dataset["TokenTree | None"]):
    """Records of one split, read, decoded and encoded when asked for."""

    def __init__(self, module: TreeDataModule[Any], split: str, sampler: StepSampler) -> None:
        self.records = module.records["train"] if split == "train" else module.held_out()
        self.before = 0 if split == "train" else module.training_examples
        self.module, self.split, self.sampler = module, split, sampler

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> TokenTree | None:
        epoch = self.sampler.epoch if self.split == "train" else None
        return self.module.tree(self.records[index], epoch=epoch, place=self.before + index)
