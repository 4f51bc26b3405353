"""Towers: what is frozen, what learns, how fast, and that no rule is silently without effect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from samples import asked

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.backbone import TOWERS
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.backbones.towers import Tower, TowerPlan, format_report
from spatial_lightning.data import Encoder
from spatial_lightning.tree import TreeBatch, pack

FROZEN = Tower("frozen")
PLANS = {
    "full": TowerPlan(),
    "vision frozen": TowerPlan(vision=FROZEN),
    "language only": TowerPlan(vision=FROZEN, projector=FROZEN),
    "projector only": TowerPlan(vision=FROZEN, language=FROZEN),
    "vision only": TowerPlan(projector=FROZEN, language=FROZEN),
    "one block": TowerPlan(vision=FROZEN, modules={"model.visual.blocks.1": "full"}),
    "all but a block": TowerPlan(modules={"model.visual": "frozen", "model.visual.merger": "full"}),
}


@pytest.fixture(scope="module")
def batch(tiny: Backbone, pictures: tuple[Path, ...]) -> TreeBatch:
    return pack([Encoder(tiny.processor).questions(asked("a", pictures[:1], 2))])


def test_every_parameter_belongs_to_one_tower(tiny: Backbone) -> None:
    names = [{name for name, _ in tiny.tower_parameters(tower)} for tower in TOWERS]
    assert all(names)
    assert sum(map(len, names)) == len(set.union(*names)) == len(list(tiny.model.parameters()))
    assert tiny.tower_of("model.visual.merger.mlp.0.weight") == "projector"
    assert tiny.tower_of("model.visual.blocks.0.norm1.weight") == "vision"
    with pytest.raises(BackboneError, match="belongs to no tower"):
        tiny.tower_of("model.other.weight")


def test_towers_that_are_not_there_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(BackboneError, match="matches the vision tower"):
        Backbone(tiny_folder, weights="random", towers={"vision": ["eyes"], "language": ["language_model"]})


@pytest.mark.parametrize("name", PLANS)
def test_one_step_moves_what_is_trained_and_nothing_else(policy: Backbone, batch: TreeBatch, name: str) -> None:
    plan = PLANS[name]
    report = plan.apply(policy)
    before = {key: value.clone() for key, value in policy.model.named_parameters()}
    optimizer = torch.optim.SGD(plan.parameter_groups(policy, lr=0.1, weight_decay=0.0))
    (-policy.logps(batch).mean()).backward()
    optimizer.step()
    for key, value in policy.model.named_parameters():
        assert (value.grad is not None) == value.requires_grad
        moved = not torch.equal(value, before[key])
        # Keys' biases shift all scores of a query alike and get no gradient but rounding.
        assert moved == value.requires_grad or (key.endswith("bias") and not moved), key
    for row in report:
        trained = sum(p.numel() for _, p in policy.tower_parameters(row.tower) if p.requires_grad)
        assert (row.trained, row.parameters) == (trained, sum(p.numel() for _, p in policy.tower_parameters(row.tower)))
        assert f"{row.trained:,}" in format_report(report)


def test_a_frozen_vision_tower_builds_no_graph(policy: Backbone, batch: TreeBatch) -> None:
    outputs: dict[str, torch.Tensor] = {}

    def note(name: str) -> Callable:
        return lambda _module, _inputs, output: outputs.__setitem__(name, output)

    policy.model.model.visual.blocks[-1].register_forward_hook(note("vision"))
    policy.model.model.visual.merger.register_forward_hook(note("projector"))
    PLANS["vision frozen"].apply(policy)
    policy.train().logps(batch)
    assert outputs["vision"].grad_fn is None
    assert outputs["projector"].grad_fn is not None
    PLANS["language only"].apply(policy)
    policy.logps(batch)
    assert outputs["projector"].grad_fn is None


def test_groups_hold_each_trained_weight_once_at_its_towers_rate(policy: Backbone) -> None:
    plan = TowerPlan(vision=Tower(lr=1e-6), projector=Tower(lr=1e-3))
    plan.apply(policy)
    groups = plan.parameter_groups(policy, lr=1e-4, weight_decay=0.1)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in policy.model.parameters())
    rates = {"vision": 1e-6, "projector": 1e-3, "language": 1e-4}
    for tower, rate in rates.items():
        owned = {id(p) for _, p in policy.tower_parameters(tower)}
        mine = [group for group in groups if group["name"].startswith(tower)]
        assert {id(p) for group in mine for p in group["params"]} == owned
        assert {group["lr"] for group in mine} == {rate}
    embedding = policy.model.get_input_embeddings().weight
    for group in groups:
        decays = all(p.ndim > 1 and p is not embedding for p in group["params"])
        assert group["weight_decay"] == (0.1 if decays else 0.0)
        assert decays != group["name"].endswith("_no_decay")


def test_rules_without_effect_are_refused(policy: Backbone) -> None:
    with pytest.raises(BackboneError, match=r"'model\.visual\.blocks\.9' matches no parameter"):
        TowerPlan(modules={"model.visual.blocks.9": "frozen"}).apply(policy)
    with pytest.raises(BackboneError, match="every tower is frozen"):
        TowerPlan(FROZEN, FROZEN, FROZEN).apply(policy)
    with pytest.raises(BackboneError, match="frozen tower has no learning rate"):
        Tower("frozen", lr=1e-4)
    with pytest.raises(BackboneError, match="must be above 0"):
        Tower(lr=0.0)
    with pytest.raises(BackboneError, match="allowed: full, frozen"):
        Tower("half")  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match="allowed: full, frozen"):
        TowerPlan(modules={"lm_head": "cold"})
