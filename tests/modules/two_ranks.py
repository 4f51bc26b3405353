"""Every kind of step on as many processes as the launcher starts, each by every strategy that fits their number.

torchrun --nproc-per-node 2 two_ranks.py MODEL_DIRECTORY WEIGHTS PICTURE FOLDER
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from fitting import CALM, Watch
from samples import asked, pair, question

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import Tower, TowerPlan
from spatial_lightning.data import Encoder, PreferenceDataModule, SpatialVLMDataModule
from spatial_lightning.modules import DPOModule, FDPOModule, FineTuner, SFTModule
from spatial_lightning.modules.sharding import FSDP2Strategy
from spatial_lightning.records import write_records
from spatial_lightning.runs.checkpoints import AtomicCheckpointIO

OBJECTIVES = ("sft", "dpo", "fdpo", "mixed")
"""The last one is ``sft`` in mixed precision."""
RANKS, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
EXAMPLES, STEP = 7, 3
"""Steps of three, three and one: on two ranks one of them has a row less, and none at all in the last step."""
WITHOUT_PICTURE = {2, 4}


def make(objective: str, backbone: Backbone, picture: Path, folder: Path) -> tuple[FineTuner, Any]:
    """The module and its data, a row for each example."""
    images = [[picture] * (i not in WITHOUT_PICTURE) for i in range(EXAMPLES)]
    if objective == "sft":
        records = [asked(str(i), images[i], 1 + i % 3) for i in range(EXAMPLES)]
    else:
        records = [pair(str(i), images[i], extra=" too" * i) for i in range(EXAMPLES)]
    files = {name: folder / f"{objective}-{name}-{RANK}.jsonl" for name in ("train", "val")}
    for path in files.values():
        write_records(path, records)
    kind = SpatialVLMDataModule if objective == "sft" else PreferenceDataModule
    data = kind(backbone.processor, **files, batch_size=STEP, token_budget=110)
    data.pack_keys = objective == "dpo"
    options: dict[str, Any] = {
        "towers": TowerPlan(language=Tower(checkpointing=objective == "fdpo")),
        "optimization": replace(CALM, max_grad_norm=0.5),
    }
    if objective == "sft":
        return SFTModule(backbone, **options), data
    if objective == "dpo":
        return DPOModule(backbone, reference="cached", cache_folder=folder / "cache", sft_weight=0.5, **options), data
    return FDPOModule(backbone, reference="frozen_copy", **options), data


def fit(
    objective: str, strategy: Any, backbone: Backbone, picture: Path, folder: Path, *, epochs: int = 1, **options: Any
) -> tuple[dict[str, Any], L.Trainer]:
    """Train and return what this rank saw."""
    folder.mkdir(exist_ok=True)
    mixed = objective == "mixed"
    tuner, data = make("sft" if mixed else objective, backbone, picture, folder)
    watch = Watch()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=RANKS,
        strategy=strategy,
        precision="bf16-mixed" if mixed else "32-true",
        max_epochs=epochs,
        callbacks=[watch],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(tuner, data, weights_only=True, **options)
    return {
        "ids": watch.ids,
        "gradients": watch.gradients,
        "metrics": watch.metrics,
        "seen": (tuner.examples_seen, tuner.tokens_seen),
        "val_loss": float(trainer.callback_metrics["val/loss"]),
        "computed": tuner.reference.computed if objective == "dpo" else 0,
    }, trainer


def main(model: str, weights: str, picture: str, folder: str) -> None:
    """Write what each rank saw to ``FOLDER/RANK.pt``."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = {}

    def fresh() -> Backbone:
        backbone = Backbone(model, weights="random")
        backbone.load_state_dict(torch.load(weights, weights_only=True))
        return backbone

    for name in ("one",) if RANKS == 1 else ("ddp", "fsdp"):
        strategy = {"one": lambda: "auto", "ddp": lambda: "ddp", "fsdp": FSDP2Strategy}[name]
        for objective in OBJECTIVES:
            place, backbone = Path(folder) / f"{objective}-{name}", fresh()
            seen, trainer = fit(objective, strategy(), backbone, Path(picture), place)
            if objective in ("sft", "mixed"):
                prompt = Encoder(backbone.processor).prompt([Path(picture)], question())
                seen["answers"] = backbone.generate([prompt], max_new_tokens=4)
            if objective == "sft":
                saved = place / "checkpoint"
                trainer.save_checkpoint(saved)
                again, _ = fit(objective, strategy(), fresh(), Path(picture), place, epochs=2, ckpt_path=str(saved))
                results["resumed", name] = again
            results[objective, name] = seen
    torch.save(results, Path(folder) / f"{RANK}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
