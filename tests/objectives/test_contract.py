"""The names, arguments and tensor shapes of the objectives that the rest of the package and its users rely on."""

import inspect
from dataclasses import dataclass, field

import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from spatial_lightning import objectives

PAIRS = ["policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected"]


@dataclass
class Contract:
    """Positional arguments with their shapes (P pairs or responses, S segments), keywords with values, result shape."""

    positional: dict[str, str]
    keywords: dict[str, float]
    result: str
    defaults: dict[str, object] = field(default_factory=dict)


CONTRACTS = {
    "preference_loss": Contract(
        dict.fromkeys(PAIRS, "P"),
        {},
        "P",
        {"kind": "sigmoid", "beta": 0.1, "label_smoothing": 0.0, "chosen_tokens": None, "rejected_tokens": None},
    ),
    "segment_betas": Contract({"reward_gap": "PS"}, {"beta": 0.1, "alpha": 0.3, "lam": 0.6}, "PS"),
    "fdpo_loss": Contract(
        dict.fromkeys([*PAIRS, "reward_gap"], "PS"),
        {"beta": 0.1, "alpha": 0.3, "lam": 0.6},
        "P",
        {"label_smoothing": 0.0},
    ),
    "weighted_nll": Contract({"logps": "P", "weights": "P"}, {"denominator": 3.0}, ""),
    "advantage_weights": Contract({"advantages": "PS"}, {"temperature": 0.5, "max_weight": 20.0}, "PS"),
    "expectile_loss": Contract({"error": "PS"}, {"tau": 0.7}, "PS"),
    "kto_loss": Contract(
        {"policy": "P", "reference": "P", "desirable": "P", "kl": ""},
        {"beta": 0.1},
        "P",
        {"desirable_weight": 1.0, "undesirable_weight": 1.0},
    ),
}


def arguments(contract: Contract, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"": (), "P": (3,), "PS": (3, 2)}
    values = {name: torch.rand(shapes[shape], generator=generator) for name, shape in contract.positional.items()}
    return [value > 0.5 if name == "desirable" else value.to(dtype) for name, value in values.items()]


@pytest.mark.parametrize("name", CONTRACTS)
def test_signature(name):
    contract = CONTRACTS[name]
    parameters = inspect.signature(getattr(objectives, name)).parameters
    kinds = inspect.Parameter
    positional = [key for key, value in parameters.items() if value.kind is kinds.POSITIONAL_OR_KEYWORD]
    keywords = {key: value.default for key, value in parameters.items() if value.kind is kinds.KEYWORD_ONLY}
    assert positional == list(contract.positional)
    assert keywords == {key: kinds.empty for key in contract.keywords} | contract.defaults
    assert name in objectives.__all__


@pytest.mark.parametrize("name", CONTRACTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_shapes_and_precision(name, dtype):
    contract = CONTRACTS[name]
    checked = jaxtyped(typechecker=beartype)(getattr(objectives, name))
    result = checked(*arguments(contract, dtype), **contract.keywords)
    assert tuple(result.shape) == {"": (), "P": (3,), "PS": (3, 2)}[contract.result]
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_annotations_reject_a_wrong_shape():
    checked = jaxtyped(typechecker=beartype)(objectives.preference_loss)
    with pytest.raises(TypeCheckError):
        checked(*(torch.zeros(3, 2) for _ in PAIRS))


def test_everything_exported_exists_and_is_listed_in_order():
    assert objectives.__all__ == sorted(objectives.__all__)
    assert all(hasattr(objectives, name) for name in objectives.__all__)
