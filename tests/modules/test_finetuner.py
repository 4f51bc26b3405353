"""Training steps: what moves, that packing changes nothing, and that a run goes on where it stopped."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from fitting import CALM, Watch, fit_rows, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from samples import asked, gradient_error, relative

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import Tower, TowerPlan
from spatial_lightning.data import Encoder, SpatialVLMDataModule
from spatial_lightning.modules import NonFiniteLossError, SFTModule
from spatial_lightning.modules.finetuner import Optimization
from spatial_lightning.records import write_records
from spatial_lightning.tree import TokenTree, pack


def module(backbone: Backbone, optimization: Optimization = CALM, **towers: Any) -> SFTModule:
    return SFTModule(backbone, towers=TowerPlan(**towers), optimization=optimization)


@pytest.fixture(scope="module")
def trees(tiny: Backbone, pictures: tuple[Path, ...]) -> list[TokenTree]:
    encoder = Encoder(tiny.processor)
    return [encoder.questions(asked(str(i), pictures[i : i + 1], 2 + 2 * i)) for i in range(3)]


@pytest.fixture
def data(tiny: Backbone, pictures: tuple[Path, ...], tmp_path: Path) -> SpatialVLMDataModule:
    return nine_examples(tiny, pictures, tmp_path)


def nine_examples(backbone: Backbone, pictures: tuple[Path, ...], folder: Path) -> SpatialVLMDataModule:
    """Nine examples in steps of two, two questions of each drawn anew every epoch."""
    records = [asked(f"r{i}", pictures[i % 3 : i % 3 + 1], 4) for i in range(9)]
    for name, part in (("train", records), ("val", records[:2])):
        write_records(folder / f"{name}.jsonl", part)
    files = {"train": folder / "train.jsonl", "val": folder / "val.jsonl"}
    return SpatialVLMDataModule(backbone.processor, **files, batch_size=2, questions_per_image=2)


def test_one_row_and_three_rows_give_the_same_step(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    steps = {"one row": [pack(trees)], "three rows": [pack([tree]) for tree in trees]}
    seen = {name: fit_rows(module(copy.deepcopy(policy)), [rows], tmp_path) for name, rows in steps.items()}
    one, three = seen["one row"], seen["three rows"]
    assert gradient_error(three.gradients[0], one.gradients[0]) <= 1e-5
    assert three.metrics[0]["train/loss"] == pytest.approx(one.metrics[0]["train/loss"], rel=1e-6)
    assert three.metrics[0]["train/trained_share"] == one.metrics[0]["train/trained_share"]


def test_the_loss_is_the_mean_over_all_trained_tokens(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    with torch.no_grad():
        logps = torch.cat([policy.logps(pack([tree])) for tree in trees])
    watch = fit_rows(module(policy), [[pack(trees[:1]), pack(trees[1:])]], tmp_path)
    assert watch.metrics[0]["train/loss"] == pytest.approx(-float(logps.mean()), rel=1e-5)


@pytest.mark.parametrize("frozen", ["vision", "projector", "language"])
def test_frozen_towers_stay_bit_equal_and_the_others_move(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path, frozen: str
) -> None:
    before = {name: value.clone() for name, value in policy.model.named_parameters()}
    tuner = module(policy, Optimization(lr=1e-3, warmup=0.0), **{frozen: Tower("frozen")})
    fit_rows(tuner, [[pack(trees)]] * 2, tmp_path)
    moved = {name for name, value in policy.model.named_parameters() if not torch.equal(value, before[name])}
    frozen_names = {name for name, _ in policy.tower_parameters(frozen)}
    assert not moved & frozen_names
    assert len(moved) >= 0.9 * (len(before) - len(frozen_names))
    assert not any(name in moved for name, value in policy.model.named_parameters() if not value.requires_grad)


def test_every_tower_learns_at_its_own_rate(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    tuner = module(policy, vision=Tower(lr=1e-6), projector=Tower(lr=1e-2))
    run = trainer(tmp_path)
    run.fit(tuner, torch.utils.data.DataLoader([[pack(trees)]], batch_size=None))  # type: ignore[arg-type]
    rates = {group["name"].split("_")[0]: group["lr"] for group in run.optimizers[0].param_groups}
    assert rates == {"vision": 1e-6, "projector": 1e-2, "language": CALM.lr}


def test_the_policy_trains_in_training_mode(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    policy.eval()
    modes = []
    policy.decoder.layers[0].register_forward_hook(lambda layer, *_: modes.append(layer.training))
    fit_rows(module(policy), [[pack(trees[:1])]], tmp_path)
    assert modes == [True]


def test_warm_up_and_decay_end_with_the_run(policy: Backbone, data: SpatialVLMDataModule, tmp_path: Path) -> None:
    class Rates(L.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
            self.seen.append(optimizer.param_groups[0]["lr"])

    for options, steps in (
        ({"max_epochs": 2}, 10),
        ({"max_steps": 4}, 4),
        ({"max_epochs": 2, "limit_train_batches": 3}, 6),
    ):
        rates = Rates()
        tuner = module(copy.deepcopy(policy), Optimization(lr=1e-3, warmup=0.5, schedule="linear"))
        trainer(tmp_path, rates, **options).fit(tuner, data)
        assert len(rates.seen) == steps
        half = steps // 2
        assert rates.seen[0] == 0.0
        assert max(rates.seen) == rates.seen[half] == 1e-3
        assert rates.seen[-1] == pytest.approx(1e-3 / (steps - half))


def test_a_schedule_needs_an_end(policy: Backbone, data: SpatialVLMDataModule, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set trainer\.max_steps or trainer\.max_epochs"):
        trainer(tmp_path, max_epochs=-1, max_time="00:00:00:05").fit(module(policy), data)


def test_epochs_shuffle_anew_and_draw_other_questions(
    policy: Backbone, data: SpatialVLMDataModule, tmp_path: Path
) -> None:
    watch = Watch()
    trainer(tmp_path, watch, max_epochs=3).fit(module(policy), data)
    epochs = [[i for step in watch.ids[5 * e : 5 * e + 5] for i in step] for e in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    tokens = [torch.cat(watch.questions[5 * e : 5 * e + 5]).sort().values for e in range(3)]
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in itertools.pairwise(tokens))


@pytest.fixture(scope="module")
def uninterrupted(
    tiny: Backbone, pictures: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[SFTModule, Watch, Path]:
    """Three epochs of five steps, with a checkpoint behind every step."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    keep = ModelCheckpoint(
        folder / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
    )
    watch, tuner = Watch(), module(copy.deepcopy(tiny))
    data = nine_examples(tiny, pictures, folder)
    trainer(folder, watch, keep, max_epochs=3, enable_checkpointing=True).fit(tuner, data)
    return tuner, watch, folder / "checkpoints"


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 15}], ids=["epochs", "steps"])
@pytest.mark.parametrize(("stop", "workers"), [(3, 0), (5, 0), (7, 2), (10, 0)])
def test_a_resumed_run_sees_the_same_examples(
    policy: Backbone,
    data: SpatialVLMDataModule,
    uninterrupted: tuple[SFTModule, Watch, Path],
    tmp_path: Path,
    stop: int,
    workers: int,
    limit: dict[str, int],
) -> None:
    """Stopping after any step, also the last of an epoch, and going on equals never having stopped."""
    expected, whole, checkpoints = uninterrupted
    rest, resumed = Watch(), module(policy)
    data.num_workers = workers
    path = checkpoints / f"step={stop}.ckpt"
    trainer(tmp_path, rest, **limit).fit(resumed, data, ckpt_path=path, weights_only=True)
    assert rest.ids == whole.ids[stop:]
    assert all(torch.equal(a, b) for a, b in zip(rest.questions, whole.questions[stop:], strict=True))
    for (name, value), wanted in zip(policy.named_parameters(), expected.backbone.parameters(), strict=True):
        assert relative(value.detach(), wanted.detach()) <= 1e-5, name
    assert (resumed.examples_seen, resumed.tokens_seen) == (expected.examples_seen, expected.tokens_seen)


def test_a_run_that_ended_early_behind_an_epoch_goes_on_with_the_next(
    tiny: Backbone,
    policy: Backbone,
    data: SpatialVLMDataModule,
    uninterrupted: tuple[SFTModule, Watch, Path],
    tmp_path: Path,
) -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            trainer.should_stop = True

    short = trainer(tmp_path, Stop(), max_epochs=3)
    short.fit(module(copy.deepcopy(tiny)), data)
    short.save_checkpoint(tmp_path / "early.ckpt")
    rest = Watch()
    trainer(tmp_path, rest, max_epochs=3).fit(
        module(policy), data, ckpt_path=tmp_path / "early.ckpt", weights_only=True
    )
    assert rest.ids == uninterrupted[1].ids[5:]


def test_checkpoints_hold_trained_weights_only_and_load_them_back(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path
) -> None:
    path = tmp_path / "run.ckpt"
    tuner = module(copy.deepcopy(policy), vision=Tower("frozen"))
    run = trainer(tmp_path)
    loader = torch.utils.data.DataLoader([[pack(trees)]] * 2, batch_size=None)  # type: ignore[arg-type]
    run.fit(tuner, loader)
    run.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert saved.keys() == {name for name, value in tuner.named_parameters() if value.requires_grad}
    again = module(copy.deepcopy(policy), vision=Tower("frozen"))
    trainer(tmp_path).fit(again, loader, ckpt_path=path, weights_only=True)
    for name, value in again.state_dict().items():
        assert torch.equal(value, tuner.state_dict()[name]), name
    with pytest.raises(ValueError, match="trained with other towers"):
        trainer(tmp_path).fit(module(copy.deepcopy(policy)), loader, ckpt_path=path, weights_only=True)


def test_numbers_that_are_not_finite_name_the_batch(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    policy.decoder.norm.register_forward_hook(lambda _m, _i, hidden: hidden * math.nan)
    with pytest.raises(NonFiniteLossError, match=r"loss is nan at step 0 in a batch of 3 examples: 0, 1, 2\."):
        fit_rows(module(policy), [[pack(trees)]], tmp_path)


def test_gradients_that_are_not_finite_leave_the_weights(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path
) -> None:
    policy.decoder.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    before = copy.deepcopy(policy.state_dict())
    with pytest.raises(NonFiniteLossError, match=r"gradient is (nan|inf) at step 0"):
        fit_rows(module(policy), [[pack(trees)]], tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_a_step_without_examples_moves_nothing_and_the_run_goes_on(
    policy: Backbone, trees: list[TokenTree], tmp_path: Path
) -> None:
    before = copy.deepcopy(policy.state_dict())
    tuner = module(policy)
    watch = fit_rows(tuner, [[], [pack(trees)]], tmp_path)
    assert watch.gradients[0] == {}
    assert watch.gradients[1]
    assert "train/loss" not in watch.metrics[0]
    assert tuner.examples_seen == 3
    assert not torch.equal(policy.state_dict()["model.lm_head.weight"], before["model.lm_head.weight"])


def test_validation_averages_over_examples_and_moves_nothing(
    policy: Backbone, data: SpatialVLMDataModule, tmp_path: Path
) -> None:
    data.batch_size = 1
    data.setup("validate")
    before = copy.deepcopy(policy.state_dict())
    run = trainer(tmp_path, limit_val_batches=1.0)
    run.validate(module(policy), data, verbose=False)
    losses = []
    with torch.no_grad():
        for step in data.val_dataloader():
            losses.append(-float(policy.logps(step[0]).mean()))
    assert len(losses) == 2
    assert float(run.callback_metrics["val/loss"]) == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_clipping_bounds_the_gradient(policy: Backbone, trees: list[TokenTree], tmp_path: Path) -> None:
    watch = fit_rows(module(policy, Optimization(lr=1e-3, max_grad_norm=0.01, warmup=0.0)), [[pack(trees)]], tmp_path)
    norm = math.sqrt(sum(float(g.square().sum()) for g in watch.gradients[0].values()))
    assert norm == pytest.approx(0.01, rel=1e-3)
    assert watch.metrics[0]["train/gradient_norm"] > 0.1


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"lr": 0.0}, "lr is 0"), ({"warmup": 1.5}, "warmup is 1.5"), ({"max_grad_norm": 0.0}, "max_grad_norm is 0")],
)
def test_settings_out_of_range_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Optimization(**setting)  # type: ignore[arg-type]


def test_validation_says_how_sure_the_model_is(policy: Backbone, pictures: tuple[Path, ...]) -> None:
    batch = pack([Encoder(policy.processor).questions(asked("a", pictures[:1], 3))])
    trained = module(policy).train()
    assert trained.loss(batch, trained.counts(batch))[1] == {}
    trained.eval()
    metrics = trained.loss(batch, trained.counts(batch))[1]
    readout = policy.read(batch, statistics=True)
    assert readout.entropy is not None
    assert readout.top1 is not None
    torch.testing.assert_close(metrics["entropy"], readout.entropy.mean())
    torch.testing.assert_close(metrics["token_accuracy"], readout.top1.float().mean())
