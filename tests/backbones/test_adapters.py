"""Adapters: where they go, what moves, that they merge into what stock transformers runs, in full and in four bits."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import asked, gradient_error, relative, weighted_gradient
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from spatial_lightning.backbones import Backbone, adapters
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.backbones.reference import AdapterOff, CachedReference, FrozenCopy
from spatial_lightning.backbones.towers import Tower, TowerPlan, format_report
from spatial_lightning.data import Encoder
from spatial_lightning.tree import TreeBatch, pack

TOLERANCE = 1e-5
FROZEN, LORA = Tower("frozen"), Tower("lora", rank=4, alpha=8)
LANGUAGE = TowerPlan(FROZEN, FROZEN, LORA)
PLANS = {
    "language": LANGUAGE,
    "vision": TowerPlan(LORA, FROZEN, FROZEN),
    "all three": TowerPlan(LORA, replace(LORA, rank=2), replace(LORA, rank=8)),
    "language, vision full": TowerPlan(Tower(), Tower(), LORA),
    "rsLoRA": TowerPlan(FROZEN, FROZEN, replace(LORA, rslora=True)),
    "DoRA": TowerPlan(FROZEN, FROZEN, replace(LORA, dora=True)),
    "some": TowerPlan(FROZEN, FROZEN, replace(LORA, targets=["q_proj", "mlp.down_proj"])),
}

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.fixture(scope="module")
def batch(tiny: Backbone, pictures: tuple[Path, ...]) -> TreeBatch:
    encoder = Encoder(tiny.processor)
    return pack([encoder.questions(asked(str(i), pictures[i : i + 1], 2 + i)) for i in range(2)], keys=True)


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> TowerPlan:
    return PLANS[request.param]


def step(backbone: Backbone, plan: TowerPlan, batch: TreeBatch, count: int = 3) -> None:
    """Move what the plan trains, far enough for errors to show."""
    optimizer = torch.optim.AdamW(plan.parameter_groups(backbone, lr=0.02, weight_decay=0.0))
    for _ in range(count):
        optimizer.zero_grad()
        (-backbone.logps(batch).mean()).backward()
        optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def says(backbone: Backbone, batch: TreeBatch) -> Tensor:
    return backbone.logps(batch)


def test_a_fresh_adapter_changes_nothing_and_both_engines_agree(
    tiny: Backbone, policy: Backbone, batch: TreeBatch, plan: TowerPlan
) -> None:
    plan.apply(policy)
    assert relative(says(policy, batch), says(tiny, batch)) <= 1e-6
    step(policy, plan, batch)
    assert relative(says(policy, batch), says(tiny, batch)) > 1e-3
    logps = policy.logps(batch)
    gradient = weighted_gradient(policy, logps)
    with policy.running("separate"):
        expected = policy.logps(batch)
        assert relative(logps.detach(), expected.detach()) <= TOLERANCE
        assert gradient_error(gradient, weighted_gradient(policy, expected)) <= TOLERANCE


def test_only_adapters_of_lora_towers_move(policy: Backbone, batch: TreeBatch, plan: TowerPlan) -> None:
    report = {row.tower: row for row in plan.apply(policy)}
    before = {name: value.clone() for name, value in policy.model.named_parameters()}
    step(policy, plan, batch)
    moved = {name for name, value in policy.model.named_parameters() if not torch.equal(value, before[name])}
    for name in before:
        mode = getattr(plan, policy.tower_of(name)).mode
        if mode == "frozen" or (mode == "lora" and not adapters.is_adapter(name)):
            assert name not in moved
    for name, _ in policy.adapter_parameters():
        assert name in moved, name
    for tower, row in report.items():
        mode = getattr(plan, tower).mode
        assert bool(row.adapted) == (mode == "lora")
        assert all(policy.tower_of(name) == tower for name in row.adapted)
        assert all(isinstance(policy.model.get_submodule(name), adapters.LoraLayer) for name in row.adapted)
        trained = [value.numel() for _, value in policy.tower_parameters(tower) if value.requires_grad]
        assert row.trained == sum(trained)
        assert (row.trained > 0) == (mode != "frozen")
    assert policy.model.get_output_embeddings().__class__ is nn.Linear
    assert "LoRA in" in format_report(list(report.values()))


def test_targets_choose_modules_inside_the_tower_only(policy: Backbone) -> None:
    report = PLANS["some"].apply(policy)
    layers = range(len(policy.decoder.layers))
    wanted = [f"model.language_model.layers.{i}.{end}" for i in layers for end in ("mlp.down_proj", "self_attn.q_proj")]
    assert sorted(report[2].adapted) == sorted(wanted)
    assert "4 q_proj" in format_report(report)
    assert "4 down_proj" in format_report(report)


def test_a_rule_for_a_module_keeps_adapters_out(policy: Backbone, batch: TreeBatch) -> None:
    first = "model.language_model.layers.0"
    plan = TowerPlan(FROZEN, FROZEN, LORA, modules={first: "full"})
    report = plan.apply(policy)
    assert report[2].adapted
    assert not any(name.startswith(first + ".") for name in report[2].adapted)
    assert all(value.requires_grad for name, value in policy.model.named_parameters() if name.startswith(first + "."))


def test_an_adapter_stands_for_the_sum_that_its_paper_gives(policy: Backbone, batch: TreeBatch) -> None:
    """Against W + alpha / r B A (arXiv:2106.09685 Eq. 3), alpha / sqrt(r) and m (W + BA) / |W + BA| per row."""
    name = "model.language_model.layers.1.mlp.up_proj"
    hidden = torch.randn(5, policy.model.get_submodule(name).in_features)
    for options, scale in (({}, 8 / 4), ({"rslora": True}, 8 / 2), ({"dora": True}, 8 / 4)):
        backbone = copy.deepcopy(policy)
        plan = TowerPlan(FROZEN, FROZEN, replace(LORA, **options))
        plan.apply(backbone)
        step(backbone, plan, batch)
        layer: Any = backbone.model.get_submodule(name)
        low, high = layer.lora_A["language"].weight, layer.lora_B["language"].weight
        weight = layer.base_layer.weight + scale * high @ low
        if "dora" in options:
            magnitude = layer.lora_magnitude_vector["language"].weight
            weight = magnitude[:, None] * weight / weight.square().sum(1, keepdim=True).sqrt()
        with torch.no_grad():
            assert relative(layer(hidden), hidden @ weight.T) <= TOLERANCE


def test_what_is_saved_is_plain_and_says_the_same(
    policy: Backbone, batch: TreeBatch, plan: TowerPlan, tmp_path: Path
) -> None:
    plan.apply(policy)
    step(policy, plan, batch)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    expected = says(policy, batch)
    policy.save_pretrained(tmp_path / "merged")
    assert policy.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert torch.equal(says(policy, batch), expected)
    assert relative(says(Backbone(tmp_path / "merged"), batch), expected) <= TOLERANCE
    stock, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not any("lora" in name or "base_layer" in name for name in stock.state_dict())


def test_merging_in_place_makes_room_for_the_next_adapter(policy: Backbone, batch: TreeBatch, tmp_path: Path) -> None:
    names = [name for name, _ in policy.model.named_parameters()]
    LANGUAGE.apply(policy)
    step(policy, LANGUAGE, batch)
    expected = says(policy, batch)
    policy.merge_adapters()
    assert [name for name, _ in policy.model.named_parameters()] == names
    assert relative(says(policy, batch), expected) <= TOLERANCE
    TowerPlan(LORA, FROZEN, replace(LORA, rank=7)).apply(policy)
    assert relative(says(policy, batch), expected) <= TOLERANCE


def test_applying_the_same_plan_twice_keeps_the_adapters_and_another_is_refused(
    policy: Backbone, batch: TreeBatch
) -> None:
    LANGUAGE.apply(policy)
    step(policy, LANGUAGE, batch)
    expected = says(policy, batch)
    LANGUAGE.apply(policy)
    assert torch.equal(says(policy, batch), expected)
    for other in (TowerPlan(FROZEN, FROZEN, replace(LORA, rank=5)), TowerPlan()):
        with pytest.raises(BackboneError, match="language tower of .* already has adapters"):
            other.apply(policy)


def test_the_fingerprint_is_of_the_policy_as_it_is(tiny: Backbone, policy: Backbone, batch: TreeBatch) -> None:
    LANGUAGE.apply(policy)
    seen = {policy.fingerprint()}
    step(policy, LANGUAGE, batch, 1)
    seen.add(policy.fingerprint())
    other = copy.deepcopy(policy)
    assert other.fingerprint() == policy.fingerprint()
    other.adapters["language"][1]["alpha"] = 16
    seen.add(other.fingerprint())
    assert len(seen) == 3
    with policy.adapters_off():
        assert policy.fingerprint() == tiny.fingerprint()
    assert policy.fingerprint() in seen


@pytest.mark.parametrize("mode", [True, False])
def test_the_weights_beneath_are_the_reference_before_and_behind_training(
    policy: Backbone, batch: TreeBatch, tmp_path: Path, mode: bool
) -> None:
    plan = TowerPlan(LORA, FROZEN, replace(LORA, dropout=0.5))
    plan.apply(policy)
    policy.train(mode)
    frozen, off = FrozenCopy(policy), AdapterOff(policy)
    cached = CachedReference(policy, tmp_path)
    expected = frozen.logps(batch)
    assert torch.equal(off.logps(batch), expected)
    step(policy, plan, batch)
    assert relative(says(policy.eval(), batch), expected) > 1e-3
    policy.train(mode)
    assert torch.equal(off.logps(batch), expected)
    assert torch.equal(frozen.logps(batch), expected)
    assert cached.fill(policy, [batch], "corpus") == 2
    assert torch.equal(cached.logps(batch), expected)
    cached.check(policy, batch)
    assert CachedReference(policy, tmp_path).path == cached.path
    assert policy.training is mode
    assert all(value.requires_grad for _, value in policy.adapter_parameters())


def test_a_reference_in_the_middle_of_a_step_leaves_its_gradient(policy: Backbone, batch: TreeBatch) -> None:
    plan = TowerPlan(FROZEN, FROZEN, replace(LORA, checkpointing=True))
    plan.apply(policy.train())
    step(policy, plan, batch)
    expected = weighted_gradient(policy, policy.logps(batch))
    logps = policy.logps(batch)
    AdapterOff(policy).logps(batch)
    assert gradient_error(weighted_gradient(policy, logps), expected) <= TOLERANCE


def test_adapter_off_needs_adapters_and_nothing_else_that_moves(policy: Backbone) -> None:
    with pytest.raises(BackboneError, match="trains adapters only; it trains model"):
        AdapterOff(policy)
    PLANS["language, vision full"].apply(policy)
    with pytest.raises(BackboneError, match=r"it trains model\.visual"):
        AdapterOff(policy)
    policy.requires_grad_(False)
    policy.merge_adapters()
    with pytest.raises(BackboneError, match="it trains none"):
        AdapterOff(policy)


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ({"targets": ["q_prj"]}, r"'q_prj' matches no module of the tower; linear modules there end with .*q_proj"),
        ({"targets": ["qkv"]}, "lies in the vision tower, which is frozen: set that to lora"),
        (
            {"targets": ["input_layernorm"]},
            "reaches .*input_layernorm, a .*RMSNorm, and LoRA adapts linear modules only",
        ),
        ({"targets": "embed_tokens"}, "reaches .*embed_tokens, a Embedding"),
        ({"targets": "lm_head"}, "shares its weight with the embeddings"),
        (
            {"targets": ["layers.3.mlp.up_proj"]},
            r"lies in towers\.modules\.model\.language_model\.layers\.3, which is frozen",
        ),
    ],
)
def test_targets_that_cannot_be_are_refused(policy: Backbone, language: dict[str, Any], words: str) -> None:
    plan = TowerPlan(FROZEN, FROZEN, replace(LORA, **language), modules={"model.language_model.layers.3": "frozen"})
    names = [name for name, _ in policy.model.named_parameters()]
    with pytest.raises(BackboneError, match=rf"towers\.language\.targets of .*{words}"):
        plan.apply(policy)
    assert [name for name, _ in policy.model.named_parameters()] == names


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "full", "rank": 8}, "rank have no effect in mode full"),
        ({"mode": "frozen", "dora": True, "dropout": 0.1}, "dropout, dora have no effect in mode frozen"),
        ({"mode": "lora", "rank": 0}, "rank is 0"),
        ({"mode": "lora", "alpha": 0.0}, "alpha 0.0; both must be above 0"),
        ({"mode": "lora", "dropout": 1.0}, "dropout is 1.0"),
        ({"mode": "lora", "targets": []}, "targets are empty"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        Tower(**settings)


# ---------------------------------------------------------------------- checkpointing


@pytest.mark.parametrize("engine", ["shared", "separate"])
@pytest.mark.parametrize("name", ["full", "language", "language, vision full", "DoRA", "vision"])
def test_checkpointing_a_tower_changes_neither_loss_nor_gradient(
    policy: Backbone, batch: TreeBatch, name: str, engine: Any
) -> None:
    plan = PLANS.get(name, TowerPlan())
    plan.apply(policy.train())
    calls: dict[str, int] = {"vision": 0, "language": 0}

    def count(tower: str) -> Callable[..., None]:
        return lambda *_: calls.__setitem__(tower, calls[tower] + 1)

    # The first module inside a layer: the layer's own hooks stay outside of what is computed again.
    policy.decoder.layers[0].input_layernorm.register_forward_hook(count("language"))
    policy.model.model.visual.blocks[0].norm1.register_forward_hook(count("vision"))
    with policy.running(engine):
        logps = policy.logps(batch)
        expected = weighted_gradient(policy, logps)
        once = dict(calls)
        for towers in (("language",), ("vision",), ("vision", "language")):
            changed = {tower: replace(getattr(plan, tower), checkpointing=True) for tower in towers}
            report = {row.tower: row for row in replace(plan, **changed).apply(policy)}
            assert {tower for tower, row in report.items() if row.checkpointed} == set(towers)
            calls.update(vision=0, language=0)
            again = policy.logps(batch)
            assert torch.equal(again, logps)
            assert gradient_error(weighted_gradient(policy, again), expected) <= TOLERANCE
            for tower in calls:
                needed = tower == "language" or any(
                    n for n, _ in policy.tower_parameters(tower) if n in trained(policy)
                )
                assert calls[tower] == once[tower] * (2 if tower in towers and needed else 1), (towers, tower)


def trained(backbone: Backbone) -> set[str]:
    return {name for name, value in backbone.model.named_parameters() if value.requires_grad}


def test_dropout_is_the_same_when_computed_again(policy: Backbone, batch: TreeBatch) -> None:
    plan = TowerPlan(FROZEN, FROZEN, replace(LORA, dropout=0.3))
    plan.apply(policy.train())
    step(policy, plan, batch)
    gradients = []
    for checkpointing in (False, True):
        replace(plan, language=replace(plan.language, checkpointing=checkpointing)).apply(policy)
        torch.manual_seed(5)
        gradients.append(weighted_gradient(policy, policy.logps(batch)))
    assert gradient_error(gradients[1], gradients[0]) <= TOLERANCE
    assert relative(says(policy, batch), says(policy.eval(), batch)) > 1e-3


def test_a_tower_without_layers_that_support_checkpointing_is_refused(policy: Backbone) -> None:
    with pytest.raises(BackboneError, match=r"towers\.projector\.checkpointing: no layer of the projector tower"):
        TowerPlan(projector=Tower(checkpointing=True)).apply(policy)


# ---------------------------------------------------------------------- four bits


@pytest.fixture(scope="module")
def saved(tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture
def quantized(saved: Path) -> Backbone:
    return Backbone(saved, quantization="nf4")


@needs_bitsandbytes
def test_four_bits_hold_the_language_towers_linear_layers_and_nothing_else(
    tiny: Backbone, quantized: Backbone, batch: TreeBatch
) -> None:
    held = {name for name, value in quantized.model.named_parameters() if adapters.is_quantized(value)}
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    wanted = {
        name for name, _ in tiny.tower_parameters("language") if name.split(".")[-2] in kinds and "weight" in name
    }
    assert held == wanted
    size, whole = (
        sum(value.numel() * value.element_size() for name, value in backbone.model.named_parameters() if name in wanted)
        for backbone in (quantized, tiny)
    )
    assert size == whole / 8
    # Rounding to sixteen levels shows in a random model, and does not make it another.
    assert 1e-3 < relative(says(quantized, batch), says(tiny, batch)) < 0.3


@needs_bitsandbytes
@pytest.mark.parametrize("options", [{}, {"dora": True}, {"checkpointing": True}], ids=str)
def test_adapters_above_four_bits_train_share_and_merge(
    quantized: Backbone, batch: TreeBatch, tmp_path: Path, options: dict[str, Any]
) -> None:
    plan = TowerPlan(FROZEN, FROZEN, replace(LORA, **options))
    report = plan.apply(quantized.train())
    assert report[2].parameters > sum(value.numel() for _, value in quantized.tower_parameters("language"))
    before = {name: value.clone() for name, value in quantized.state_dict().items()}
    fresh = says(quantized, batch)
    # Answers first, as a run asks for them: a forward in eval mode must not spoil training behind it.
    says(quantized.eval(), batch)
    step(quantized.train(), plan, batch)
    for name, value in quantized.state_dict().items():
        assert torch.equal(value, before[name]) != adapters.is_adapter(name), name
    logps = quantized.logps(batch)
    gradient = weighted_gradient(quantized, logps)
    assert gradient.keys() == {f"model.{name}" for name in trained(quantized)}
    with quantized.running("separate"):
        expected = quantized.logps(batch)
        assert relative(logps.detach(), expected.detach()) <= TOLERANCE
        assert gradient_error(gradient, weighted_gradient(quantized, expected)) <= TOLERANCE
    assert relative(AdapterOff(quantized).logps(batch), fresh) <= 1e-6
    assert torch.equal(says(quantized.frozen_copy(), batch), logps.detach())
    quantized.save_pretrained(tmp_path / "merged")
    assert relative(says(Backbone(tmp_path / "merged"), batch), logps.detach()) <= TOLERANCE
    with pytest.raises(BackboneError, match="cannot be merged into quantised weights"):
        quantized.merge_adapters()


@needs_bitsandbytes
def test_four_bits_cannot_be_trained_themselves(quantized: Backbone) -> None:
    with pytest.raises(BackboneError, match=r"is quantised and cannot be trained: set towers\.language\.mode to lora"):
        TowerPlan().apply(quantized)
    rows = TowerPlan(language=FROZEN).apply(quantized)
    assert rows[0].trained == rows[0].parameters


@needs_bitsandbytes
def test_quantisation_that_cannot_be_is_refused(saved: Path, tiny_folder: Path) -> None:
    with pytest.raises(BackboneError, match="quantization is 'int3'; allowed: null, nf4"):
        Backbone(saved, quantization="int3")  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match=r"needs backbone\.weights=pretrained"):
        Backbone(tiny_folder, weights="random", quantization="nf4")
    towers = {"vision": ["visual"], "projector": ["visual.merger"], "language": ["lm_head"]}
    with pytest.raises(BackboneError, match="finds no linear layer in the language tower"):
        Backbone(saved, quantization="nf4", towers=towers)


def test_what_is_not_installed_is_said_in_words(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BackboneError, match="needs bitsandbytes: pip install bitsandbytes"):
        Backbone(saved, quantization="nf4")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a CUDA device")
def test_liger_layers_need_a_cuda_device(saved: Path) -> None:
    with pytest.raises(BackboneError, match=r"backbone\.liger=true needs a CUDA device"):
        Backbone(saved, liger=True)
