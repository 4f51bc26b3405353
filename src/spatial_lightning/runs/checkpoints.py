"""Checkpoints that survive a kill or a full disk, and starting from the weights of another run."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import OmegaConf

from spatial_lightning.backbones import Backbone
from spatial_lightning.runs.config import ConfigError, resolve_path

LAST = Path("checkpoints") / "last.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that the one before stays whole until the new one is."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save in one step.

        Raises:
            OSError: the disk is full or not writable; the checkpoint before is untouched.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            kept = f"the checkpoint before is whole: {path}" if path.exists() else "there is no earlier checkpoint"
            raise OSError(f"cannot write checkpoint {path} ({error}); free some space and resume; {kept}") from error


class SaveOnError(L.Callback):
    """Saves the state when training fails. (Lightning's own callback for this also resumes by itself, unasked.)"""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save what there is; a second error must not hide the first."""
        if isinstance(exception, OSError):
            return
        with contextlib.suppress(OSError):
            trainer.save_checkpoint(self.path)


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that a file or run directory stands for.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_file():
        return path
    if (path / LAST).is_file():
        return path / LAST
    raise FileNotFoundError(f"no checkpoint at {path}: give a run directory with {LAST} or a checkpoint file")


def load_weights(backbone: Backbone, run: Path) -> None:
    """Give a backbone the weights that a run ended with, the weights that run had not trained included.

    Raises:
        ConfigError: the run trained another backbone.
        FileNotFoundError: the run has no checkpoint.
    """
    path = checkpoint_of(run)
    config = OmegaConf.load(run / "config.yaml")
    theirs = str(config["backbone"]["path"])  # type: ignore[index]
    summary = run / "summary.json"
    before = json.loads(summary.read_text()).get("warm_start") if summary.is_file() else None
    if before:
        load_weights(backbone, Path(before))
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    state = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    own = backbone.state_dict()
    unknown = sorted(set(state) - set(own))
    other_shape = [n for n in state if n in own and own[n].shape != state[n].shape]
    if unknown or other_shape:
        problem = f"no {unknown[0]}" if unknown else f"another shape of {other_shape[0]}"
        raise ConfigError(
            f"cannot warm-start {backbone.path} from {run}: that run trained {theirs}, and this backbone has {problem}"
        )
    untrained = {name for name, _ in backbone.named_parameters()} - set(state)
    if untrained and resolve_path(theirs) != resolve_path(backbone.path) and not before:
        raise ConfigError(
            f"cannot warm-start {backbone.path} from {run}: it trained a part of {theirs} and the rest would be of another model"
        )
    backbone.load_state_dict(state, strict=False)
