"""Kinds of offline RL on as many processes as the launcher starts.

torchrun --nproc-per-node 2 two_ranks_offline.py MODEL_DIRECTORY WEIGHTS PICTURE... FOLDER
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from fitting import CALM, Watch
from rated import Traces, rated_traces, trees_of

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import TowerPlan
from spatial_lightning.modules import OfflineRLModule
from spatial_lightning.modules.sharding import FSDP2Strategy

KINDS: dict[str, dict[str, Any]] = {
    "awr": {"baseline": "value"},
    "iql": {},
    "step_dpo": {"reference": "frozen_copy"},
    "kto": {"reference": "cached"},
}
RANKS, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


class Shares(Traces):
    """Each rank has every other tree of a step; of the last step one has none."""

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        return torch.utils.data.DataLoader(
            [step[RANK::RANKS] for step in self.steps], batch_size=None, num_workers=0, collate_fn=loader.collate_fn
        )  # type: ignore[arg-type]


def main(model: str, weights: str, *rest: str) -> None:
    """Write what each rank saw to ``FOLDER/RANK.pt``."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    *pictures, folder = map(Path, rest)
    groups, results = rated_traces(pictures), {}
    for kind, options in KINDS.items():
        backbone = Backbone(model, weights="random")
        backbone.load_state_dict(torch.load(weights, weights_only=True))
        trees = trees_of(backbone, groups)
        data, watch = Shares(groups, [[[tree] for tree in trees], [trees[:1], trees[1:]], [trees]]), Watch()
        torch.manual_seed(3)
        tuner = OfflineRLModule(
            backbone,
            towers=TowerPlan(),
            optimization=CALM,
            kind=kind,
            cache_folder=folder / "cache",
            **options,
        )
        trainer = L.Trainer(
            accelerator="cpu",
            devices=RANKS,
            strategy="ddp" if RANKS > 1 else "auto",
            max_epochs=1,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        trainer.fit(tuner, datamodule=data)
        heads = {} if tuner.heads is None else dict(tuner.heads.state_dict())
        results[kind] = {"gradients": watch.gradients, "metrics": watch.metrics, "heads": heads}
    if RANKS > 1:
        for kind, options in (("iql", {}), ("kto", {"reference": "frozen_copy"})):
            tuner = OfflineRLModule(backbone, towers=TowerPlan(), optimization=CALM, kind=kind, **options)
            sharded = L.Trainer(accelerator="cpu", devices=RANKS, strategy=FSDP2Strategy(), logger=False)
            try:
                sharded.fit(tuner, datamodule=data)
            except ValueError as error:
                results[f"{kind} fsdp"] = str(error)
    torch.save(results, folder / f"{RANK}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
