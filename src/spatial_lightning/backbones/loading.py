"""Loading a model of transformers: weights that fit their config, or an architecture with fresh ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from spatial_lightning.backbones.processor import BackboneError


def load_model(path: str, weights: str, overrides: Mapping[str, Any], dtype: torch.dtype, attention: str) -> Any:
    """A vision-language model of transformers, from its weights or with fresh ones.

    Raises:
        BackboneError: weights are missing or do not fit, or an override names nothing.
    """
    if weights == "random":
        config = AutoConfig.from_pretrained(path)
        for name, value in overrides.items():
            _override(config, name, value)
        return AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention)
    if weights != "pretrained":
        raise BackboneError(f"weights is {weights!r}; allowed: pretrained, random")
    if overrides:
        raise BackboneError("backbone.overrides changes the architecture and needs backbone.weights=random")
    try:
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, attn_implementation=attention, output_loading_info=True
        )
        model, info = loaded
    except (OSError, ValueError, RuntimeError) as error:
        raise BackboneError(f"cannot load weights from {path!r}: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(problem):
            raise BackboneError(
                f"weights in {path} do not fit its config: {problem} {sorted(map(str, info[problem]))[:5]}"
            )
    return model


def architecture(config: Any) -> Any:
    """A configuration without the parts that say where it came from."""
    if isinstance(config, Mapping):
        return {
            key: architecture(value)
            for key, value in config.items()
            if key
            not in ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "use_cache")
        }
    return config


def _override(config: Any, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        config = getattr(config, parent, None)
    if not hasattr(config, last):
        raise BackboneError(f"the model configuration has no {name!r} (backbone.overrides)")
    setattr(config, last, value)
