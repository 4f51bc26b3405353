"""The optimizers: which parameter is moved how, and that a saved state goes on as if nothing had happened."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spatial_lightning.modules import Optimization
from spatial_lightning.modules.optimization import Muon

SETTINGS = Optimization(optimizer="muon", lr=1e-2, weight_decay=0.1)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 4), nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2))


def groups(network: nn.Module, decay: float = 0.1) -> list[dict[str, Any]]:
    embedding, weight, bias, kernel, offset = network.parameters()
    return [
        {"params": [weight, kernel], "lr": 1e-2, "weight_decay": decay, "decays": True, "name": "language"},
        {"params": [embedding, bias, offset], "lr": 2e-2, "weight_decay": 0.0, "decays": False, "name": "no_decay"},
    ]


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        network(torch.tensor([0, 2, 4])).square().sum().backward()
        optimizer.step()


def test_matrices_take_the_step_of_muon_and_the_rest_that_of_adamw() -> None:
    both, adamw, muon = model(), model(), model()
    steps(both, SETTINGS.build(groups(both), fused=False), 1)
    for twin, build, wanted in ((adamw, torch.optim.AdamW, False), (muon, torch.optim.Muon, True)):
        matrix = list(twin.parameters())[1]
        kept = [{**group, "params": [p for p in group["params"] if (p is matrix) is wanted]} for group in groups(twin)]
        options: dict[str, Any] = {"adjust_lr_fn": "match_rms_adamw"} if wanted else {"betas": SETTINGS.betas}
        steps(twin, build([group for group in kept if group["params"]], **options), 1)
    expected = [muon if index == 1 else adamw for index in range(5)]
    for index, (parameter, twin) in enumerate(zip(both.parameters(), expected, strict=True)):
        assert torch.equal(parameter, list(twin.parameters())[index])
        assert not torch.equal(parameter, list(model().parameters())[index])


def test_a_loaded_state_goes_on_where_it_was_saved() -> None:
    straight, parted = model(), model()
    whole = SETTINGS.build(groups(straight), fused=False)
    steps(straight, whole, 4)
    first = SETTINGS.build(groups(parted), fused=False)
    steps(parted, first, 2)
    second = SETTINGS.build(groups(parted), fused=False)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(parted, second, 2)
    ends: list[tuple[Tensor, Tensor]] = list(zip(straight.parameters(), parted.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in ends)


def test_a_schedule_moves_the_rates_of_both_kinds() -> None:
    network = model()
    optimizer = SETTINGS.build(groups(network), fused=False)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [parameter.detach().clone() for parameter in network.parameters()]
    steps(network, optimizer, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_only_matrices_of_groups_that_decay_are_muons() -> None:
    network = model()
    optimizer = Muon(groups(network, decay=0.0), lr=1e-2, betas=(0.9, 0.99))
    shapes = {group["matrices"]: [tuple(p.shape) for p in group["params"]] for group in optimizer.param_groups[:1]}
    assert shapes == {True: [(4, 6)]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_moments_of_a_byte_move_weights_as_adamw_does_and_can_be_saved() -> None:
    settings = Optimization(optimizer="adamw_8bit", lr=1e-3, weight_decay=0.0)
    torch.manual_seed(0)
    inputs = torch.randn(256, 64)
    wanted = inputs @ torch.randn(64, 64) / 8

    def trained(settings: Optimization, parts: tuple[int, ...]) -> tuple[list[float], nn.Linear, Any]:
        torch.manual_seed(1)
        network, losses, state, optimizer = nn.Linear(64, 64, bias=False), [], None, None
        for count in parts:
            groups = [{"params": [network.weight], "lr": 1e-2, "weight_decay": 0.0, "decays": True, "name": "language"}]
            optimizer = settings.build(groups, fused=False)
            if state is not None:
                optimizer.load_state_dict(state)
            for _ in range(count):
                optimizer.zero_grad()
                loss = (network(inputs) - wanted).square().mean()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            state = copy.deepcopy(optimizer.state_dict())
        return losses, network, optimizer

    exact, _, _ = trained(replace(settings, optimizer="adamw"), (60,))
    losses, network, optimizer = trained(settings, (60,))
    parted, twin, _ = trained(settings, (30, 30))
    moments = [optimizer.state[network.weight][name] for name in ("state1", "state2")]
    assert [moment.dtype for moment in moments] == [torch.uint8] * 2
    assert losses[-1] < 0.05 * losses[0]
    assert losses[-1] == pytest.approx(exact[-1], rel=0.3)
    assert parted == losses
    assert torch.equal(twin.weight, network.weight)


def test_an_optimizer_that_is_not_installed_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="adamw_8bit needs bitsandbytes: pip install bitsandbytes"):
        Optimization(optimizer="adamw_8bit")


def test_unknown_optimizers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"optimization\.optimizer is 'adam'; allowed: adamw, adamw_8bit, muon"):
        Optimization(optimizer="adam")  # type: ignore[arg-type]
