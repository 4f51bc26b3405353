"""Overrides that make whole runs small."""

from __future__ import annotations

from pathlib import Path

SMALL = (
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "data.train_images=6",
    "data.val_images=3",
    "data.module.batch_size=4",
    "data.module.val_examples=3",
    "evaluation.questions=6",
    "evaluation.reasoned=2",
    "evaluation.max_new_tokens=6",
    "evaluation.checkpoint_every=1",
    "logger.wandb=off",
    "backbone.weights=random",
)


def small(place: Path, *overrides: str) -> list[str]:
    """Overrides of a run whose outputs and cache live in ``place``."""
    return [*SMALL, f"outputs={place / 'outputs'}", f"cache={place / 'cache'}", *overrides]
