"""DPO and fDPO over a real backbone: identities at step 0, packing, references, segments."""

from __future__ import annotations

import copy
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import CALM, Watch, fit_rows, trainer
from samples import gradient_error, pair, question

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.processor import BackboneError
from spatial_lightning.backbones.towers import Tower, TowerPlan
from spatial_lightning.data import Encoder, PreferenceDataModule
from spatial_lightning.data.encode import SegmentContext
from spatial_lightning.modules import DPOModule, FDPOModule, SFTModule
from spatial_lightning.records import PreferencePair, Response, write_records
from spatial_lightning.tree import TokenTree, pack

KINDS = {"dpo": DPOModule, "fdpo": FDPOModule}


def make(objective: str, backbone: Backbone, reference: Any = "frozen_copy", **options: Any) -> Any:
    return KINDS[objective](backbone, towers=TowerPlan(), optimization=CALM, reference=reference, **options)


@pytest.fixture(scope="module")
def pairs(pictures: tuple[Path, ...]) -> list[PreferencePair]:
    return [pair(str(i), pictures[i : i + 1], extra=" too" * i) for i in range(3)]


@pytest.fixture(scope="module")
def trees(tiny: Backbone, pairs: list[PreferencePair]) -> list[TokenTree]:
    return encoded(tiny, pairs)


def encoded(
    backbone: Backbone, pairs: list[PreferencePair], context: SegmentContext = "single_pass"
) -> list[TokenTree]:
    encoder = Encoder(backbone.processor, segment_context=context)
    return [encoder.pair(record) for record in pairs]


@pytest.fixture
def data(
    tiny: Backbone, pairs: list[PreferencePair], pictures: tuple[Path, ...], tmp_path: Path
) -> PreferenceDataModule:
    for name, part in (("train", pairs), ("val", [pair("held out", pictures[:1], extra=" and round")])):
        write_records(tmp_path / f"{name}.jsonl", part)
    data = PreferenceDataModule(
        tiny.processor, train=tmp_path / "train.jsonl", val=tmp_path / "val.jsonl", batch_size=3
    )
    data.pack_keys = True
    return data


def drifted(tuner: Any, folder: Path, rows: list[list[TokenTree]]) -> Any:
    """The module after two steps, so that policy and reference differ."""
    fit_rows(tuner, [[pack(row) for row in rows]] * 2, folder)
    return tuner


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", ["single_pass", "independent"])
def test_policy_as_reference_gives_ln_2(
    policy: Backbone, pairs: list[PreferencePair], tmp_path: Path, kind: str, context: SegmentContext
) -> None:
    watch = fit_rows(make(kind, policy), [[pack(encoded(policy, pairs, context))]], tmp_path)
    assert watch.metrics[0]["train/loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert watch.metrics[0]["train/reward_margin"] == pytest.approx(0.0, abs=1e-6)
    assert watch.metrics[0]["train/gradient_norm"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_and_three_rows_give_the_same_steps(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path, kind: str
) -> None:
    one, three = (
        fit_rows(make(kind, copy.deepcopy(policy)), [[pack(row) for row in rows]] * 2, tmp_path)
        for rows in ([trees], [[tree] for tree in trees])
    )
    assert gradient_error(three.gradients[0], one.gradients[0]) <= 1e-5
    assert set(three.metrics[1]) == set(one.metrics[1])
    for name, value in one.metrics[1].items():
        if "tokens_per_s" not in name:
            assert three.metrics[1][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def test_alpha_0_is_dpo(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    def run(kind: str, **options: Any) -> Watch:
        return fit_rows(make(kind, copy.deepcopy(policy), beta=0.3, **options), [[pack(trees)]] * 3, tmp_path)

    plain, zero, fine = run("dpo"), run("fdpo", alpha=0.0), run("fdpo", alpha=0.9)
    assert gradient_error(zero.gradients[0], plain.gradients[0]) <= 1e-5
    assert zero.metrics[2]["train/loss"] == pytest.approx(plain.metrics[2]["train/loss"], rel=1e-3)
    assert gradient_error(fine.gradients[0], plain.gradients[0]) > 1e-2


def test_missing_rewards_weigh_segments_alike(policy: Backbone, pictures: tuple[Path, ...], tmp_path: Path) -> None:
    records = [pair("scored", pictures[:1]), pair("unscored", pictures[:1], scored=False)]
    watch = fit_rows(make("fdpo", policy, beta=0.1, alpha=0.5), [[pack(encoded(policy, records))]], tmp_path)
    metrics = watch.metrics[0]
    assert metrics["train/reward_gap_missing"] == 0.5
    assert metrics["train/loss"] == pytest.approx(math.log(2), rel=1e-6)
    tilt = 0.5 * math.tanh(0.6 * (2.0 - 0.5) / 2)
    assert metrics["train/beta_description"] == pytest.approx(0.1 * (1 + (1 + tilt)) / 2, rel=1e-5)
    assert metrics["train/beta_reasoning"] == pytest.approx(0.1 * (1 + (1 - tilt)) / 2, rel=1e-5)


def test_responses_without_segments_are_for_dpo_only(policy: Backbone, tmp_path: Path) -> None:
    rows = [pack(encoded(policy, [PreferencePair("whole", (), question(), Response("yes"), Response("no"))]))]
    assert fit_rows(make("dpo", copy.deepcopy(policy)), [rows], tmp_path).metrics
    with pytest.raises(ValueError, match=r"fDPO needs every response cut in segments .*whole.*objective=dpo"):
        fit_rows(make("fdpo", policy), [rows], tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_and_live_references_train_alike(
    policy: Backbone, data: PreferenceDataModule, tmp_path: Path, kind: str
) -> None:
    seen = {}
    for reference in ("frozen_copy", "cached"):
        tuner = make(kind, copy.deepcopy(policy), reference, cache_folder=tmp_path / "cache")
        watch = Watch()
        trainer(tmp_path, watch, max_epochs=3).fit(tuner, data)
        seen[reference] = watch
    for live, cached in zip(seen["frozen_copy"].metrics, seen["cached"].metrics, strict=True):
        assert cached["train/loss"] == pytest.approx(live["train/loss"], rel=1e-4)
    assert gradient_error(seen["cached"].gradients[0], seen["frozen_copy"].gradients[0]) <= 1e-5
    assert seen["cached"].metrics[2]["train/loss"] < math.log(2) - 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_switched_off_are_the_reference_that_a_copy_is(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path, kind: str
) -> None:
    frozen = Tower("frozen")
    towers = TowerPlan(frozen, frozen, Tower("lora", rank=4, checkpointing=True))
    towers.apply(policy)
    seen = {}
    for reference in ("frozen_copy", "adapter_off"):
        tuner = KINDS[kind](copy.deepcopy(policy), towers=towers, optimization=CALM, reference=reference)
        seen[reference] = fit_rows(tuner, [[pack(trees)]] * 3, tmp_path)
    for live, off in zip(seen["frozen_copy"].metrics, seen["adapter_off"].metrics, strict=True):
        assert off["train/loss"] == pytest.approx(live["train/loss"], rel=1e-6)
    for live, off in zip(seen["frozen_copy"].gradients, seen["adapter_off"].gradients, strict=True):
        assert gradient_error(off, live) <= 1e-5
    assert seen["adapter_off"].metrics[0]["train/loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert seen["adapter_off"].metrics[2]["train/loss"] < math.log(2) - 1e-3


def test_the_second_run_computes_no_reference(policy: Backbone, data: PreferenceDataModule, tmp_path: Path) -> None:
    def run() -> Any:
        tuner = make("dpo", copy.deepcopy(policy), "cached", cache_folder=tmp_path / "cache")
        trainer(tmp_path).fit(tuner, data)
        return tuner

    first, second = run(), run()
    assert first.reference.computed == 4
    assert second.reference.computed == 0
    assert not any("reference" in name for name, _ in second.named_modules())


def test_a_corrupted_cache_stops_the_run(policy: Backbone, data: PreferenceDataModule, tmp_path: Path) -> None:
    tuner = make("dpo", copy.deepcopy(policy), "cached", cache_folder=tmp_path / "cache")
    trainer(tmp_path).fit(tuner, data)
    with sqlite3.connect(tuner.reference.path) as database:
        database.execute("UPDATE logps SET value = zeroblob(length(value))")
    database.close()
    again = make("dpo", copy.deepcopy(policy), "cached", cache_folder=tmp_path / "cache")
    with pytest.raises(BackboneError, match="differs from the model"):
        trainer(tmp_path).fit(again, data)


def test_references_stay_where_training_began(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    batch = pack(trees)
    with torch.no_grad():
        before = policy.logps(batch)
    tuner = drifted(make("dpo", policy), tmp_path, [trees])
    assert torch.equal(tuner.reference.logps(batch), before)
    with torch.no_grad():
        assert not torch.equal(policy.logps(batch), before)


def test_preferences_are_learned_and_a_swap_negates_the_margin(
    policy: Backbone, pairs: list[PreferencePair], tmp_path: Path
) -> None:
    trees = encoded(policy, pairs)
    tuner = drifted(make("dpo", policy, beta=0.5), tmp_path, [trees] * 1)
    swapped = [PreferencePair(p.id, p.images, p.question, p.rejected, p.chosen) for p in pairs]
    metrics = []
    for row in (pack(trees), pack(encoded(policy, swapped))):
        with torch.no_grad():
            loss, values = tuner.loss(row, tuner.counts(row))
        metrics.append((float(loss), float(values["reward_margin"])))
    (learned, margin), (against, negated) = metrics
    assert learned < math.log(2) < against
    assert margin > 0
    assert negated == pytest.approx(-margin, rel=1e-4)


def test_sft_term_adds_the_mean_over_chosen_tokens(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    batch = pack(trees)
    with torch.no_grad():
        chosen = policy.logps(batch)[batch.branch % 2 == 0]
    for kind in KINDS:
        watch = fit_rows(make(kind, copy.deepcopy(policy), sft_weight=0.7), [[batch]], tmp_path)
        assert watch.metrics[0]["train/sft_loss"] == pytest.approx(-float(chosen.mean()), rel=1e-5)
        expected = math.log(2) - 0.7 * float(chosen.mean())
        assert watch.metrics[0]["train/loss"] == pytest.approx(expected, rel=1e-5)


def test_length_desensitised_weights_touch_the_surplus_only(policy: Backbone, trees: list[TokenTree]) -> None:
    batch = pack(trees)
    tuner = make("dpo", policy, ld_alpha=0.25)
    lengths = torch.bincount(batch.branch).unsqueeze(1)
    weights = tuner._length_weights(batch, lengths).split(lengths[:, 0].tolist())
    for index, own in enumerate(weights):
        shared = int(lengths[index // 2 * 2 : index // 2 * 2 + 2].min())
        assert own.tolist() == [1.0] * shared + [0.25] * (own.numel() - shared)
    assert any(0.25 in own.tolist() for own in weights)


@pytest.mark.parametrize(("kind", "expected"), [("simpo", None), ("ipo", None), ("aot", math.log(2)), ("hinge", 1.0)])
def test_other_kinds_run_through_the_module(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path, kind: str, expected: float | None
) -> None:
    reference = "none" if kind == "simpo" else "frozen_copy"
    watch = fit_rows(make("dpo", policy, reference, kind=kind), [[pack(trees)]], tmp_path)
    loss = watch.metrics[0]["train/loss"]
    assert math.isfinite(loss)
    if expected is not None:
        assert loss == pytest.approx(expected, rel=1e-5)
    if kind == "ipo":
        assert loss == pytest.approx((1 / 0.2) ** 2, rel=1e-5)


def test_sorted_kinds_need_the_whole_step_in_a_row(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="raise data.token_budget"):
        fit_rows(make("dpo", policy, kind="aot"), [[pack([tree]) for tree in trees]], tmp_path)


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("dpo", {"reference": "none"}, "choose reference=cached or frozen_copy"),
        ("dpo", {"kind": "simpo"}, "choose reference=none"),
        ("dpo", {"kind": "sigmoyd"}, "objective.kind is 'sigmoyd'"),
        ("dpo", {"ld_alpha": 2.0}, "ld_alpha is 2.0"),
        ("dpo", {"sft_weight": -1.0}, "must not be negative"),
        ("dpo", {"beta": 0.0}, "beta"),
        ("dpo", {"kind": "hinge", "label_smoothing": 0.1}, "label_smoothing|smoothing"),
        ("fdpo", {"alpha": 1.5}, "alpha is 1.5"),
        ("fdpo", {"reference": "none"}, "choose reference=cached or frozen_copy"),
    ],
)
def test_impossible_settings_are_refused_before_any_step(
    policy: Backbone, objective: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(objective, policy, **{"reference": "frozen_copy", **options})


def test_supervised_training_takes_no_reference(policy: Backbone) -> None:
    with pytest.raises(ValueError, match="choose reference=none"):
        SFTModule(policy, towers=TowerPlan(), optimization=CALM, reference="cached")
