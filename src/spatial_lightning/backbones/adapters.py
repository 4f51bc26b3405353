"""LoRA adapters (arXiv:2106.09685): put into modules by their exact names, switched off for a block, merged for export."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from spatial_lightning.backbones.processor import BackboneError

ALL_LINEAR = "all-linear"


def find_targets(
    wanted: str | Iterable[str], inside: Mapping[str, nn.Module], elsewhere: Mapping[str, str], model: Any
) -> list[str]:
    """Paths of the linear modules that get an adapter.

    Args:
        wanted: ``all-linear``, all of them but the output head, or the ends of module paths.
        inside: the modules by path among which to look.
        elsewhere: for every other module, in words where it lies.

    Raises:
        BackboneError: a target matches nothing, a module that is not linear, or a head that shares its weight.
    """
    head = model.get_output_embeddings()
    linear = {name: module for name, module in inside.items() if _is_linear(module)}
    if wanted == ALL_LINEAR:
        found = [name for name, module in linear.items() if module is not head]
        if not found:
            raise BackboneError("there is no linear module")
        return found
    endings = Counter(name.rsplit(".", 1)[-1] for name in linear)
    hint = f"linear modules there end with {', '.join(ending for ending, _ in endings.most_common(12)) or 'nothing'}"
    found = []
    for target in wanted:
        matches = [name for name in inside if _ends_with(name, target)]
        if not matches:
            places = sorted({place for name, place in elsewhere.items() if _ends_with(name, target)})
            where = f"it lies in {'; and in '.join(places)}: set that to lora and name it there" if places else hint
            raise BackboneError(f"{target!r} matches no module of the tower; {where}")
        for name in matches:
            if name not in linear:
                kind = type(inside[name]).__name__
                raise BackboneError(f"{target!r} reaches {name}, a {kind}, and LoRA adapts linear modules only; {hint}")
            if inside[name] is head and head.weight is model.get_input_embeddings().weight:
                raise BackboneError(
                    f"{target!r} is the output head, which shares its weight with the embeddings, so an adapter on it "
                    "could not be merged: leave it out"
                )
        found += matches
    return sorted(set(found))


def plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules with their paths as if there were no adapters."""
    for name, module in model.named_modules():
        if not is_adapter(name) and not isinstance(module, LoraLayer):
            yield name.removesuffix(".base_layer"), module


def attach(
    model: nn.Module,
    adapter: str,
    modules: Sequence[str],
    *,
    rank: int,
    alpha: float,
    dropout: float,
    rslora: bool,
    dora: bool,
) -> None:
    """Put a fresh adapter, which changes no output yet, into the linear modules of these paths.

    Args:
        adapter: name of the adapter, a part of its parameters' names.
        dropout: share of the adapter's inputs that is left out in training, in [0, 1).
        rslora: scale by alpha over the root of the rank (arXiv:2312.03732).
        dora: learn each output's magnitude apart from its direction (arXiv:2402.09353).
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=dropout,
        use_rslora=rslora,
        use_dora=dora,
        target_modules="|".join(map(re.escape, modules)),
    )
    inject_adapter_in_model(config, model, adapter_name=adapter)  # pyright: ignore[reportArgumentType]
    # peft makes the newest adapter the only active one everywhere, so those of other towers would do nothing.
    for layer in _layers(model).values():
        layer.set_adapter(list(layer.lora_A))
    # Left in place, it has peft warn of the next tower's adapter.
    del model.peft_config


def is_adapter(name: str) -> bool:
    """Whether a parameter, by its name in the model, belongs to an adapter."""
    return ".lora_" in name


def plain_name(name: str) -> str:
    """The name that a parameter has in the model without adapters."""
    return name.replace(".base_layer.", ".")


def is_quantized(parameter: Tensor) -> bool:
    """Whether the values are codes of bitsandbytes, which take no gradient."""
    return getattr(parameter, "quant_state", None) is not None


def values(parameter: Tensor) -> int:
    """How many weights a parameter holds; a quantised one packs two into a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Run the weights beneath the adapters."""
    layers = list(_layers(model).values())
    # peft's own switch also clears requires_grad, which a sharded model reads when it first gathers a weight.
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add the adapters to the weights beneath them and remove them; log-probabilities stay.

    Raises:
        BackboneError: the weights beneath are quantised, which would round the sum.
    """
    layers = _layers(model)
    if any(is_quantized(layer.get_base_layer().weight) for layer in layers.values()):  # pyright: ignore[reportArgumentType]
        raise BackboneError(
            "adapters cannot be merged into quantised weights without rounding: export the model and load the export"
        )
    for name, layer in layers.items():
        base = layer.get_base_layer()
        base.weight.copy_(_merged_weight(layer))  # pyright: ignore[reportCallIssue]
        model.set_submodule(name, base)


@torch.no_grad()
def plain_twin(model: Any) -> Any:
    """The stock model with adapters merged and weights dequantised, which only serves to be saved; the model stays.

    Merged weights lie in main memory, all others are shared with the model; buffers that are never saved hold nothing.
    """
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        twin = type(model)(config)
    state = {plain_name(name): tensor for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            state[f"{name}.weight"] = _merged_weight(module).cpu()
        elif isinstance(module, nn.Linear) and is_quantized(module.weight) and not name.endswith(".base_layer"):
            state[f"{name}.weight"] = dequantize_module_weight(module).to(model.dtype).cpu()
    twin.load_state_dict({name: state[name] for name in twin.state_dict()}, assign=True)
    twin.tie_weights()
    twin.generation_config = model.generation_config
    return twin


def _layers(model: nn.Module) -> dict[str, LoraLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _merged_weight(layer: Any) -> Float[Tensor, "out in"]:
    """The weight that does what the layer does, summed in float32."""
    base = layer.get_base_layer()
    plain = dequantize_module_weight(base)
    weight = plain.float()
    for adapter in layer.lora_A:
        low, high = layer.lora_A[adapter].weight.float(), layer.lora_B[adapter].weight.float()
        weight = weight + layer.scaling[adapter] * (high @ low)
        if adapter in layer.lora_magnitude_vector:
            magnitude = layer.lora_magnitude_vector[adapter].weight.float().unsqueeze(1)
            weight = magnitude * weight / weight.norm(dim=1, keepdim=True)
    return weight.to(plain.dtype)


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _is_linear(module: nn.Module) -> bool:
    # The output projection of torch's own attention is never called, so an adapter on it would do nothing.
    return isinstance(module, nn.Linear) and type(module).__name__ != "NonDynamicallyQuantizableLinear"
