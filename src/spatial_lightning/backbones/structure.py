"""How a model of transformers is made up: its towers, the modules that never learn, and what it does to its logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from spatial_lightning.backbones.composing import BackboneError

TOWERS = ("vision", "projector", "language")
KNOWN_TOWERS: dict[str, tuple[str, ...]] = {
    "projector": (
        "visual.merger",
        "visual.deepstack_merger_list",
        "connector",
        "multi_modal_projector",
        "image_newline",
        "embed_vision",
    ),
    "vision": ("visual", "vision_tower", "vision_model"),
    "language": ("language_model", "text_model", "lm_head"),
}


def find_towers(model: Any, rules: Mapping[str, Sequence[str]], path: str) -> dict[str, tuple[str, ...]]:
    """Module paths of each tower.

    Raises:
        BackboneError: a tower has no module, or a parameter belongs to none.
    """
    names = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    found: dict[str, tuple[str, ...]] = {}
    for tower in TOWERS:
        wanted = rules.get(tower, ())
        matches = tuple(m for rule in wanted for m in (rule, f"model.{rule}") if m in names)
        if not matches:
            raise BackboneError(
                f"no module of {path} matches the {tower} tower (looked for {', '.join(wanted) or 'nothing'}); "
                f"set backbone.towers.{tower} to module paths of the model"
            )
        found[tower] = matches
    for name, _ in model.named_parameters():
        owner(found, name, path)
    return found


def owner(towers: Mapping[str, Sequence[str]], name: str, path: str) -> str:
    """The tower that a parameter or module belongs to; the longest matching module path decides.

    Raises:
        BackboneError: it belongs to none.
    """
    matches = [
        (len(prefix), tower)
        for tower, prefixes in towers.items()
        for prefix in prefixes
        if name == prefix or name.startswith(prefix + ".")
    ]
    if not matches:
        raise BackboneError(
            f"{name} of {path} belongs to no tower; name its module in backbone.towers ({', '.join(TOWERS)})"
        )
    return max(matches)[1]


def find_dead(model: Any, names: Sequence[str], path: str) -> tuple[str, ...]:
    """Full paths of the modules that are named as dead, entries counted from the end of a list resolved.

    Raises:
        BackboneError: a name matches no module.
    """
    return tuple(_resolve(model, name, path) for name in names)


def _resolve(model: Any, name: str, path: str) -> str:
    node, parts = model, []
    for part in name.split("."):
        if part.startswith("-") and part[1:].isdigit() and hasattr(node, "__len__"):
            part = str(len(node) + int(part))
        node = getattr(node, part, None)
        if node is None:
            here = ".".join(parts) or "the model"
            raise BackboneError(f"backbone.dead names {name!r}, and {here} of {path} has no {part!r}")
        parts.append(part)
    return ".".join(parts)


@torch.no_grad()
def logit_softcap(model: Any, path: str) -> float | None:
    """The bound that the stock forward puts on logits, found by comparison: some families carry one and do not use it.

    Raises:
        BackboneError: the stock forward changes logits in another way.
    """
    settings = model.config.get_text_config().to_dict()
    if not any(value not in (None, 0, 1) for name, value in settings.items() if "logit" in name and "attn" not in name):
        return None
    head = model.get_output_embeddings()
    weight = next(head.parameters())
    hidden = torch.linspace(-4, 4, head.in_features, device=weight.device, dtype=model.dtype).view(1, 1, -1)
    with _decoder_says(model, hidden):
        stock = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=weight.device), use_cache=False).logits
    plain, cap = head(hidden), settings.get("final_logit_softcapping")
    for softcap in (None, cap) if cap else (None,):
        expected = plain if softcap is None else softcap * torch.tanh(plain / softcap)
        if torch.allclose(stock, expected, rtol=1e-4, atol=1e-5):
            return softcap
    raise BackboneError(
        f"the stock forward of {path} ({type(model).__name__}) changes the logits of its head in a way that is not known here"
    )


@contextmanager
def _decoder_says(model: Any, hidden: Tensor) -> Iterator[None]:
    """Let the model beneath the head answer with given hidden states."""

    class Output:
        last_hidden_state = hidden

        def __getitem__(self, _: Any) -> Tensor:
            return hidden

        def __getattr__(self, _: str) -> None:
            return None

    before = model.model.forward
    model.model.forward = lambda *_, **__: Output()
    try:
        yield
    finally:
        del model.model.forward
        assert model.model.forward == before
