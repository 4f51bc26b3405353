"""What answers a benchmark: a run's checkpoint, an exported directory, or a backbone as it comes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.loading import architecture
from spatial_lightning.backbones.processor import Processor
from spatial_lightning.runs.build import build_backbone, build_processor, plain
from spatial_lightning.runs.checkpoints import checkpoint_of, load_weights
from spatial_lightning.runs.config import CONF, ConfigError, resolve_path

_SAME = ("path", "weights", "overrides", "quantization", "image_settings")
"""Settings of a backbone that make its answers others; pixel limits are compared as they come out."""
_SHOWN = 4


@dataclass(frozen=True)
class Evaluated:
    """A model that answers.

    Attributes:
        experiment: name of the run that trained it, of the exported directory, or of the backbone.
        checkpoint: the checkpoint folder or exported directory; None for a backbone as it comes.
        exported: an ordinary Hugging Face directory that holds this model; None where there is none yet.
        system: system turn of every conversation; None keeps what the chat template writes by itself.
        seed: of the run that trained it.
    """

    backbone: Backbone
    experiment: str
    checkpoint: Path | None
    exported: Path | None
    system: str | None
    seed: int


def load_evaluated(config: DictConfig) -> Evaluated:
    """The model that a configuration names, with its weights.

    Raises:
        ConfigError: nothing is named, or the checkpoint is of another backbone than ``config.backbone``.
        FileNotFoundError: no checkpoint there.
    """
    if config.checkpoint is None:
        if config.backbone is None:
            raise ConfigError(
                "nothing to evaluate: give checkpoint=RUN, backbone=NAME for a backbone as it comes, or predictions=FILE"
            )
        name = Path(str(config.backbone.path)).name
        return Evaluated(build_backbone(config), name, None, None, config.system or None, config.seed)
    path = resolve_path(config.checkpoint)
    if (path / "config.json").is_file():
        return _exported(path, config)
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no checkpoint {path}: give a run directory, one of its checkpoint folders, or an exported directory"
        )
    return _of_run(path, config)


def _exported(path: Path, config: DictConfig) -> Evaluated:
    if config.backbone is not None:
        mine, asked = Processor(path), build_processor(config)
        shapes = [dict(_flat(architecture(processor.config.to_dict()))) for processor in (mine, asked)]
        _refuse(path, [*_different(*shapes), *_different_limits(mine, asked)])
    node = OmegaConf.load(CONF / "backbone" / "hf.yaml") if config.backbone is None else config.backbone.copy()
    # What was asked for is in the directory: its weights, pixel limits and image settings.
    own = {"path": str(path), "weights": "pretrained", "overrides": {}, "image_settings": {}}
    node.merge_with({**own, "min_pixels": None, "max_pixels": None})
    backbone = build_backbone(OmegaConf.create({"backbone": node, "seed": config.seed}))
    return Evaluated(backbone, path.name, path, path, config.system or None, config.seed)


def _of_run(path: Path, config: DictConfig) -> Evaluated:
    checkpoint = checkpoint_of(path)
    run = checkpoint.parent.parent
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"{run} is no run directory: it has no config.yaml to say which backbone it trained")
    theirs = OmegaConf.load(run / "config.yaml")
    assert isinstance(theirs, DictConfig)
    node = plain(theirs.backbone)
    if config.backbone is not None:
        asked = plain(config.backbone)
        found = _different(*({key: _located(key, other.get(key)) for key in _SAME} for other in (node, asked)))
        # A processor of another backbone may not even load: limits are compared where the backbones are the same.
        _refuse(path, found or _different_limits(build_processor(theirs), build_processor(config)))
        node = asked
    backbone = build_backbone(OmegaConf.create({"backbone": node, "seed": theirs.seed}))
    load_weights(backbone, checkpoint, merge=False)
    system = (theirs.data.get("module") or {}).get("system") if config.system is None else config.system
    return Evaluated(backbone, str(theirs.name), checkpoint, None, system or None, int(theirs.seed))


def _located(key: str, value: Any) -> Any:
    """Paths of one directory written in two ways are the same."""
    if key == "path" and resolve_path(str(value)).is_dir():
        return str(resolve_path(str(value)).resolve())
    return value or None


def _different(checkpoint: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    keys = sorted(key for key in checkpoint.keys() | asked.keys() if checkpoint.get(key) != asked.get(key))
    return [f"{key}: {checkpoint.get(key)} in the checkpoint, {asked.get(key)} asked for" for key in keys]


def _different_limits(checkpoint: Processor, asked: Processor) -> list[str]:
    if checkpoint.pixel_limits == asked.pixel_limits:
        return []
    return [f"pixel limits: {checkpoint.pixel_limits} in the checkpoint, {asked.pixel_limits} asked for"]


def _refuse(path: Path, differences: list[str]) -> None:
    if not differences:
        return
    shown = "".join(f"\n  {difference}" for difference in differences[:_SHOWN])
    more = f"\n  and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    raise ConfigError(
        f"checkpoint {path} is not what backbone=... asks for:{shown}{more}\n"
        "leave backbone=... out to take the checkpoint's own backbone and pixel limits, or give those that it has"
    )


def _flat(node: Any, prefix: str = "") -> Any:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), value
