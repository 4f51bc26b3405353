"""DataModules: bad rows counted or fatal, budgets, epochs, and loaders that agree however many processes they use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import TEXTS, asked, pair, question

from spatial_lightning.backbones import Backbone
from spatial_lightning.data import PreferenceDataModule, SpatialVLMDataModule
from spatial_lightning.records import AnyRecord, ImageQuestions, RecordError, write_records
from spatial_lightning.tree import TreeBatch, TreeError, pack

Make = Callable[..., SpatialVLMDataModule]


@pytest.fixture
def make(tiny: Backbone, pictures: tuple[Path, ...], tmp_path: Path) -> Make:
    """A module over eight training and two held-out images with four questions each, or over given records."""

    def module(train: list[AnyRecord] | None = None, cls: type = SpatialVLMDataModule, **options: Any) -> Any:
        if train is None:
            train = [asked(f"r{i}", pictures[i % 3 : i % 3 + 1], 4) for i in range(8)]
        held_out = [asked(f"v{i}", pictures[:1], 4) for i in range(2)] if cls is SpatialVLMDataModule else train[:1]
        write_records(tmp_path / "train.jsonl", train)
        write_records(tmp_path / "val.jsonl", held_out)
        options = {"batch_size": 3, **options}
        data = cls(tiny.processor, train=tmp_path / "train.jsonl", val=tmp_path / "val.jsonl", **options)
        data.setup("fit")
        return data

    return module


def ids(steps: list[list[TreeBatch]]) -> list[list[str]]:
    return [[identity for row in step for identity in row.tree_ids] for step in steps]


def same(one: TreeBatch, other: TreeBatch) -> bool:
    return torch.equal(one.ids, other.ids) and all(torch.equal(one.images[n], other.images[n]) for n in one.images)


def test_loader_processes_change_nothing(make: Make) -> None:
    alone, two = (list(make(num_workers=workers).train_dataloader()) for workers in (0, 2))
    assert ids(alone) == ids(two)
    for mine, theirs in zip(alone, two, strict=True):
        assert all(same(one, other) for one, other in zip(mine, theirs, strict=True))


def test_lengths_are_estimated_to_a_few_percent(make: Make, pictures: tuple[Path, ...]) -> None:
    pairs = [pair(str(i), pictures[: i % 4], extra=f", {TEXTS[2]}" * i) for i in range(6)]
    for options in ({"questions_per_image": 3}, {"train": pairs, "cls": PreferenceDataModule}):
        data = make(**options)  # one after the other: both write the same files
        for index, record in enumerate(data.records["train"]):
            tree = data.tree(record, epoch=1)
            assert tree is not None
            assert data.length(index, 1) == pytest.approx(tree.tokens, rel=0.15)


def test_ranks_get_about_as_many_tokens(make: Make, pictures: tuple[Path, ...]) -> None:
    records = [asked(f"r{i}", pictures[: 1 + i % 3], 1 + (7 * i) % 12) for i in range(24)]
    data = make(records, batch_size=12)
    tokens = {record.id: tree.tokens for record in records if (tree := data.tree(record, epoch=0))}
    for shares in zip(*(data.share(rank, 2) for rank in (0, 1)), strict=True):
        sums = [sum(tokens[records[index].id] for index in share) for share in shares]
        assert max(sums) / min(sums) < 1.08


def test_lengths_need_no_pixels(make: Make, pictures: tuple[Path, ...], tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(pictures[0].read_bytes()[:200])
    data = make([asked("whole", pictures[:1], 4), asked("torn", [torn], 4)], max_bad_fraction=0.9)
    assert data.length(0, 0) == data.length(1, 0)
    assert data.tree(data.records["train"][1], epoch=0) is None


def test_steps_are_split_in_rows_under_the_budget_image_tokens_counted(make: Make) -> None:
    whole = list(make().val_dataloader())
    assert [len(step) for step in whole] == [1]
    longest = max(tree.tokens for tree in (make().tree(r, epoch=None) for r in make().records["val"]) if tree)
    split = list(make(token_budget=longest).val_dataloader())
    assert [len(step) for step in split] == [2]
    assert ids(split) == ids(whole)
    assert all(row.tokens <= longest for step in split for row in step)


def test_questions_are_drawn_anew_each_epoch_and_alike_each_time(make: Make) -> None:
    data = make(questions_per_image=2)
    record = data.records["train"][0]

    def drawn(epoch: int | None) -> tuple[int, ...]:
        tree = data.tree(record, epoch=epoch)
        assert tree is not None
        assert tree.branches == 2
        return tuple(tree.nodes[1].ids.tolist() + tree.nodes[2].ids.tolist())

    assert len({drawn(epoch) for epoch in range(8)}) > 1
    assert drawn(3) == drawn(3)
    assert drawn(None) == drawn(None)
    with pytest.raises(ValueError, match="must be at least 1"):
        make(questions_per_image=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_overlong_examples_are_left_out_and_counted_once(make: Make, pictures: tuple[Path, ...], workers: int) -> None:
    records = [asked(f"r{i}", pictures[:1], 1 if i % 2 else 12) for i in range(6)]
    data = make(records, token_budget=200, num_workers=workers)
    loader = data.train_dataloader()
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        found = {identity for step in ids(list(loader)) for identity in step}
        assert found == {"r1", "r3", "r5"}
        assert dict(data.dropped) == {"longer than the token budget": 3}


def test_a_step_of_overlong_examples_has_no_row(make: Make, pictures: tuple[Path, ...]) -> None:
    records = [asked("long", pictures[:1], 12), asked("short", pictures[:1], 1)]
    steps = list(make(records, token_budget=200, batch_size=1).train_dataloader())
    assert sorted(map(len, steps)) == [0, 1]


def test_overlong_examples_can_be_errors(make: Make) -> None:
    with pytest.raises(TreeError, match=r"tokens are more than data.token_budget=60; raise the budget"):
        list(make(token_budget=60, on_overlong="error").train_dataloader())
    with pytest.raises(TreeError, match="no training example can be used"):
        list(make(token_budget=60).train_dataloader())
    with pytest.raises(ValueError, match="allowed: drop, error"):
        make(on_overlong="cut")


def test_examples_that_cannot_be_encoded_stop_the_run_or_are_counted_once(
    make: Make, pictures: tuple[Path, ...]
) -> None:
    bad = ImageQuestions("bad", pictures[:1], (question(text="say <|im_end|>"),))
    records = [*[asked(f"r{i}", pictures[:1], 1) for i in range(7)], bad]
    with pytest.raises(RecordError, match=r"record bad: .*control token[\s\S]*max_bad_fraction \(now 0\)"):
        list(make(records).train_dataloader())
    data = make(records, max_bad_fraction=0.1)
    loader = data.train_dataloader()
    for _ in range(4):
        assert len({identity for step in ids(list(loader)) for identity in step}) == 7
    assert dict(data.dropped) == {"cannot be encoded": 1}


@pytest.mark.parametrize("problem", ["missing", "broken"])
def test_pictures_are_checked_before_training(
    make: Make, pictures: tuple[Path, ...], tmp_path: Path, problem: str
) -> None:
    path = tmp_path / f"{problem}.png"
    if problem == "broken":
        path.write_bytes(b"no picture")
    records = [asked("good", pictures[:1], 1), asked("bad", [path], 1)]
    with pytest.raises(RecordError, match=rf"train\.jsonl:2: image .*{problem}\.png"):
        make(records)
    data = make(records, max_bad_fraction=0.5)
    assert [record.id for record in data.records["train"]] == ["good"]
    assert sum(data.dropped.values()) == 1


def test_bad_rows_carry_their_line(make: Make, tmp_path: Path) -> None:
    make()
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"version": 1, "type": "trace", "id": "x"}) + "\n")
    data = SpatialVLMDataModule(make().encoder.processor, train=tmp_path / "train.jsonl", val=tmp_path / "val.jsonl")
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("{half a row\n")
    with pytest.raises(RecordError, match=r"train\.jsonl:9: not valid JSON"):
        data.setup("fit")


def test_empty_and_absent_files_are_named(make: Make, tiny: Backbone, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"train\.jsonl holds no usable record"):
        make([])
    data = PreferenceDataModule(tiny.processor, train=tmp_path / "absent.jsonl", val=tmp_path / "absent.jsonl")
    with pytest.raises(FileNotFoundError, match=r"absent\.jsonl"):
        data.setup("fit")


def test_held_out_examples_keep_their_order_and_number(make: Make) -> None:
    assert ids(list(make().val_dataloader())) == [["v0", "v1"]]
    assert ids(list(make(val_examples=1).val_dataloader())) == [["v0"]]


def test_fingerprint_follows_corpus_encoding_and_pictures(
    make: Make, pictures: tuple[Path, ...], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(pictures[0].read_bytes())
    records = [asked("a", [picture], 1), asked("b", [picture], 2)]
    base = make(records).fingerprint()
    assert make(records).fingerprint() == base
    prints = [make(records, system="Be brief.").fingerprint(), make(records, token_budget=4000).fingerprint()]
    prints += [make(records[:1]).fingerprint(), make(records, val_examples=1).fingerprint()]
    picture.write_bytes(pictures[1].read_bytes())
    prints.append(make(records).fingerprint())
    assert len({base, *prints}) == 6


def test_pairs_ask_each_question_once(make: Make, pictures: tuple[Path, ...]) -> None:
    pairs = [pair("q", pictures[:1]), pair("q", pictures[:1], extra=" too"), pair("r", pictures[:1])]
    data = make(pairs, cls=PreferenceDataModule)
    assert [asked_question.id for _, asked_question in data.questions("train")] == ["q", "r"]
    assert len(make().questions("train")) == 32


def test_chosen_responses_alone_are_the_pair_without_its_rejected_branch(
    make: Make, pictures: tuple[Path, ...], policy: Backbone
) -> None:
    pairs = [pair(str(index), pictures[:1], extra=f", {TEXTS[2]}" * index) for index in range(2)]
    both = make(train=pairs, cls=PreferenceDataModule)
    one = make(train=pairs, cls=PreferenceDataModule, chosen_only=True)
    for record in pairs:
        tree, alone = both.tree(record, epoch=0), one.tree(record, epoch=0)
        assert tree is not None
        assert alone is not None
        full, part = pack([tree]), pack([alone])
        assert part.branches == 1
        assert part.tokens < full.tokens
        logps = policy.read(full).logps[full.branch == 0]
        torch.testing.assert_close(policy.read(part).logps, logps, rtol=1e-4, atol=1e-5)
    assert one.fingerprint() != both.fingerprint()


def test_reference_rows_hold_every_example_with_its_hash(make: Make, pictures: tuple[Path, ...]) -> None:
    data = make([pair(str(i), pictures[i : i + 1], extra=" too" * i) for i in range(3)], cls=PreferenceDataModule)
    rows = list(data.reference_rows())
    data.pack_keys = True
    met = {key for step in [*data.train_dataloader(), *data.val_dataloader()] for row in step for key in row.tree_keys}
    assert {key for row in rows for key in row.tree_keys} == met
    assert len(met) == 3
    assert [len(row.tree_keys) for row in data.reference_rows(limit=2)] == [2]
