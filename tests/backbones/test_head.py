"""The output head: the same numbers as all logits at once, whatever the chunk, and the same gradients."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from spatial_lightning.backbones.head import Readout, _LinearHead, read_out

ROWS, WIDTH, VOCABULARY = 11, 6, 17
CHUNKS = (VOCABULARY, 4 * VOCABULARY, 10**6)


def sample(dtype: torch.dtype = torch.float64) -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY, bias=False, dtype=dtype)
    hidden = torch.randn(ROWS, WIDTH, dtype=dtype, requires_grad=True)
    return head, hidden, torch.randint(VOCABULARY, (ROWS,))


def plain(head: nn.Module, hidden: Tensor, targets: Tensor, softcap: float | None) -> Tensor:
    logits = head(hidden)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_any_chunk_gives_all_logits_and_their_gradients(chunk: int, softcap: float | None) -> None:
    head, hidden, targets = sample()
    weights = torch.randn(ROWS, dtype=torch.float64)
    expected = plain(head, hidden, targets, softcap)
    wanted = torch.autograd.grad((expected * weights).sum(), (hidden, head.weight))
    found = read_out(head, hidden, targets, softcap=softcap, chunk_elements=chunk).logps
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), (hidden, head.weight)), wanted)


def test_gradients_are_those_of_finite_differences() -> None:
    head, hidden, targets = sample()

    def logps(states: Tensor, weight: Tensor) -> Tensor:
        return _LinearHead.apply(states, weight, targets, 2.0, False, 3)[0]

    assert torch.autograd.gradcheck(logps, (hidden, head.weight))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_adapted_heads_go_through_their_module(chunk: int) -> None:
    head, hidden, targets = sample()
    owner = nn.Module()
    owner.lm_head = head
    adapted = inject_adapter_in_model(LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False), owner)
    module = adapted.get_submodule("lm_head")
    parameters = [hidden, *(p for p in module.parameters() if p.requires_grad)]
    assert len(parameters) == 3
    expected = plain(module, hidden, targets, None)
    found = read_out(module, hidden, targets, chunk_elements=chunk).logps
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), parameters), torch.autograd.grad(expected.sum(), parameters)
    )


def test_frozen_heads_and_frozen_states_take_no_gradient() -> None:
    head, hidden, targets = sample()
    head.requires_grad_(False)
    read_out(head, hidden, targets).logps.sum().backward()
    assert head.weight.grad is None
    assert hidden.grad is not None
    head.requires_grad_(True)
    read_out(head, hidden.detach(), targets).logps.sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("bias", [False, True])
def test_entropy_and_agreement(chunk: int, bias: bool) -> None:
    _, hidden, targets = sample()
    head = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=torch.float64)
    logits = head(hidden)
    targets[:4] = logits.argmax(-1)[:4]
    found = read_out(head, hidden, targets, statistics=True, chunk_elements=chunk)
    assert isinstance(found, Readout)
    assert found.entropy is not None
    assert found.top1 is not None
    expected = torch.distributions.Categorical(logits=logits.detach()).entropy()
    torch.testing.assert_close(found.entropy, expected)
    assert found.top1.tolist() == (logits.argmax(-1) == targets).tolist()
    assert not found.entropy.requires_grad
    torch.testing.assert_close(found.logps, plain(head, hidden, targets, None))


def test_lower_precision_is_reduced_in_float32() -> None:
    head, hidden, targets = sample(torch.bfloat16)
    found = read_out(head, hidden, targets, chunk_elements=2 * VOCABULARY).logps
    assert found.dtype == torch.float32
    exact = plain(head.float(), hidden.float(), targets, None)
    torch.testing.assert_close(found, exact, atol=3e-2, rtol=0)


def test_autocast_has_the_gradients_of_autograd_under_autocast() -> None:
    head, hidden, targets = sample(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = read_out(head, hidden, targets, chunk_elements=3 * VOCABULARY).logps
        expected = head(hidden).float().log_softmax(-1)[torch.arange(ROWS), targets]
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(logps.sum(), (hidden, head.weight)) for logps in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)


def test_nothing_to_read_is_nothing() -> None:
    head, hidden, targets = sample()
    found = read_out(head, hidden[:0], targets[:0]).logps
    assert found.shape == (0,)
    found.sum().backward()
