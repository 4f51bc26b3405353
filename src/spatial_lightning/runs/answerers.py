"""What answers prompts in a run: a backbone, or a policy that the token values it learned guide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spatial_lightning.backbones.processor import Processor
from spatial_lightning.modules import FineTuner, OfflineRLModule
from spatial_lightning.tree import Prompt


class Answerer(Protocol):
    """What answers prompts: a backbone, or a policy that its values guide."""

    @property
    def processor(self) -> Processor:
        """Turns text and pictures into tokens."""
        ...

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int) -> list[str]:
        """Greedy answers, one a prompt."""
        ...


@dataclass(frozen=True, slots=True)
class Guided:
    """A policy whose answers are bent by the token values that it learned."""

    policy: OfflineRLModule
    guidance: float

    @property
    def processor(self) -> Processor:
        """The backbone's."""
        return self.policy.backbone.processor

    def generate(self, prompts: Sequence[Prompt], *, max_new_tokens: int, batch_size: int) -> list[str]:
        """See :meth:`OfflineRLModule.generate`."""
        return self.policy.generate(
            prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, guidance=self.guidance
        )


def answerer(module: FineTuner, guidance: float = 0.0) -> Answerer:
    """The backbone of a module, bent by its token values as far as ``guidance`` says (arXiv:2206.11871)."""
    if guidance and isinstance(module, OfflineRLModule):
        return Guided(module, guidance)
    return module.backbone
