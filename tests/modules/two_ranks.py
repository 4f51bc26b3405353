"""DPO with a cached reference over five pairs in steps of two, on as many processes as the launcher starts.

torchrun --nproc-per-node 2 two_ranks.py MODEL_DIRECTORY WEIGHTS PICTURE FOLDER RESULT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import lightning as L
import torch
from fitting import CALM, Watch
from samples import pair

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import TowerPlan
from spatial_lightning.data import PreferenceDataModule
from spatial_lightning.modules import DPOModule
from spatial_lightning.records import write_records


def main(model: str, weights: str, picture: str, folder: str, result: str) -> None:
    """Train one epoch and write what the first rank saw."""
    torch.set_num_threads(1)
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    backbone = Backbone(model, weights="random")
    backbone.load_state_dict(torch.load(weights, weights_only=True))
    here = Path(folder)
    files = {name: here / f"{name}-{rank}.jsonl" for name in ("train", "val")}
    for path in files.values():  # the pair without a picture leaves the vision tower unused on its rank
        write_records(path, [pair(str(i), [Path(picture)] * (i != 2), extra=" too" * i) for i in range(5)])
    data = PreferenceDataModule(backbone.processor, **files, batch_size=2)
    data.pack_keys = True
    tuner = DPOModule(
        backbone, towers=TowerPlan(), optimization=CALM, reference="cached", cache_folder=here / "cache", sft_weight=0.5
    )
    watch = Watch()
    run = L.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_epochs=1,
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=here,
    )
    run.fit(tuner, data)
    if rank == 0:
        torch.save(
            {
                "gradients": watch.gradients,
                "metrics": watch.metrics,
                "seen": (tuner.examples_seen, tuner.tokens_seen),
                "val_loss": float(run.callback_metrics["val/loss"]),
                "computed": tuner.reference.computed,
            },
            result,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
