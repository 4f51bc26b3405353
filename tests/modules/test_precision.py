"""Half precision: the scale of the loss reaches neither clipping nor the update, and an overflow costs one step."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import fit_rows
from lightning.pytorch.plugins import MixedPrecision
from samples import asked, relative
from torch import Tensor

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import Tower, TowerPlan
from spatial_lightning.data import Encoder
from spatial_lightning.modules import NonFiniteLossError, SFTModule
from spatial_lightning.modules.optimization import Optimization
from spatial_lightning.tree import TokenTree, pack

SCALE = 2.0**12


class Descent(Optimization):
    """Plain gradient descent, whose update shows the size of the gradient, which AdamW's does not."""

    def build(self, groups: Sequence[dict[str, Any]], *, fused: bool) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, lr=self.lr, fused=fused)


def half() -> dict[str, Any]:
    """What ``trainer.precision=16-mixed`` is on a GPU; on a CPU Lightning makes it bfloat16 unless given outright."""
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=SCALE))]}


@pytest.fixture(scope="module")
def trees(tiny: Backbone, pictures: tuple[Path, ...]) -> list[TokenTree]:
    encoder = Encoder(tiny.processor)
    return [encoder.questions(asked(str(i), pictures[i : i + 1], 2)) for i in range(2)]


def module(backbone: Backbone, kind: type[Optimization], **settings: Any) -> SFTModule:
    optimization = kind(weight_decay=0.0, warmup=0.0, **settings)
    return SFTModule(backbone, towers=TowerPlan(vision=Tower("frozen")), optimization=optimization)


def movement(backbone: Backbone, before: Backbone) -> Tensor:
    pairs = zip(backbone.parameters(), before.parameters(), strict=True)
    return torch.cat([(value - start).detach().flatten() for value, start in pairs])


@pytest.mark.parametrize("limit", [0.05, None])
@pytest.mark.parametrize("fused", [True, False])
def test_half_precision_takes_the_step_of_full_precision(
    policy: Backbone,
    trees: list[TokenTree],
    tmp_path: Path,
    limit: float | None,
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not fused:  # as an optimizer without a fused kernel is built
        monkeypatch.setattr(SFTModule, "_can_fuse", lambda _: False)
    seen = {}
    for name, options in (("full", {}), ("half", half())):
        backbone = copy.deepcopy(policy)
        tuner = module(backbone, Descent, lr=1e-2, max_grad_norm=limit)
        watch = fit_rows(tuner, [[pack([tree]) for tree in trees]], tmp_path, **options)
        seen[name] = (movement(backbone, policy), watch.metrics[0])
    (full, exact), (rounded, metrics) = seen["full"], seen["half"]
    assert 1e-7 < relative(rounded, full) < 0.03
    assert metrics["train/gradient_norm"] == pytest.approx(exact["train/gradient_norm"], rel=0.03)
    assert metrics["train/loss"] == pytest.approx(exact["train/loss"], rel=1e-3)
    assert metrics["train/loss_scale"] == SCALE
    if limit is not None:
        assert exact["train/gradient_norm"] > 2 * limit
        assert float(full.norm()) == pytest.approx(1e-2 * limit, rel=1e-3)


def test_a_step_that_overflows_is_left_out_and_the_next_one_taken(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path
) -> None:
    calls = []

    def overflow_once(gradient: Tensor) -> Tensor:
        calls.append(1)
        return gradient * math.inf if len(calls) == 1 else gradient

    policy.decoder.norm.weight.register_hook(overflow_once)
    states, rates = [], []
    tuner = module(policy, Optimization, lr=1e-3, schedule="linear")

    def note(*_: Any) -> None:
        states.append(policy.decoder.norm.weight.detach().clone())
        rates.append(tuner.trainer.optimizers[0].param_groups[0]["lr"])

    tuner.on_train_batch_end = note  # type: ignore[method-assign]
    first = policy.decoder.norm.weight.detach().clone()
    watch = fit_rows(tuner, [[pack(trees)]] * 3, tmp_path, **half())
    assert torch.equal(states[0], first)
    assert not torch.equal(states[1], first)
    assert all(bool(value.isfinite().all()) for value in policy.parameters())
    assert [metrics["train/loss_scale"] for metrics in watch.metrics] == [SCALE, SCALE / 2, SCALE / 2]
    assert rates == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])


def test_a_step_without_examples_is_left_out(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    before = copy.deepcopy(policy.state_dict())
    tuner = module(policy, Optimization, lr=1e-3)
    fit_rows(tuner, [[]], tmp_path, **half())
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_a_loss_that_is_no_number_still_names_the_batch(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path
) -> None:
    policy.decoder.norm.register_forward_hook(lambda _m, _i, states: states * math.nan)
    with pytest.raises(NonFiniteLossError, match="loss is nan at step 0 in a batch of 2 examples"):
        fit_rows(module(policy, Optimization, lr=1e-3), [[pack(trees)]], tmp_path, **half())
