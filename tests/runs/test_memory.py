"""The memory plan: what it counts is what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from samples import asked
from small_runs import small
from transformers.modeling_layers import GradientCheckpointingLayer

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import Tower, TowerPlan
from spatial_lightning.data import Encoder
from spatial_lightning.modules import Optimization, SFTModule
from spatial_lightning.runs.config import compose_run
from spatial_lightning.runs.memory import MemoryReport, OutOfMemory, measure_activations, plan_memory
from spatial_lightning.runs.training import train
from spatial_lightning.tree import TreeBatch, pack


@pytest.fixture(scope="module")
def rows(tiny: Backbone, pictures: tuple[Path, ...]) -> tuple[TreeBatch, TreeBatch]:
    """One tree, and six of the same kind in a row."""
    encoder = Encoder(tiny.processor)
    trees = [encoder.questions(asked(str(index), pictures[:1], 6)) for index in range(6)]
    return pack(trees[:1]), pack(trees)


def test_activations_grow_with_the_tokens(policy: Backbone, rows: tuple[TreeBatch, TreeBatch]) -> None:
    one, six = (measure_activations(policy, row).kept for row in rows)
    assert six == pytest.approx(6 * one, rel=0.1)
    # At least every layer's normed input, queries, keys, values and the three products of its gated unit.
    text = policy.model.config.text_config
    least = text.num_hidden_layers * (4 * text.hidden_size + 3 * text.intermediate_size) * 4 * rows[1].tokens
    assert least < six < 10 * least


def test_frozen_towers_keep_less(policy: Backbone, rows: tuple[TreeBatch, TreeBatch]) -> None:
    everything = measure_activations(policy, rows[0]).kept
    TowerPlan(vision=Tower("frozen"), projector=Tower("frozen")).apply(policy)
    assert measure_activations(policy, rows[0]).kept < 0.9 * everything


def test_checkpointed_layers_keep_their_input(policy: Backbone, rows: tuple[TreeBatch, TreeBatch]) -> None:
    policy.train()
    everything = measure_activations(policy, rows[0])
    layers = [m for m in policy.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing = True
    found = measure_activations(policy, rows[0])
    assert found.largest_layer == everything.largest_layer > 0
    assert found.kept < 0.5 * everything.kept
    assert all(layer.gradient_checkpointing for layer in layers)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_gradients_and_states_are_counted_to_the_byte(
    policy: Backbone, rows: tuple[TreeBatch, TreeBatch], optimizer: str
) -> None:
    settings = Optimization(optimizer=optimizer)  # type: ignore[arg-type]
    module = SFTModule(policy, towers=TowerPlan(vision=Tower("frozen")), optimization=settings)
    groups = module.towers.parameter_groups(policy, lr=settings.lr, weight_decay=settings.weight_decay)
    built = settings.build(groups, fused=False)
    plan = plan_memory(module, *rows, groups=built.param_groups, reference_copy=True)
    policy.logps(rows[0]).sum().backward()
    built.step()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    states = [
        value for state in built.state.values() for value in state.values() if torch.is_tensor(value) and value.ndim
    ]
    assert plan.gradients == sum(g.numel() * 4 for g in gradients)
    assert plan.optimizer == sum(state.numel() * 4 for state in states)
    assert plan.weights == plan.reference
    assert (
        plan.total
        == sum((plan.weights, plan.reference, plan.gradients, plan.optimizer)) + plan.activations + plan.working
    )
    assert str(plan).startswith(f"{plan.total / 2**20:.1f} MiB: weights ")


def test_the_plan_leaves_everything_as_it_was(policy: Backbone, rows: tuple[TreeBatch, TreeBatch]) -> None:
    before, state = policy.logps(rows[0]), torch.random.get_rng_state()
    measure_activations(policy, rows[0])
    assert torch.equal(policy.logps(rows[0]), before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(layer._forward_hooks for layer in policy.modules() if isinstance(layer, GradientCheckpointingLayer))


def test_a_failed_allocation_is_explained() -> None:
    report = MemoryReport(print)
    message = r"out of memory \(tried\); no plan had been made yet.*checkpointing=true.*token_budget.*adamw_8bit"
    with pytest.raises(OutOfMemory, match=message), report.explaining():
        raise torch.OutOfMemoryError("tried\nmore")
    with pytest.raises(OutOfMemory), report.explaining():
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="another reason"), report.explaining():
        raise RuntimeError("another reason")


def test_a_plan_past_what_there_is_comes_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for free, warned in ((1, True), (2**40, False)):
        monkeypatch.setattr("spatial_lightning.runs.memory._free", lambda free=free: free)
        train(compose_run(small(tmp_path, "+experiment=fdpo_vit_unfrozen")), tmp_path / str(free))
        printed = capsys.readouterr().out
        assert "memory plan for rows" in printed
        assert ("there are. What helps, the strongest first: towers.language.checkpointing=true" in printed) == warned
