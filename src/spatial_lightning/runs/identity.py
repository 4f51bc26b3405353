"""What a run and its checkpoint must have in common for one to go on from the other, and the difference in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.adapters import is_quantized
from spatial_lightning.backbones.loading import architecture
from spatial_lightning.runs.build import plain
from spatial_lightning.runs.config import ConfigError
from spatial_lightning.runs.corpus_files import CorpusFiles
from spatial_lightning.runs.mixed import MixedFiles, module_settings

Identity = dict[str, Any]

IDENTITY = "identity.json"
_FREE = ("num_workers", "token_budget", "max_bad_fraction", "on_overlong", "_target_")
"""Settings of the data that do not change which examples a step has."""
_SAME_RESULT = (".checkpointing",)
"""Settings of the towers that change memory and speed only."""
_SAMPLE = 256
_SHOWN = 6
_ADVICE = {
    "pixel_limits": "set backbone.min_pixels and backbone.max_pixels to the stored values",
    "world_size": "start as many ranks as before (trainer.devices times trainer.num_nodes)",
    "corpus": "the record files have changed: bring the old ones back",
    "processor": "the tokenizer, chat template or image settings of the model directory have changed: bring the old ones back",
    "frozen_weights": "the weights that are not trained are others: bring the model directory or warm start of then back",
}


def identity_of(
    config: DictConfig, backbone: Backbone, files: CorpusFiles | MixedFiles, warm_start: Path | None, world_size: int
) -> Identity:
    """What identifies a run that is about to train.

    Args:
        backbone: with its towers applied, so that it is known what is frozen.
        warm_start: the run whose weights it starts from.
    """
    data = {key: value for key, value in module_settings(config).items() if key not in _FREE}
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    identity = {
        "architecture": architecture(backbone.model.config.to_dict()),
        "pixel_limits": backbone.processor.pixel_limits,
        "processor": backbone.processor.fingerprint(),
        "frozen_weights": untrained_digest(backbone, trained),
        "corpus": files.digest(),
        "data": data,
        "objective": plain(config.objective),
        "reference": config.reference.kind,
        "towers": plain(config.towers),
        "optimization": plain(config.optimization),
        "precision": config.trainer.get("precision"),
        "warm_start": None if warm_start is None else str(warm_start),
        "world_size": world_size,
    }
    # As it will be read back: tuples become lists, keys strings.
    return json.loads(json.dumps(identity, default=str))


def untrained_digest(backbone: Backbone, trained: set[str]) -> str:
    """Content hash of the first numbers of each parameter that is not trained; tells one fine-tune from another.

    Quantised parameters are left out: a CPU and a GPU round a few of them to another code.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(backbone.named_parameters()):
        if name not in trained and not is_quantized(parameter):
            sample = parameter.detach().flatten()[:_SAMPLE].contiguous().cpu()
            digest.update(name.encode() + sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_identity(checkpoint: Path) -> Identity:
    """The identity that a checkpoint folder was written with.

    Raises:
        ConfigError: it is missing or damaged.
    """
    try:
        return json.loads((checkpoint / IDENTITY).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{checkpoint / IDENTITY} cannot be read ({error}): use another checkpoint") from error


def require_same(stored: Identity, current: Identity, checkpoint: Path) -> None:
    """Refuse to go on from a checkpoint of a run that differs.

    Raises:
        ConfigError: what differs, as it was and as it is, and what to do about it.
    """
    before, now = dict(_flat(stored)), dict(_flat(current))
    keys = (key for key in before.keys() | now.keys() if not key.endswith(_SAME_RESULT))
    different = sorted(key for key in keys if before.get(key, "-") != now.get(key, "-"))
    if not different:
        return
    lines = [
        f"  {key}: {before.get(key, '-')} in the checkpoint, {now.get(key, '-')} now" for key in different[:_SHOWN]
    ]
    if len(different) > _SHOWN:
        lines.append(f"  and {len(different) - _SHOWN} more")
    groups = dict.fromkeys(key.split(".")[0] for key in different)
    advice = [_ADVICE[group] for group in groups if group in _ADVICE]
    if any(group not in _ADVICE for group in groups):
        advice.append("give the settings that the run had (its config.yaml)")
    advice.append("or start a new run with its weights: warm_start=RUN in place of resume")
    raise ConfigError("\n".join([f"cannot resume from {checkpoint}: this run differs", *lines, "; ".join(advice)]))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
