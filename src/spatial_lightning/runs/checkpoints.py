"""Checkpoints that survive a kill or a full disk: a folder each, of plain weights, of the state to go on from, and of
what it belongs to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spatial_lightning.backbones import Backbone, adapters
from spatial_lightning.runs.build import build
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.directory import CHECKPOINTS, newest_checkpoint
from spatial_lightning.runs.identity import IDENTITY, Identity, read_identity, untrained_digest

WEIGHTS, STATE = "weights.safetensors", "state.pt"
ON_ERROR = "on_error"


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint folder beside its place and renames it, so that one is either whole or not there.

    ``weights.safetensors`` holds the trained weights as plain tensors, ``state.pt`` the rest of Lightning's checkpoint
    (optimizer, schedule, loops, place in the data, random generators), ``identity.json`` what a run that goes on from here
    must have in common with this one.

    Attributes:
        identity: what is written as ``identity.json``; None leaves it out.
    """

    def __init__(self) -> None:
        self.identity: Identity | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save in one step.

        Raises:
            OSError: the disk is full or not writable; the checkpoint before is untouched.
        """
        path = Path(path)
        part, replaced = path.with_name(path.name + ".part"), path.with_name(path.name + ".old")
        weights = {name: t.detach().cpu().contiguous() for name, t in checkpoint.get("state_dict", {}).items()}
        state = {name: value for name, value in checkpoint.items() if name != "state_dict"}
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            save_file(weights, part / WEIGHTS)
            with (part / STATE).open("wb") as file:
                torch.save(state, file)
            if self.identity is not None:
                (part / IDENTITY).write_text(json.dumps(self.identity, indent=1))
            for written in (*part.iterdir(), part):
                _flush(written)
            if path.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                path.rename(replaced)
            part.rename(path)
            _flush(path.parent)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(part, ignore_errors=True)
            before = newest_checkpoint(path.parent.parent)
            kept = f"the checkpoint before is whole: {before}" if before else "there is no earlier checkpoint"
            raise OSError(f"cannot write checkpoint {path} ({error}); free some space and resume; {kept}") from error
        shutil.rmtree(replaced, ignore_errors=True)

    def load_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint as Lightning wrote it, on the CPU.

        Raises:
            ConfigError: a file is missing or damaged.
        """
        path = Path(path)
        try:
            state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises half a dozen kinds here
            raise ConfigError(f"{path / STATE} cannot be read ({error}): use another checkpoint") from error
        return {**state, "state_dict": read_weights(path)}

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint; half of one is never taken for a whole one."""
        path = Path(path)
        part = path.with_name(path.name.removesuffix(".part") + ".part")
        with contextlib.suppress(OSError):
            path.rename(part)
        shutil.rmtree(part, ignore_errors=True)


class Checkpoints(L.Callback):
    """Saves the state every so many steps and behind the last one, keeps the newest and the best, and saves on failure.

    The best is the one with the lowest ``val/loss`` since the start or the resume; it holds weights and cannot be resumed
    from. (Lightning's own callbacks save behind the last step only at some of its ends, keep the best by file names that
    a kill may leave without a file, and resume unasked.)

    Args:
        folder: where the checkpoints of the run live.
        every: optimizer steps between two checkpoints.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self._saved, self._best = -1, float("inf")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_args: Any) -> None:
        """Save when it is time."""
        step = trainer.global_step
        if step != self._saved and (step % self.every == 0 or step == pl_module.total_steps()):
            self._save(trainer, "step")
            self._saved = step

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save the end of a run that ended early."""
        if trainer.global_step != self._saved:
            self._save(trainer, "step")

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Save weights that are better than all before."""
        loss = trainer.callback_metrics.get("val/loss")
        if trainer.state.fn == "fit" and not trainer.sanity_checking and loss is not None and loss < self._best:
            self._best = float(loss)
            self._save(trainer, "best")

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Save what there is; a second error must not hide the first, nor one rank wait for others that go on."""
        if not isinstance(exception, OSError) and trainer.world_size == 1:
            with contextlib.suppress(Exception):
                trainer.save_checkpoint(self.folder / ON_ERROR, weights_only=False)

    def _save(self, trainer: L.Trainer, kind: Literal["step", "best"]) -> None:
        path = self.folder / f"{kind}-{trainer.global_step:06d}"
        for logger in trainer.loggers:
            logger.save()  # a run that goes on from here has what was logged before
        trainer.save_checkpoint(path, weights_only=kind == "best")
        for other in self.folder.glob(f"{kind}-*"):
            if other != path:
                trainer.strategy.remove_checkpoint(other)


def checkpoint_of(path: Path, name: str = "last") -> Path:
    """The checkpoint folder that a path stands for: itself, or one of the run directory it is.

    Args:
        name: of a run directory's checkpoints, ``last``, ``best`` or the name of a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    if (path / STATE).is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"there is no run directory {path}")
    found = path / CHECKPOINTS / name
    if name in ("last", "best"):
        found = newest_checkpoint(path, "step" if name == "last" else "best")
    if found is None or not (found / STATE).is_file():
        names = sorted(p.parent.name for p in path.glob(f"{CHECKPOINTS}/*/{STATE}") if p.parent.suffix != ".part")
        if not names and not (path / "config.yaml").is_file():
            raise FileNotFoundError(f"{path} is no run directory: it has neither config.yaml nor {CHECKPOINTS}/")
        there = f"it holds {', '.join(names)}" if names else "it holds none"
        raise FileNotFoundError(f"run {path} has no checkpoint {name!r}: {there}")
    return found


def read_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Trained weights of a checkpoint folder.

    Raises:
        ConfigError: they are missing or damaged.
    """
    try:
        return load_file(checkpoint / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{checkpoint / WEIGHTS} cannot be read ({error}): use another checkpoint") from error


def load_weights(backbone: Backbone, run: Path, checkpoint: str = "last", *, merge: bool = True) -> None:
    """Give a backbone the weights of a run, those that the run had itself started from and not trained included.

    Args:
        backbone: without adapters; a run's own are put in first.
        run: run directory, or one of its checkpoint folders.
        checkpoint: which of its checkpoints, see :func:`checkpoint_of`.
        merge: add adapters to the weights beneath them, as a further training needs it; else they stay apart.

    Raises:
        BackboneError: adapters over quantised weights cannot be merged.
        ConfigError: the run trained another backbone.
        FileNotFoundError: the run has no such checkpoint.
    """
    path = checkpoint_of(run, checkpoint)
    identity = read_identity(path)
    if identity["warm_start"] is not None:
        load_weights(backbone, Path(identity["warm_start"]))
    weights = read_weights(path).items()  # heads of an objective stay behind
    state = {name.removeprefix("backbone."): t for name, t in weights if name.startswith("backbone.")}
    adapted = any(adapters.is_adapter(name) for name in state)
    if adapted:
        build(identity["towers"]).apply(backbone)
    own = backbone.state_dict()
    unknown = sorted(set(state) - set(own))
    other_shape = [n for n in state if n in own and own[n].shape != state[n].shape]
    if unknown or other_shape:
        problem = f"no {unknown[0]}" if unknown else f"another shape of {other_shape[0]}"
        raise ConfigError(f"cannot take the weights of {run} for {backbone.path}: this backbone has {problem}")
    if untrained_digest(backbone, set(state)) != identity["frozen_weights"]:
        raise ConfigError(
            f"cannot take the weights of {run} for {backbone.path}: it trained a part of a model, and the rest of this one "
            "has other weights"
        )
    backbone.load_state_dict(state, strict=False)
    if adapted and merge:
        backbone.merge_adapters()


def _flush(path: Path) -> None:
    """Wait until a file or the entries of a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
