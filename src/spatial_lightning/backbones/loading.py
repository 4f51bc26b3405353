"""Loading a model of transformers: weights that fit their config, or an architecture with fresh ones."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig

from spatial_lightning.backbones.adapters import is_quantized
from spatial_lightning.backbones.processor import BackboneError


def load_model(
    path: str,
    weights: str,
    overrides: Mapping[str, Any],
    dtype: torch.dtype,
    attention: str,
    *,
    quantization: str | None = None,
    language: Sequence[str] = (),
) -> Any:
    """A vision-language model of transformers, from its weights or with fresh ones.

    Args:
        quantization: None, or ``nf4`` for the linear layers inside the modules that ``language`` names.

    Raises:
        BackboneError: weights are missing or do not fit, an override names nothing, or nothing can be quantised.
    """
    quantized = (
        {} if quantization is None else {"quantization_config": _four_bits(quantization, weights, language, dtype)}
    )
    if weights == "random":
        config = AutoConfig.from_pretrained(path)
        for name, value in overrides.items():
            _override(config, name, value)
        return AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation=_attention(config, attention)
        )
    if weights != "pretrained":
        raise BackboneError(f"weights is {weights!r}; allowed: pretrained, random")
    if overrides:
        raise BackboneError("backbone.overrides changes the architecture and needs backbone.weights=random")
    try:
        attentions = _attention(AutoConfig.from_pretrained(path), attention)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=attentions,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            **quantized,
        )
        model, info = loaded
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise BackboneError(f"cannot load weights from {path!r}: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(problem):
            raise BackboneError(
                f"weights in {path} do not fit its config: {problem} {sorted(map(str, info[problem]))[:5]}"
            )
    if quantized and not any(map(is_quantized, model.parameters())):
        raise BackboneError(
            f"backbone.quantization={quantization} finds no linear layer in the language tower of {path} "
            f"({', '.join(language)}): set backbone.towers.language, or quantization to null"
        )
    for module in model.modules():
        # On CPUs with AVX512-BF16, bitsandbytes would repack weights at the first forward in eval mode, in place: with rounded
        # scales and a product that no gradient flows through, so that training behind it would silently stop short.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def use_liger_layers(model: Any) -> None:
    """Replace norms, rotary embeddings and gated layers by those of liger-kernel, in place; its losses stay out.

    Raises:
        BackboneError: no CUDA device, liger-kernel is not installed or does not know the model.
    """
    if not torch.cuda.is_available():
        raise BackboneError("backbone.liger=true needs a CUDA device: set it to false")
    try:
        from liger_kernel.transformers import monkey_patch  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BackboneError(
            f"backbone.liger=true needs liger-kernel ({error}): pip install liger-kernel, or set it to false"
        ) from error
    kind = model.config.model_type
    if kind not in monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise BackboneError(f"liger-kernel has no layers for models of type {kind}: set backbone.liger to false")
    # Only ``forward`` of the whole model has a loss, and log-probabilities never go through it.
    monkey_patch._apply_liger_kernel_to_instance(model, cross_entropy=False, fused_linear_cross_entropy=False)


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


def _four_bits(quantization: str, weights: str, language: Sequence[str], dtype: torch.dtype) -> BitsAndBytesConfig:
    if quantization != "nf4":
        raise BackboneError(f"backbone.quantization is {quantization!r}; allowed: null, nf4")
    if weights != "pretrained":
        raise BackboneError("backbone.quantization=nf4 needs backbone.weights=pretrained")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BackboneError(
            "backbone.quantization=nf4 needs bitsandbytes: pip install bitsandbytes, or set it to null (it also runs on a CPU)"
        )
    # All modules are left out that are not below a module of the tower; the head is one itself.
    inside = "|".join(re.escape(name) for name in language)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[rf"(?!(?:model\.)?(?:{inside})\.).*"],
    )


def _attention(config: Any, attention: str) -> str | dict[str, str]:
    """Attention of each tower: a language tower that caps its scores has no fused one."""
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return {"": attention, "text_config": "eager"} if capped and attention == "sdpa" else attention


def _override(config: Any, name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        config = getattr(config, parent, None)
    if not hasattr(config, last):
        raise BackboneError(f"the model configuration has no {name!r} (backbone.overrides)")
    setattr(config, last, value)
