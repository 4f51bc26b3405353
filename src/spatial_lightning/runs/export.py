"""A run's model as an ordinary Hugging Face directory, which stock transformers loads, with a model card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError

from spatial_lightning.runs.build import build_backbone
from spatial_lightning.runs.card import model_card
from spatial_lightning.runs.checkpoints import checkpoint_of, load_weights
from spatial_lightning.runs.config import ConfigError


def export_run(run: Path, to: Path, checkpoint: str = "last") -> Path:
    """Write the model of one of a run's checkpoints, adapters merged, beside its place first and then in one step.

    Args:
        run: run directory.
        to: the directory to make; it may exist if it is empty.
        checkpoint: ``last``, ``best`` (lowest validation loss) or the name of a folder in the run's ``checkpoints``.

    Returns:
        ``to``.

    Raises:
        ConfigError: ``to`` is taken, or the checkpoint does not fit the run's backbone.
        FileNotFoundError: no run directory, or it has no such checkpoint.
    """
    require_free(to)
    folder = checkpoint_of(run, checkpoint)
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"{run} is no run directory: it has no config.yaml")
    config = OmegaConf.load(run / "config.yaml")
    assert isinstance(config, DictConfig)
    backbone = build_backbone(config)
    load_weights(backbone, run, checkpoint, merge=False)
    summary = run / "summary.json"
    figures = json.loads(summary.read_text()) if summary.is_file() else None
    part = to.with_name(to.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        backbone.save_pretrained(part)
        (part / "README.md").write_text(model_card(config, backbone, folder, figures), encoding="utf-8")
        part.replace(to)
    except (OSError, SafetensorError) as error:
        raise OSError(f"cannot write {to} ({error}); nothing of it is left there") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return to


def require_free(to: Path) -> None:
    """Refuse a place for an export that holds something.

    Raises:
        ConfigError: it is a file or a directory with files in it.
    """
    if to.is_dir() and not any(to.iterdir()):
        return
    if to.exists():
        what = "is not empty" if to.is_dir() else "is a file"
        raise ConfigError(f"cannot export to {to}: it {what}; give a new directory, or remove it first")
