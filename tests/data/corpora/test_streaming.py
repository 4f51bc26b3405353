"""A corpus read in order: the same steps for any number of processes, shared by ranks, gone on with from any step."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from published import Captions, row, write_images, write_rows

from spatial_lightning.backbones import Backbone
from spatial_lightning.backbones.towers import TowerPlan
from spatial_lightning.data import SpatialVLMDataModule
from spatial_lightning.data.corpora.rows import Mark
from spatial_lightning.data.corpora.store import open_store
from spatial_lightning.data.corpora.stream import open_stream
from spatial_lightning.data.streaming import StreamSteps
from spatial_lightning.modules import SFTModule
from spatial_lightning.modules.finetuner import Optimization
from spatial_lightning.records import RecordError

ROWS, BATCH, BLOCK = 29, 3, 8
"""Ten steps an epoch, the last of two rows; blocks of six rows, the last of five."""

Make = Callable[..., SpatialVLMDataModule]


@pytest.fixture
def reader(tmp_path: Path) -> Captions:
    names = write_images(tmp_path, 5)
    return write_rows(tmp_path / "rows.json", [row(i, names[i % 5]) for i in range(ROWS)])


@pytest.fixture
def make(reader: Captions, tiny: Backbone, tmp_path: Path) -> Make:
    """A module that streams the corpus, and holds out a file of its own."""
    names = write_images(tmp_path / "held", 2)
    held = open_store(write_rows(tmp_path / "held" / "val.jsonl", [row(90, names[0])]), tmp_path / "cache")

    def module(corpus: Captions = reader, **options: Any) -> SpatialVLMDataModule:
        stream = open_stream(corpus, tmp_path / "cache", shuffle_rows=BLOCK)
        data = SpatialVLMDataModule(tiny.processor, train=stream, val=held, batch_size=BATCH, **options)
        data.setup("fit")
        return data

    return module


def steps_of(loader: Any, epoch: int = 0) -> list[list[str]]:
    loader.set_epoch(epoch)
    return [[identity for packed in step for identity in packed.tree_ids] for step in loader]


def test_an_epoch_meets_every_row_once_in_an_order_of_its_own(make: Make) -> None:
    loader = make().train_dataloader()
    epochs = [steps_of(loader, epoch) for epoch in (0, 1, 0)]
    for steps in epochs:
        assert [len(step) for step in steps] == [3] * 9 + [2]
        assert sorted(int(name[1:]) for step in steps for name in step) == list(range(ROWS))
        for block in range(0, 5):  # rows stay in their block
            met = {int(name[1:]) for step in steps[2 * block : 2 * block + 2] for name in step}
            assert met == set(range(6 * block, min(6 * block + 6, ROWS)))
    assert epochs[0] == epochs[2]
    assert epochs[0] != epochs[1]
    assert steps_of(make(seed=1).train_dataloader()) != epochs[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_loader_processes_change_nothing_from_epoch_to_epoch(make: Make, workers: int) -> None:
    alone, data = make().train_dataloader(), make(num_workers=workers)
    loader = data.train_dataloader()
    for epoch in (0, 1):
        assert steps_of(loader, epoch) == steps_of(alone, epoch)
    data.teardown("fit")


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_take_turns_in_every_step(make: Make, ranks: int) -> None:
    data = make()
    assert data.stream is not None
    whole = steps_of(data.train_dataloader())
    shares = [
        [
            [name for packed in step.rows for name in packed.tree_ids]
            for step in StreamSteps(data, data.stream, rank, ranks)
        ]
        for rank in range(ranks)
    ]
    assert {len(share) for share in shares} == {len(whole)}
    for index, step in enumerate(whole):
        assert sorted(name for share in shares for name in share[index]) == sorted(step)
    with pytest.raises(ValueError, match="fewer than the 4 ranks"):
        StreamSteps(data, data.stream, 0, 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_goes_on_behind_any_step(make: Make, workers: int) -> None:
    data = make()
    assert data.stream is not None
    whole = list(StreamSteps(data, data.stream, 0, 1))
    names = [[name for packed in step.rows for name in packed.tree_ids] for step in whole]
    for done in (0, 1, 2, 5, 9, 10):
        loader = make(num_workers=workers).train_dataloader()
        after = whole[done - 1].after if done else (0, 0, *Mark())
        state = dict(zip(("block", "taken", *Mark._fields), after, strict=True))
        loader.load_state_dict({"epoch": 0, "steps": done, **state})  # type: ignore[attr-defined]
        assert steps_of(loader) == names[done:]
        assert steps_of(loader, 1) == steps_of(make().train_dataloader(), 1)
        loader._iterator = None


def test_resuming_reads_nothing_that_lies_before_its_block(make: Make, reader: Captions) -> None:
    data = make()
    assert data.stream is not None
    steps = StreamSteps(data, data.stream, 0, 1)
    whole = list(steps)
    text = Path(reader.path).read_bytes()
    offset = whole[5].after[2 + Mark._fields.index("offset")]
    assert offset > 500
    # The file in front of the block may be anything, only not of another length.
    Path(reader.path).write_bytes(b"#" * offset + text[offset:])
    steps.begin(0, whole[5].after)
    assert [step.after for step in steps] == [step.after for step in whole[6:]]


def test_bad_rows_leave_holes_and_are_counted_once_with_their_place(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = write_images(tmp_path, 5)
    rows: list[Any] = [row(i, names[i % 5]) for i in range(ROWS)]
    rows[4], rows[11] = row(4, "lost.png"), {"id": "x"}
    rows[17] = row(17, names[0], answer="say <|im_end|>")
    corpus = write_rows(tmp_path / "bad.json", rows)
    for workers in (0, 2):
        data = make(corpus, max_bad_fraction=0.2, num_workers=workers)
        loader = data.train_dataloader()
        for epoch in (0, 1):
            met = {name for step in steps_of(loader, epoch) for name in step}
            assert met == {f"r{i}" for i in range(ROWS)} - {"r4", "r11", "r17"}
            assert sum(data.dropped.values()) == 3
            assert data.dropped["image missing"] == data.dropped["cannot be encoded"] == 1
        data.teardown("fit")
    assert f"left out {corpus.path}:5: image {tmp_path / 'lost.png'} does not exist" in caplog.text
    with pytest.raises(RecordError, match=r"bad\.json:\d+: [\s\S]*data\.max_bad_fraction \(now 0\)"):
        steps_of(make(corpus).train_dataloader())


def test_what_needs_the_number_of_rows_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match=r"set trainer\.max_steps"):
        _ = make().steps_per_epoch


def test_reference_rows_and_fingerprint_need_no_index(make: Make, reader: Captions) -> None:
    data = make()
    assert sum(len(packed.tree_ids) for packed in data.reference_rows()) == ROWS + 1
    assert sum(len(packed.tree_ids) for packed in data.reference_rows(limit=3)) == 3
    before = data.fingerprint()
    assert make().fingerprint() == before
    write_rows(Path(reader.path), json.loads(Path(reader.path).read_text())[1:])
    assert make().fingerprint() != before


class Keep(L.Callback):
    """What each step saw, and a checkpoint behind each."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.ids = folder, list[list[str]]()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.ids.append([name for packed in batch for name in packed.tree_ids])
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"epoch {trainer.global_step}.ckpt")


def train(policy: Backbone, data: Any, watch: Keep, folder: Path, resume: Path | None = None) -> None:
    optimization = Optimization(
        lr=1e-3, weight_decay=0.0, max_grad_norm=None, warmup=0.0, schedule="constant_with_warmup"
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=14,
        callbacks=[watch],
        default_root_dir=folder,
        use_distributed_sampler=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        SFTModule(policy, towers=TowerPlan(), optimization=optimization), data, ckpt_path=resume, weights_only=True
    )
    data.teardown("fit")


def test_a_resumed_run_sees_the_rest_of_the_files(tiny: Backbone, make: Make, tmp_path: Path) -> None:
    whole = Keep(tmp_path)
    train(copy.deepcopy(tiny), make(), whole, tmp_path)
    loader = make().train_dataloader()
    assert whole.ids == [*steps_of(loader, 0), *steps_of(loader, 1)][:14]
    for name, done, workers in (("4", 4, 0), ("7", 7, 2), ("10", 10, 0), ("epoch 10", 10, 2), ("12", 12, 2)):
        rest = Keep()
        train(copy.deepcopy(tiny), make(num_workers=workers), rest, tmp_path, tmp_path / f"{name}.ckpt")
        assert rest.ids == whole.ids[done:], name
