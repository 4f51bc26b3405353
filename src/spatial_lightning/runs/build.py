"""From configuration to objects: the only caller of Hydra's ``instantiate``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.processor import Processor
from spatial_lightning.runs.config import ConfigError, require_known, resolve_path


def build(config: Any, **arguments: Any) -> Any:
    """Build what a ``_target_`` node names, with plain Python values and further arguments.

    Raises:
        ConfigError: the node has a key that its class does not take, or the class refuses a value.
    """
    node = plain(config)
    name = node.get("_target_")
    if not isinstance(name, str):
        raise ConfigError(f"a component needs a _target_, got keys {', '.join(map(str, node)) or 'none'}")
    target = get_object(name)
    accepted = _accepted(target)
    if accepted is not None:
        given = [str(key) for key in node if not str(key).startswith("_")]
        require_known(given, accepted, f"setting of {name.rsplit('.', 1)[-1]} called")
    try:
        # A partial, so that arguments such as a model are handed over as they are: Hydra copies what it merges.
        factory = instantiate({**node, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        raise ConfigError(f"cannot build {name}: {cause or error}") from cause
    return factory(**arguments)


def build_backbone(config: DictConfig) -> Backbone:
    """The backbone that a configuration names, its directory found from the project root."""
    node = plain(config.backbone)
    local = resolve_path(node["path"])
    if local.is_dir():
        node["path"] = str(local)
    # Fresh weights depend on the seed alone, whatever has drawn before: checkpoints leave out those that are not trained.
    torch.manual_seed(config.seed)
    return build(node)


def build_processor(config: DictConfig) -> Processor:
    """The processor of the backbone that a configuration names, without its weights."""
    node = plain(config.backbone)
    local = resolve_path(node["path"])
    settings = {key: node.get(key) for key in ("min_pixels", "max_pixels", "image_settings")}
    return Processor(local if local.is_dir() else node["path"], **settings)


def plain(config: Any) -> dict[str, Any]:
    """A configuration node as plain Python values, resolved."""
    if isinstance(config, DictConfig):
        try:
            config = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
            raise ConfigError(f"{error.full_key} has no value: give it one on the command line") from error
    if not isinstance(config, Mapping):
        raise ConfigError(f"expected a mapping of settings, got {config!r}")
    return dict(config)  # type: ignore[arg-type]


def _accepted(target: Any) -> set[str] | None:
    """Parameter names along the class hierarchy as far as ``**kwargs`` hands them on; None where anything goes.

    A class that hands settings to a part of its own names them in ``handed_on``.
    """
    names: set[str] = set()
    owners = inspect.getmro(target) if inspect.isclass(target) else (target,)
    for owner in owners:
        function = owner.__dict__.get("__init__") if inspect.isclass(owner) else owner
        if function is None:
            continue
        parameters = inspect.signature(function).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        names |= owner.__dict__.get("handed_on", frozenset())
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names - {"self"}
    return None
